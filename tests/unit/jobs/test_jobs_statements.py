"""How many statements an instance costs from its arrival to its delivery: a database on another machine feels each."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from summaries import PREDICTION, analysed

from config.destinations import DeliverySettings, FolderDestination
from scp_node.jobs.analysis import AnalysisWork
from scp_node.jobs.children import ChildPool
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.intake import Filing
from scp_node.jobs.summary import to_json
from scp_node.jobs.tables import delivery, instance
from scp_node.records import DeliveryState, InstanceState, Intake

_RESULTS = 5
"""A montage, three singles, a report."""


def answer(uid):
    return analysed(
        *(f"2.25.{uid}{number}" for number in range(_RESULTS)),
        predictions=[replace(PREDICTION, model=f"m{number}", title=f"Model {number}") for number in range(3)],
    )


@pytest.fixture
def statements(engine):
    """All statements of this database's engine, in order."""
    seen = []
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    return seen


@pytest.fixture
def pool(spool, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    pool = ChildPool("child_targets:scripted", {"spool": {"folder": str(spool.folder)}}, count=1, time_limit_s=120)
    pool.start()
    yield pool
    pool.stop(0.1)


def test_an_instance_costs_few_statements(  # noqa: PLR0917 - fixtures
    tmp_path, engine, jobs, spool, receive, pool, statements
):
    """The second one: the first also asks what kind of database this is. The durable engine's own are not counted."""
    share = FolderDestination(kind="folder", name="share", folder=tmp_path / "share")
    names = (share.name,)
    filing = Filing(engine, jobs, spool, models=("m1",), destinations=names)
    analysis = AnalysisWork(engine, jobs, pool, spool, models=("m1",), attempts=3, destinations=names)
    deliveries = DeliveryWork(
        engine, jobs, spool, destinations=(share,), settings=DeliverySettings(), calling_ae_title="NODE"
    )
    for uid in ("1.2.3", "1.2.4"):
        received = receive(uid, json.dumps({"answer": to_json(answer(uid.replace(".", "")))}).encode())
        statements.clear()
        assert filing.accept(received) is Intake.FILED
        filed = len(statements)
        with engine.connect() as connection:
            row = connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == uid)).one()
        statements.clear()
        assert analysis.run(row.id, row.job_id) == InstanceState.DELIVERING
        judged = len(statements)
        with engine.connect() as connection:
            job_id = connection.execute(sa.select(delivery.c.job_id).where(delivery.c.instance_id == row.id)).scalar()
        statements.clear()
        assert deliveries.run(row.id, "share", job_id) == DeliveryState.DELIVERED
        delivered = len(statements)
    # It was 7, 18 and 39; a quarter more is allowed.
    assert (filed <= 8, judged <= 22, delivered <= 48) == (True, True, True), (filed, judged, delivered)
