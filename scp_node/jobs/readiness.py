"""Whether the node does its work: the checks behind /health/ready, each with its reason in one sentence."""

from dataclasses import dataclass

import sqlalchemy as sa

from config.settings import NodeSettings
from scp_node.errors import DatabaseError
from scp_node.jobs import database
from scp_node.jobs.migrations import require_current
from scp_node.jobs.statistics import overdue
from scp_node.jobs.tables import lease
from scp_node.spool.store import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question and its answer, in words."""

    name: str
    is_ok: bool
    detail: str


def readiness(engine: sa.Engine, settings: NodeSettings) -> tuple[Check, ...]:
    """Ask everything; a question that cannot be asked counts as failed."""
    try:
        require_current(engine, settings.database.url)
        with engine.connect() as connection:
            return (
                Check(name="database", is_ok=True, detail="answers, and is of this version"),
                _worker(connection, settings),
                _work(connection, settings),
                _disk(settings),
            )
    except DatabaseError as error:
        return Check(name="database", is_ok=False, detail=str(error)), _disk(settings)
    except sa.exc.SQLAlchemyError as error:
        # Kind only: the message may hold parameters.
        detail = f"does not answer ({type(error).__name__})"
        return Check(name="database", is_ok=False, detail=detail), _disk(settings)


def _worker(connection: sa.Connection, settings: NodeSettings) -> Check:
    now = database.now(connection)
    beats = connection.execute(sa.select(lease.c.beat_at)).scalars().all()
    alive = sum(1 for beat in beats if beat > now - settings.service.lease_ttl_s)
    if alive:
        return Check(name="worker", is_ok=True, detail=f"{alive} alive")
    detail = "none is alive: start `scp-node serve`"
    if beats:
        detail = f"none is alive, the last was heard of {now - max(beats):.0f} s ago: start `scp-node serve`"
    return Check(name="worker", is_ok=False, detail=detail)


def _work(connection: sa.Connection, settings: NodeSettings) -> Check:
    limit_s = settings.console.stuck_after_s
    count, oldest_s = overdue(connection, stuck_after_s=limit_s)
    if not count:
        return Check(name="work", is_ok=True, detail="nothing waits too long")
    detail = f"{count} waited more than {limit_s:.0f} s for the next step, the oldest {oldest_s:.0f} s"
    return Check(name="work", is_ok=False, detail=detail)


def _disk(settings: NodeSettings) -> Check:
    spool = Spool(settings.spool)
    try:
        free = spool.free_bytes()
    except OSError as error:
        return Check(name="disk", is_ok=False, detail=f"the spool cannot be read: {error.strerror}")
    detail = f"{free / 1e9:.1f} GB free"
    if spool.is_short():
        return Check(name="disk", is_ok=False, detail=f"{detail}, too little: C-STORE is refused")
    return Check(name="disk", is_ok=True, detail=detail)
