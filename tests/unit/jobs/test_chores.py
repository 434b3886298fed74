"""Chores of a node: one process at a time, each in its turn, whatever fails, dies or has a wrong clock."""

import os
import threading
import time

import pytest
import sqlalchemy as sa
from household import DAY_S

from config.storage import SpoolSettings
from scp_node.jobs import database, tables
from scp_node.jobs.chores import Chore, Chores
from scp_node.jobs.housekeeping import open_housekeeping, truncate_log


@pytest.mark.databases
def test_one_process_at_a_time_does_a_chore_and_its_turn_counts_for_all(engine):
    begun, leave, runs = threading.Event(), threading.Event(), []

    def slow():
        runs.append(1)
        begun.set()
        leave.wait(60)
        return 7

    chore = Chore(name="slow", every_s=3600, run=slow)
    one, two = (Chores(engine, [chore], stop=threading.Event()) for _ in range(2))
    thread = threading.Thread(target=one.run_due)
    thread.start()
    assert begun.wait(60)
    assert two.run_due() == {}
    leave.set()
    thread.join()
    assert two.run_due() == {}
    assert runs == [1]
    with database.write(engine) as connection:
        connection.execute(sa.update(tables.chore).values(ended_at=0.0))
    assert two.run_due() == {"slow": 7}


def test_a_chore_that_fails_keeps_no_other_from_its_turn_and_a_dead_holder_nobody_for_ever(engine):
    def fail():
        raise ZeroDivisionError

    chores = [Chore(name="bad", every_s=3600, run=fail), Chore(name="good", every_s=3600, run=lambda: 1)]
    made = Chores(engine, chores, stop=threading.Event())
    assert made.run_due() == {"good": 1}
    with database.write(engine) as connection:
        values = {"holder": "dead", "ended_at": 0.0, "held_until": time.time() + 60}
        connection.execute(sa.update(tables.chore).values(**values))
    assert made.run_due() == {}
    with database.write(engine) as connection:
        connection.execute(sa.update(tables.chore).values(held_until=time.time() - 1))
    assert made.run_due() == {"good": 1}


@pytest.mark.databases
def test_a_clock_that_was_ahead_keeps_a_chore_from_its_turn_for_minutes_and_not_for_a_year(engine):
    made = Chores(engine, [Chore(name="one", every_s=60, run=lambda: 1)], stop=threading.Event())

    def set_back(**values):
        with database.write(engine) as connection:
            connection.execute(sa.update(tables.chore).values(**values))
        return made.run_due()

    year_on = time.time() + 365 * DAY_S
    assert made.run_due() == {"one": 1}
    assert set_back(ended_at=year_on) == {"one": 1}
    assert set_back(ended_at=0.0, holder="dead", held_until=year_on) == {"one": 1}
    # Another machine's turn may end while this one asks, and its clock differ: that is no reason to run again.
    assert set_back(ended_at=time.time() + 5) == {}
    assert set_back(ended_at=0.0, holder="other", held_until=time.time() + 905) == {}


def test_the_chores_of_a_node_run_and_stop(engine, jobs, spool, tmp_path):
    from config.settings import NodeSettings

    settings = NodeSettings(spool=SpoolSettings(folder=spool.folder, minimum_free_bytes=0))
    chores = open_housekeeping(engine, jobs, spool, settings)
    assert set(chores.run_due()) == {"retention", "seal", "forget", "checkpoint", "sweep"}
    chores.start()
    chores.stop()


def test_a_write_ahead_log_that_has_grown_is_emptied(engine, monkeypatch):
    with database.write(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE x (a TEXT)")
        for _ in range(50):
            connection.exec_driver_sql("INSERT INTO x VALUES (?)", ("y" * 4000,))
    assert truncate_log(engine) == 0
    monkeypatch.setattr("scp_node.jobs.housekeeping._LARGEST_LOG_BYTES", 1000)
    assert truncate_log(engine) > 100_000
    assert os.path.getsize(f"{engine.url.database}-wal") == 0  # noqa: PTH202
