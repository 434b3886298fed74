"""Jobs that nobody runs are found and run: of dead workers, of older programs, and those lost on the way here."""

import pytest
import sqlalchemy as sa

from config.base import Priority
from scp_node.jobs import database, recovery
from scp_node.jobs.lease import Lease, LeaseLostError, WorkerId
from scp_node.jobs.recovery import Recovery, job_table

pytestmark = pytest.mark.databases

ME, DEAD = "here:1:k:me", "there:2:k:dead"


@pytest.fixture
def rows(engine, jobs):
    """Adds jobs in any state; reads them back."""
    return Rows(engine, jobs)


class Rows:
    def __init__(self, engine, jobs):
        self._engine, self._jobs = engine, jobs
        self._table = job_table(engine.dialect.name)

    def add(self, job_id, status, *, executor_id=None, version="1"):
        with database.write(self._engine) as connection:
            delay_s = 1000.0 if status == "DELAYED" else 0.0
            self._jobs.analyse(connection, job_id, 1, Priority.ROUTINE, delay_s=delay_s)
            connection.execute(
                sa.update(self._table)
                .where(self._table.c.workflow_uuid == job_id)
                .values(status=status, executor_id=executor_id, application_version=version)
            )

    def read(self):
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(self._table)).all()
        return {row.workflow_uuid: (row.status, row.application_version) for row in found}


def _recovery(engine, running=()):
    return Recovery(engine, ME, lambda: frozenset(running))


def test_only_running_jobs_of_the_dead_are_taken_over(engine, rows):
    rows.add("theirs", "PENDING", executor_id=DEAD)
    rows.add("mine", "PENDING", executor_id=ME)
    rows.add("done", "SUCCESS", executor_id=DEAD)
    found = _recovery(engine)
    assert found.owners() == {ME, DEAD}
    assert found.take_over([DEAD]) == 1
    assert found.take_over([DEAD]) == 0
    assert rows.read() == {"theirs": ("ENQUEUED", "1"), "mine": ("PENDING", "1"), "done": ("SUCCESS", "1")}


def test_a_newer_program_adopts_what_older_ones_left(engine, rows, monkeypatch):
    monkeypatch.setattr(recovery, "APPLICATION_VERSION", "12")
    rows.add("waiting", "ENQUEUED", version="9")
    rows.add("delayed", "DELAYED", version="1")
    rows.add("running", "PENDING", executor_id=DEAD, version="9")
    rows.add("finished", "SUCCESS", version="9")
    rows.add("newer", "ENQUEUED", version="13")
    rows.add("newer-running", "PENDING", executor_id=DEAD, version="13")
    found = _recovery(engine)
    assert found.adopt() == 2
    assert found.adopt() == 0
    assert rows.read()["running"] == ("PENDING", "9")
    # Its worker may be alive: an old one that still runs beside the new. Only when it is dead the job is free.
    assert found.take_over([DEAD]) == 1
    assert rows.read() == {
        "waiting": ("ENQUEUED", "12"),
        "delayed": ("DELAYED", "12"),
        "running": ("ENQUEUED", "12"),
        "finished": ("SUCCESS", "9"),
        "newer": ("ENQUEUED", "13"),
        "newer-running": ("PENDING", "13"),
    }


def test_a_claim_whose_answer_got_lost_is_put_back_when_it_is_seen_twice(engine, rows):
    rows.add("lost", "PENDING", executor_id=ME)
    rows.add("running", "PENDING", executor_id=ME)
    rows.add("theirs", "PENDING", executor_id=DEAD)
    found = _recovery(engine, {"running"})
    assert found.reclaim() == 0
    assert found.reclaim() == 1
    assert rows.read() == {"lost": ("ENQUEUED", "1"), "running": ("PENDING", "1"), "theirs": ("PENDING", "1")}


def test_a_job_that_somebody_else_has_by_now_is_not_given_back(engine, rows):
    rows.add("mine", "PENDING", executor_id=ME)
    rows.add("theirs", "PENDING", executor_id=DEAD)
    assert _recovery(engine).give_back(["mine", "theirs"]) == 1
    assert rows.read() == {"mine": ("ENQUEUED", "1"), "theirs": ("PENDING", "1")}


class Clock:
    """A clock that goes on when it is told to."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def _lease(engine, clock, owners=(), taken=None):
    me = WorkerId(host="here", pid=1, kernel="", life="me")
    taken = [] if taken is None else taken
    return Lease(engine, me, ttl_s=15, owners=lambda: owners, take_over=taken.append, clock=clock)


def test_work_goes_on_while_the_lease_is_renewed(engine, clock):
    held = _lease(engine, clock)
    held.register()
    check = held.fence()
    for _ in range(5):
        clock.now += 14
        check()
        held.beat()


def test_work_ends_where_the_lease_ends(engine, clock):
    """The database away, for this worker alone: it cannot know, so it must stop before others begin."""
    held = _lease(engine, clock)
    held.register()
    check = held.fence()
    clock.now += 15.1
    with pytest.raises(LeaseLostError):
        check()


def test_work_from_before_a_pause_ends_even_if_the_lease_is_renewed_first(engine, clock):
    """Which thread of a paused process wakes first is chance."""
    held = _lease(engine, clock)
    held.register()
    before = held.fence()
    clock.now += 60
    held.beat()
    with pytest.raises(LeaseLostError):
        before()
    held.fence()()


def test_who_was_away_itself_gives_the_others_time_before_it_calls_them_dead(engine, clock):
    """After an outage of the database every lease is old; whoever is back first must not take everything over."""
    taken = []
    held = _lease(engine, clock, owners={DEAD}, taken=taken)
    held.register()
    clock.now += 60
    held.beat()
    assert taken == []
    clock.now += 14
    held.beat()
    assert taken == []
    clock.now += 2
    held.beat()
    assert taken == [[DEAD]]


@pytest.mark.parametrize("status", ["ENQUEUED", "DELAYED"])
def test_a_job_can_be_put_before_all_others(engine, rows, status):
    """A delivery on trial stood behind hundreds that were put off again and again, until its time was over."""
    for job_id in ("old", "new"):
        rows.add(job_id, status)
    with database.write(engine) as connection:
        recovery.put_first(connection, "new")
    with engine.connect() as connection:
        table = job_table(engine.dialect.name)
        # The engine's own order (contract: it sorts by priority, then by time).
        in_order = sa.select(table.c.workflow_uuid).order_by(table.c.priority)
        assert connection.execute(in_order).scalars().first() == "new"
