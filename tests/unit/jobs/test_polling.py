"""What `polling` does, and what it relies on in the durable engine's private parts.

When a digest fails after an upgrade: read what changed in the function named, decide whether `polling` still says what
it must, run tests/unit/jobs, tests/integration/test_roles_takeover.py and tests/faults, then write the new one down.
"""

import hashlib
import inspect
import threading
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from dbos import DBOSClient, _queue, _workflow_commands
from dbos._sys_db import SystemDatabase

from config.base import Priority
from scp_node.jobs import database, polling, queues, workflows

DIGESTS = {
    "SystemDatabase.dequeue_scopes": "4e4f440a21b0",
    "SystemDatabase.get_queue": "89a5ccf936c5",
    "SystemDatabase._is_latest_version": "5c84ab5f830e",
    "SystemDatabase._in_flight_status_prover": "bbda8766aa9c",
    "SystemDatabase.transition_delayed_workflows": "ce37aab1bfcb",
    "queue_worker_thread": "c0b22c3a946f",
    "background_jobs_thread": "60186147666c",
}
RELIED_ON = [
    SystemDatabase.dequeue_scopes,
    SystemDatabase.get_queue,
    SystemDatabase._is_latest_version,
    SystemDatabase._in_flight_status_prover,
    SystemDatabase.transition_delayed_workflows,
    _queue.queue_worker_thread,
    _workflow_commands.background_jobs_thread,
]


@pytest.mark.parametrize("function", RELIED_ON, ids=lambda function: function.__qualname__)
def test_nothing_that_is_relied_on_has_changed(function):
    digest = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]
    assert digest == DIGESTS[function.__qualname__]


@pytest.fixture
def system(engine):
    """The durable engine's access to its tables, launched by nobody."""
    client = DBOSClient(system_database_engine=engine, serializer=queues.serializer(), application_name="scp-node")
    client.register_queue("analyse", polling_interval_sec=1.0)
    yield client._sys_db
    client.destroy()


@pytest.fixture
def clock():
    return SimpleNamespace(now=100.0)


@pytest.fixture
def spared(system, clock):
    assert polling.spare(system, clock=lambda: clock.now)
    return system


def _add(engine, jobs, job_id, **options):
    with database.write(engine) as connection:
        jobs.analyse(connection, job_id, 7, Priority.ROUTINE, **options)


@pytest.mark.databases
def test_a_queue_is_looked_through_while_a_job_of_it_is_enqueued(engine, jobs, spared):
    assert spared.dequeue_scopes("analyse") == []
    _add(engine, jobs, "analyse:a")
    assert spared.dequeue_scopes("analyse") == [None]
    assert spared.dequeue_scopes("deliver.share") == []
    with database.write(engine) as connection:
        connection.execute(sa.text("UPDATE workflow_status SET status = 'PENDING'"))
    assert spared.dequeue_scopes("analyse") == []


@pytest.mark.databases
def test_a_delayed_job_counts_when_it_is_due(engine, jobs, spared):
    _add(engine, jobs, "analyse:later", delay_s=1000)
    spared.transition_delayed_workflows()
    assert spared.dequeue_scopes("analyse") == []
    jobs.hasten("analyse:later")
    spared.transition_delayed_workflows()
    assert spared.dequeue_scopes("analyse") == [None]


@pytest.mark.databases
def test_the_answer_comes_from_the_index_of_waiting_jobs(engine, jobs, spared):
    _add(engine, jobs, "analyse:a")
    asked = []
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2:4]))
    spared.dequeue_scopes("analyse")
    assert len(asked) == 1
    ((statement, parameters),) = asked
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        else:
            # So few rows are read faster without an index.
            connection.exec_driver_sql("SET enable_seqscan = off")
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()
    assert "idx_workflow_status_in_flight_v2" in str(plan)


def test_how_a_queue_is_set_up_is_asked_now_and_then(engine, clock, spared):
    def limit():
        return spared.get_queue("analyse")._worker_concurrency

    assert limit() is None
    with database.write(engine) as connection:
        connection.execute(sa.text("UPDATE queues SET worker_concurrency = 5"))
    assert limit() is None
    clock.now += polling.KEPT_S
    assert limit() == 5


def test_a_queue_that_is_not_there_yet_is_found_at_once(engine, spared):
    assert spared.get_queue("deliver.share") is None
    with database.write(engine) as connection:
        connection.execute(sa.text("UPDATE queues SET name = 'deliver.share'"))
    assert spared.get_queue("deliver.share").name == "deliver.share"


def test_another_engine_is_left_as_it_is():
    assert not polling.spare(None)
    assert not polling.spare(SimpleNamespace(sharded=True))
    other = SimpleNamespace(sharded=False, dequeue_scopes=list)
    assert not polling.spare(other)
    assert vars(other) == {"sharded": False, "dequeue_scopes": list}


class _Recorder:
    def __init__(self):
        self.called = threading.Event()

    def run(self, *_):
        self.called.set()
        return "done"


def test_a_worker_without_jobs_only_asks_whether_there_are_any(engine, jobs):
    """And runs the next one all the same."""
    recorder, seen = _Recorder(), []
    workflows.launch(engine, executor_id="me", slots=1, destinations=[], analysing=recorder, delivering=recorder)
    try:
        sa.event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
        deadline = time.monotonic() + 60
        while len([one for one in seen if one.startswith("SELECT 1")]) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # A first poll may have begun before the engine was spared.
        assert len([one for one in seen if "priority ASC" in one]) <= 1
        _add(engine, jobs, "analyse:a")
        assert recorder.called.wait(60)
    finally:
        workflows.end_stop(workflows.begin_stop(5))
