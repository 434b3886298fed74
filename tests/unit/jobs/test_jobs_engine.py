"""What this project relies on in the durable engine, some of it private: a new version must pass here first."""

import os
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
import sqlalchemy as sa
from dbos import DBOS

from config.base import Priority
from config.destinations import FolderDestination
from scp_node.jobs import database, queues, workflows
from scp_node.jobs.child_errors import PoolStoppedError
from scp_node.jobs.lease import Lease, LeaseLostError, WorkerId
from scp_node.jobs.recovery import Recovery
from scp_node.jobs.tables import lease

pytestmark = pytest.mark.databases


def _until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


class Recorder:
    """Stands where the work on jobs is: notes each call, and can hold or leave it."""

    def __init__(self):
        self.calls = []
        self.hold = threading.Event()
        self.hold.set()
        self.leave = False

    def run(self, *arguments):
        self.calls.append(arguments)
        self.hold.wait(60)
        if self.leave:
            raise PoolStoppedError
        return "done"


@pytest.fixture
def running(engine, tmp_path):
    """The durable engine, running jobs that are only recorded."""
    analysing, delivering = Recorder(), Recorder()
    workflows.launch(
        engine,
        executor_id="me",
        slots=1,
        destinations=[FolderDestination(kind="folder", name="share", folder=tmp_path)],
        analysing=analysing,
        delivering=delivering,
    )
    yield analysing, delivering
    analysing.hold.set()
    workflows.end_stop(workflows.begin_stop(5))


def _status(engine, job_id):
    query = sa.text("SELECT status, executor_id, started_at_epoch_ms FROM workflow_status WHERE workflow_uuid = :id")
    with engine.connect() as connection:
        return connection.execute(query, {"id": job_id}).one()


def _add(engine, jobs, job_id, number=7, **options):
    with database.write(engine) as connection:
        jobs.analyse(connection, job_id, number, Priority.ROUTINE, **options)


def test_a_job_added_in_a_transaction_runs_with_its_arguments_and_id(engine, jobs, running):
    analysing, delivering = running
    _add(engine, jobs, "analyse:a")
    with database.write(engine) as connection:
        jobs.deliver(connection, "deliver:a", 7, "share", Priority.STAT)
    _until(lambda: analysing.calls and delivering.calls)
    assert analysing.calls == [(7, "analyse:a")]
    assert delivering.calls == [(7, "share", "deliver:a")]
    _until(
        lambda: (
            jobs.statuses(["analyse:a", "deliver:a", "none"]) == dict.fromkeys(["analyse:a", "deliver:a"], "SUCCESS")
        )
    )


def test_a_job_rolled_back_never_runs_and_one_added_twice_runs_once(engine, jobs, running):
    analysing, _ = running
    with pytest.raises(ZeroDivisionError), database.write(engine) as connection:
        jobs.analyse(connection, "analyse:gone", 1, Priority.ROUTINE)
        raise ZeroDivisionError
    _add(engine, jobs, "analyse:a")
    _add(engine, jobs, "analyse:a")
    _until(lambda: analysing.calls)
    _add(engine, jobs, "analyse:a")
    time.sleep(0.5)
    assert analysing.calls == [(7, "analyse:a")]


def test_a_delayed_job_waits_as_a_row(engine, jobs, running):
    analysing, _ = running
    _add(engine, jobs, "analyse:much-later", 8, delay_s=1000.0)
    began = time.time()
    _add(engine, jobs, "analyse:later", delay_s=1.0)
    assert _status(engine, "analyse:much-later").status == "DELAYED"
    _until(lambda: analysing.calls)
    assert time.time() - began >= 1.0
    assert analysing.calls == [(7, "analyse:later")]


def test_urgent_jobs_overtake_waiting_ones(engine, jobs, tmp_path):
    for number in range(5):
        _add(engine, jobs, f"analyse:routine{number}", number)
    with database.write(engine) as connection:
        jobs.analyse(connection, "analyse:stat", 99, Priority.STAT)
    recorder = Recorder()
    recorder.hold.clear()
    workflows.launch(engine, executor_id="me", slots=1, destinations=[], analysing=recorder, delivering=recorder)
    try:
        # Three at a time, and none of them ends: which of the three begins first is chance.
        _until(lambda: len(recorder.calls) == 3)
        first = list(recorder.calls)
        recorder.hold.set()
        _until(lambda: len(recorder.calls) == 6)
    finally:
        recorder.hold.set()
        workflows.end_stop(workflows.begin_stop(5))
    assert (99, "analyse:stat") in first


def test_jobs_of_a_dead_worker_are_taken_over_and_those_of_this_one_are_known(engine, jobs, running):
    """Pins the durable engine's table, its columns and states, that recovery writes to."""
    analysing, _ = running
    analysing.hold.clear()
    _add(engine, jobs, "analyse:mine")
    _until(lambda: analysing.calls)
    with database.write(engine) as connection:
        jobs.analyse(connection, "analyse:theirs", 8, Priority.ROUTINE, delay_s=1000)
        connection.execute(
            sa.text(
                "UPDATE workflow_status SET status = 'PENDING', executor_id = 'dead', delay_until_epoch_ms = NULL"
                " WHERE workflow_uuid = 'analyse:theirs'"
            )
        )
    recovery = Recovery(engine, "me", workflows.running)
    assert recovery.owners() == {"me", "dead"}
    assert recovery.take_over(["dead"]) == 1
    _until(lambda: (8, "analyse:theirs") in analysing.calls)
    assert _status(engine, "analyse:theirs").executor_id == "me"


def test_a_job_left_at_a_stop_stays_for_the_next_worker(engine, jobs, running):
    """Whatever is no Exception passes through the durable engine without becoming the job's outcome."""
    analysing, _ = running
    analysing.leave = True
    _add(engine, jobs, "analyse:left")
    _until(lambda: analysing.calls)
    time.sleep(0.3)
    assert _status(engine, "analyse:left").status == "PENDING"


def test_a_job_whose_lease_is_lost_is_left_even_if_it_cannot_be_given_back(engine, jobs, tmp_path):
    """The lease is lost because the database is away, so giving back fails as a rule: no error of the job."""
    given = []

    class Losing:
        def run(self, *_arguments):
            raise LeaseLostError

    def give_back(job_id):
        given.append(job_id)
        raise sa.exc.OperationalError("UPDATE", {}, sqlite3.OperationalError("database or disk is full"))

    share = FolderDestination(kind="folder", name="share", folder=tmp_path)
    workflows.launch(
        engine,
        executor_id="me",
        slots=1,
        destinations=[share],
        analysing=Recorder(),
        delivering=Losing(),
        give_back=give_back,
    )
    try:
        with database.write(engine) as connection:
            jobs.deliver(connection, "deliver:lost", 7, "share", Priority.ROUTINE)
        _until(lambda: given and not workflows.running())
        time.sleep(0.3)
        assert _status(engine, "deliver:lost").status == "PENDING"
        recovery = Recovery(engine, "me", workflows.running)
        assert (recovery.reclaim(), recovery.reclaim()) == (0, 1)
    finally:
        workflows.end_stop(workflows.begin_stop(5))


def test_times_have_milliseconds(engine, jobs, running):
    """With the sqlite3 of older systems they would be whole seconds, or missing."""
    analysing, _ = running
    stamps = []
    for number in range(4):
        _add(engine, jobs, f"analyse:{number}", number)
        _until(lambda: len(analysing.calls) == number + 1)  # noqa: B023 - called at once
        stamps.append(_status(engine, f"analyse:{number}").started_at_epoch_ms)
    assert all(abs(stamp / 1000 - time.time()) < 600 for stamp in stamps)
    assert any(stamp % 1000 for stamp in stamps)


def test_a_second_worker_in_one_process_is_refused(engine, running):
    with pytest.raises(RuntimeError, match="already"):
        workflows.launch(engine, executor_id="x", slots=1, destinations=[], analysing=None, delivering=None)


def test_the_engine_writes_no_file_of_its_own(engine, running, tmp_path):
    assert {file.name for file in tmp_path.iterdir()} <= {"node.sqlite", "node.sqlite-wal", "node.sqlite-shm"}
    assert DBOS.application_version == queues.APPLICATION_VERSION


def _worker(**changes):
    values = {"host": "h", "pid": os.getpid(), "kernel": "boot-1", "life": "aaa", **changes}
    return WorkerId(**values)


def test_a_worker_of_this_kernel_whose_process_is_gone_is_dead_at_once():
    with subprocess.Popen(["true"]) as ended:
        gone = ended.pid
    me = _worker()
    assert me.knows_dead(str(_worker(pid=gone, life="bbb")))
    # Same number, another life: process 1 of a container that was started again.
    assert me.knows_dead(str(_worker(life="bbb")))
    assert not me.knows_dead(str(me))
    assert not me.knows_dead(str(_worker(pid=os.getppid(), life="bbb")))
    assert not me.knows_dead(str(_worker(pid=gone, kernel="other", life="bbb")))
    assert not me.knows_dead("local")
    assert not _worker(kernel="").knows_dead(str(_worker(pid=gone, kernel="", life="bbb")))


def test_two_starts_have_two_names():
    assert str(WorkerId.new()) != str(WorkerId.new())


def test_who_owns_jobs_without_a_live_lease_is_dead(engine):
    taken = []
    me = _worker()
    owners = {str(me), "silent:1:k:x", "alive:1:k:y", "unknown:1:k:z"}
    watch = Lease(engine, me, ttl_s=600, owners=lambda: owners, take_over=taken.append)
    with database.write(engine) as connection:
        now = database.now(connection)
        connection.execute(
            sa.insert(lease),
            [
                {"executor_id": "silent:1:k:x", "started_at": now - 999, "beat_at": now - 601},
                {"executor_id": "alive:1:k:y", "started_at": now - 999, "beat_at": now - 300},
            ],
        )
    watch.beat()
    assert taken == [["silent:1:k:x", "unknown:1:k:z"]]
    watch.drain()
    watch.beat()
    assert len(taken) == 1
    watch.stop()
    with engine.connect() as connection:
        assert str(me) not in connection.execute(sa.select(lease.c.executor_id)).scalars().all()


def test_a_lease_is_renewed_and_survives_a_database_that_is_away(engine, monkeypatch):
    me = _worker()
    failures = [sa.exc.OperationalError("SELECT", {}, OSError("away"))]
    beats = []

    def on_beat():
        beats.append(time.monotonic())
        if len(beats) == 2:
            raise failures.pop()

    watch = Lease(engine, me, owners=set, take_over=lambda _dead: None, on_beat=on_beat, ttl_s=0.15)
    watch.start()
    _until(lambda: len(beats) >= 4)
    watch.stop()
    assert failures == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        # The command line lists jobs and destinations without paying for engines.
        ("scp_node.jobs.reading", {"torch", "dbos", "highdicom", "pynetdicom", "numpy"}),
        ("scp_node.jobs.overview", {"torch", "dbos", "highdicom", "pynetdicom", "numpy"}),
        # A receiver's process holds no model and no report builder: those are the children's.
        ("scp_node.jobs.node", {"torch", "torchvision", "highdicom"}),
    ],
)
def test_importing_loads_nothing_heavy(module, absent):
    program = f"import {module}, sys; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert absent & set(loaded) == set()
