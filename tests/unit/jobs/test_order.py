"""Who waits for whom: urgent before routine, and no caller behind all of another's."""

import time
from itertools import pairwise

import pytest
import sqlalchemy as sa

from config.base import Priority
from config.storage import SpoolSettings
from scp_node.errors import BusyError
from scp_node.jobs import database, order, queues, workflows
from scp_node.jobs.intake import Filing
from scp_node.jobs.tables import instance
from scp_node.records import Intake


class Desk:
    """Files objects, and takes them out in the order in which the durable engine would."""

    def __init__(self, engine, jobs, spool, receive, **limits):
        settings = SpoolSettings(folder=spool.folder, **limits) if limits else None
        self.engine, self.receive = engine, receive
        self.filing = Filing(engine, jobs, spool, models=("m1",), destinations=(), limits=settings)
        self.count = 0

    def send(self, caller, number=1, **options):
        for _ in range(number):
            self.count += 1
            uid = f"1.2.{self.count}"
            assert (
                self.filing.accept(self.receive(uid, uid.encode(), calling_ae_title=caller, **options)) is Intake.FILED
            )

    def take(self, number=1):
        """Begin to work on the next ones, as `AnalysisWork` does; return whom they came from."""
        schema = "dbos." if self.engine.dialect.name == "postgresql" else ""
        waiting = f"{schema}workflow_status w JOIN instance i ON i.job_id = w.workflow_uuid WHERE i.state = 'received'"
        order_by = "w.priority, w.created_at, i.id"
        query = sa.text(f"SELECT i.id, i.calling_ae_title FROM {waiting} ORDER BY {order_by} LIMIT :number")  # noqa: S608 - our own words
        with database.write(self.engine) as connection:
            rows = connection.execute(query, {"number": number}).all()
            connection.execute(
                sa.update(instance).where(instance.c.id.in_([row.id for row in rows])).values(state="analysing")
            )
        return [row.calling_ae_title for row in rows]


@pytest.fixture
def desk(engine, jobs, spool, receive):
    return Desk(engine, jobs, spool, receive)


@pytest.mark.databases
def test_three_are_not_behind_all_of_somebody_elses(desk):
    desk.send("MIGRATION", 60)
    assert desk.take(10) == ["MIGRATION"] * 10
    desk.send("WARD", 3)
    # One of each in turn, and then the rest.
    taken = desk.take(6)
    assert sorted(taken) == ["MIGRATION"] * 3 + ["WARD"] * 3
    assert desk.take(100) == ["MIGRATION"] * 47


def test_who_never_stops_sending_gets_his_turns_and_no_more(desk):
    desk.send("A", 20)
    desk.send("B", 20)
    desk.send("C", 20)
    taken = desk.take(30)
    assert {caller: taken.count(caller) for caller in "ABC"} == {"A": 10, "B": 10, "C": 10}
    # Who comes late has no claim to what it did not use: A and C go on in turns with it.
    desk.send("D", 20)
    taken = desk.take(20)
    assert {caller: taken.count(caller) for caller in "ABCD"} == dict.fromkeys("ABCD", 5)


def test_one_callers_own_go_in_order_of_arrival(desk):
    desk.send("A", 5)
    with desk.engine.connect() as connection:
        places = connection.execute(sa.select(instance.c.place).order_by(instance.c.id)).scalars().all()
    assert all(first < second for first, second in pairwise(places))


def test_urgent_ones_overtake_everybody(desk):
    desk.send("A", 20)
    desk.take(5)
    desk.send("B", 2, priority=Priority.STAT)
    assert desk.take(3) == ["B", "B", "A"]


def test_what_may_wait_waits_behind_all_that_is_new_and_moves_no_place(desk):
    desk.send("A", 3)
    with database.write(desk.engine) as connection:
        connection.execute(sa.update(instance).where(instance.c.id == 1).values(place=queues.LAST_PLACE))
        assert order.next_place(connection, "B") == 1
        connection.execute(sa.update(instance).values(place=queues.LAST_PLACE))
        assert order.next_place(connection, "B") == 0
    assert queues.rank(Priority.STAT, queues.LAST_PLACE) < queues.rank(Priority.ROUTINE, 0)
    assert queues.rank(Priority.ROUTINE, queues.LAST_PLACE) < 2**31


def test_too_many_that_wait_are_refused_until_there_is_room_and_repeats_never_are(
    engine, jobs, spool, receive, monkeypatch
):
    desk = Desk(engine, jobs, spool, receive, maximum_waiting_instances=3)
    desk.send("A", 3)
    with pytest.raises(BusyError, match="too many"):
        desk.send("A")
    desk.filing.accept(receive("1.2.1", b"1.2.1"))
    desk.take(2)
    # Asked anew only now and then: until then nobody is let in who might be too many.
    with pytest.raises(BusyError):
        desk.send("A")
    monkeypatch.setattr("scp_node.jobs.backlog._ASKED_EVERY_S", 0.0)
    desk.send("A", 2)
    with pytest.raises(BusyError):
        desk.send("A")


def test_too_much_that_waits_is_refused(engine, jobs, spool, receive):
    desk = Desk(engine, jobs, spool, receive, maximum_waiting_bytes=12)
    desk.send("A", 2)
    with pytest.raises(BusyError, match="too much"):
        desk.send("A")


def test_the_durable_engine_runs_jobs_in_this_order(desk):
    """The real one, with three jobs at a time."""
    desk.send("MIGRATION", 40)
    desk.send("WARD", 3)
    recorder = Recorder()
    workflows.launch(desk.engine, executor_id="me", slots=1, destinations=[], analysing=recorder, delivering=recorder)
    try:
        deadline = time.monotonic() + 120
        while len(recorder.numbers) < 43:
            assert time.monotonic() < deadline, recorder.numbers
            time.sleep(0.05)
    finally:
        workflows.end_stop(workflows.begin_stop(5))
    # Numbers 41 to 43 are the ward's; their turns are the first three. By the order of their claims: which thread of a
    # batch begins first is chance.
    query = sa.text(
        "SELECT i.id FROM workflow_status w JOIN instance i ON i.job_id = w.workflow_uuid"
        " ORDER BY w.started_at_epoch_ms, w.priority"
    )
    with desk.engine.connect() as connection:
        claimed = connection.execute(query).scalars().all()
    assert len(claimed) == 43
    assert {41, 42, 43} < set(claimed[:20])


class Recorder:
    """Stands where the work on jobs is, and notes their instances."""

    def __init__(self):
        self.numbers = []

    def run(self, instance_id, *_):
        self.numbers.append(instance_id)
        return "done"
