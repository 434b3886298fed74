"""What a child asks its parent on the way to an answer."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scp_node.jobs.analysis_children import batches_for
from scp_node.jobs.child_errors import (
    ChildCrashError,
    ChildFailedError,
    ChildTimeLimitError,
    ModelsFailedError,
    PoolStoppedError,
)
from scp_node.jobs.children import ChildPool


@pytest.fixture
def pool_of(monkeypatch):
    """Makes pools of children that ask, and stops them at the end."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    pools = []

    def make(answers, *, target="asking", count=1, time_limit_s=120.0, **options):
        factory = f"child_targets:{target}"
        pool = ChildPool(factory, {}, count=count, time_limit_s=time_limit_s, answers=answers, **options)
        pools.append(pool)
        pool.start()
        return pool

    yield make
    for pool in pools:
        pool.stop(0.1)


def test_a_child_is_told_what_it_asks(pool_of):
    pool = pool_of(lambda question: {"answer": question["x"] + 1})
    assert pool.run({"questions": [{"x": 1}, {"x": 5}]})["told"] == [{"answer": 2}, {"answer": 6}]
    assert pool.run({"questions": []})["told"] == []


@pytest.mark.parametrize(
    "error",
    [ChildCrashError("died of it"), ChildTimeLimitError("too long"), ChildFailedError("internal", "RuntimeError")],
)
def test_what_goes_wrong_with_a_question_is_what_becomes_of_the_request(pool_of, error):
    def answers(question):
        if question["x"] == "bad":
            raise error
        return {}

    pool = pool_of(answers)
    before = pool.run({"questions": [{"x": 0}]})["pid"]
    with pytest.raises(type(error)) as caught:
        pool.run({"questions": [{"x": 0}, {"x": "bad"}]})
    assert caught.value is error
    # The child that asked has done nothing wrong.
    assert pool.run({"questions": [{"x": 0}]})["pid"] == before


def test_the_time_in_which_a_child_waits_to_be_told_is_not_its_own(pool_of):
    is_told = threading.Event()

    def answers(question):
        assert is_told.wait(60)
        return {}

    pool = pool_of(answers, time_limit_s=3.0)
    assert pool.wait_ready(60)
    with ThreadPoolExecutor() as threads:
        request = threads.submit(pool.run, {"questions": [{}]})
        # Twice its limit.
        with pytest.raises(TimeoutError):
            request.result(6.0)
        is_told.set()
        assert request.result(60)["told"] == [{}]
    with pytest.raises(ChildTimeLimitError, match="3 s"):
        pool.run({"questions": [{}], "order": "sleep", "seconds": 600})


def test_a_child_that_dies_while_it_waits_to_be_told_is_a_crash(pool_of):
    pool = pool_of(lambda question: {"killed": os.kill(pool.busy_processes[0], signal.SIGKILL)})
    with pytest.raises(ChildCrashError):
        pool.run({"questions": [{}]})


def test_a_parent_that_is_being_stopped_leaves_the_request_to_the_next(pool_of):
    def answers(question):
        raise PoolStoppedError

    with pytest.raises(PoolStoppedError):
        pool_of(answers).run({"questions": [{}]})


def test_a_child_that_failed_is_ended_where_it_may_be_damaged(pool_of):
    pool = pool_of(None, target="simple", ends_failed=True)
    before = pool.run({})["pid"]
    with pytest.raises(ChildCrashError, match=r"ended after ValueError at child_targets\.py"):
        pool.run({"order": "raise"})
    assert pool.run({})["pid"] != before


@pytest.mark.parametrize(
    ("bad", "limit_s", "how"),
    [
        ("poison", 120.0, "the models: the child process ended on it: signal SIGKILL"),
        ("fault", 120.0, "the models: the child process was ended after RuntimeError"),
        # All have asked within it, on a busy machine too.
        ("hang", 6.0, "the models: the analysis took longer than 6 s"),
    ],
)
def test_a_question_that_ends_who_answers_for_all_costs_nobody_else_anything(pool_of, bad, limit_s, how):
    judges = pool_of(None, target="judging", ends_failed=True, time_limit_s=limit_s)
    assert judges.wait_ready(60)
    [first] = judges.processes
    batches = batches_for(judges, 8)
    askers = pool_of(batches.ask, count=3)
    before = _loaded(askers, 3)
    with ThreadPoolExecutor() as threads:
        # Nobody answers before all have asked.
        os.kill(first, signal.SIGSTOP)
        try:
            questions = [1, bad, 2]
            requests = [threads.submit(askers.run, {"questions": [{"number": number}]}) for number in questions]
            _until(lambda: len(batches._waiting) == 2)
        finally:
            os.kill(first, signal.SIGCONT)
        # Not the radiograph's fault: it is counted, and tried again.
        with pytest.raises(ModelsFailedError, match=how):
            requests[1].result(120)
        assert [requests[place].result(120)["told"][0]["double"] for place in (0, 2)] == [2, 4]
    assert set(askers.processes) == before


def _loaded(pool, count):
    _until(lambda: len(pool.processes) == count)
    return set(pool.processes)


def _until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
