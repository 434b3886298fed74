"""The chores of a node: what there is to do now and then, and how often."""

import threading
from pathlib import Path

import sqlalchemy as sa

from config.settings import NodeSettings
from scp_node.jobs import sealing
from scp_node.jobs.chores import Chore, Chores
from scp_node.jobs.queues import Jobs
from scp_node.jobs.retention import Retention
from scp_node.spool.store import Spool

_RETENTION_S = 60.0
_SEAL_S = 60.0
_FORGET_S = 600.0
_CHECKPOINT_S = 300.0
_SWEEP_S = 86400.0

_LARGEST_LOG_BYTES = 64 * 2**20
_TRUNCATE_LIMIT_MS = 2000


def open_housekeeping(engine: sa.Engine, jobs: Jobs, spool: Spool, settings: NodeSettings) -> Chores:
    """Return the chores of a node, not yet started."""
    stop = threading.Event()
    retention = Retention(engine, jobs, spool, settings.spool, models=settings.analysis.models, stop=stop)
    chores = (
        Chore(name="retention", every_s=_RETENTION_S, run=retention.remove_expired),
        Chore(name="seal", every_s=_SEAL_S, run=lambda: seal_all(engine, stop)),
        Chore(name="forget", every_s=_FORGET_S, run=retention.forget_jobs),
        Chore(name="checkpoint", every_s=_CHECKPOINT_S, run=lambda: truncate_log(engine)),
        Chore(name="sweep", every_s=_SWEEP_S, run=retention.sweep),
    )
    return Chores(engine, chores, stop=stop)


def seal_all(engine: sa.Engine, stop: threading.Event) -> int:
    """Seal the trace piece by piece; return how many records were sealed."""
    sealed = 0
    while not stop.is_set() and (some := sealing.seal(engine)):
        sealed += some
    return sealed


def truncate_log(engine: sa.Engine) -> int:
    """Empty SQLite's write-ahead log when it has grown; return its size in bytes before, 0 when nothing was done.

    SQLite begins to write at its front again only when no reader and no writer is in it, which under load may be never.
    Room inside the database file is used again by itself; PostgreSQL cleans up after itself.
    """
    if engine.dialect.name != "sqlite":
        return 0
    log = Path(f"{engine.url.database}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size <= _LARGEST_LOG_BYTES:
        return 0
    with engine.connect() as connection:
        before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        # Everybody waits meanwhile, so not for long; the next turn tries again.
        connection.exec_driver_sql(f"PRAGMA busy_timeout={_TRUNCATE_LIMIT_MS}")
        try:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={before}")
    return size
