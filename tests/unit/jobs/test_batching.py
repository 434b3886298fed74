"""Batches: none while nobody waits, all that wait when somebody does, and nobody pays for another one's failure."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from scp_node.jobs.batching import Batches
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError, PoolStoppedError

LIMIT_S = 60


class Asked:
    """Answers with the double; holds the first question back until it is told to go on."""

    def __init__(self, *, poison=(), error=None):
        self.batches = []
        self.poison = poison
        self.error = error
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, questions):
        numbers = [question["number"] for question in questions]
        self.batches.append(numbers)
        self.has_begun.set()
        assert self.may_end.wait(LIMIT_S)
        if set(numbers) & set(self.poison):
            raise self.error
        return [{"double": 2 * number} for number in numbers]


def ask_all(asked, size, count):
    """Have one question asked, and while it is being answered ``count - 1`` more; futures in the order of asking."""
    batches = Batches(asked, size)
    threads = ThreadPoolExecutor(count)
    futures = [threads.submit(batches.ask, {"number": 0})]
    assert asked.has_begun.wait(LIMIT_S)
    for number in range(1, count):
        futures.append(threads.submit(batches.ask, {"number": number}))
        while len(batches._waiting) < number:
            threading.Event().wait(0.002)
    asked.may_end.set()
    wait(futures, LIMIT_S)
    threads.shutdown()
    return futures


def test_who_comes_alone_is_asked_for_at_once_and_alone():
    asked = Asked()
    asked.may_end.set()
    batches = Batches(asked, 4)
    assert [batches.ask({"number": number}) for number in range(3)] == [{"double": 0}, {"double": 2}, {"double": 4}]
    assert asked.batches == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("size", "batches"),
    [(8, [[0], [1, 2, 3, 4, 5]]), (2, [[0], [1, 2], [3, 4], [5]]), (1, [[0], [1], [2], [3], [4], [5]])],
)
def test_what_waits_is_asked_together_in_the_order_of_arrival(size, batches):
    asked = Asked()
    futures = ask_all(asked, size, 6)
    assert [future.result() for future in futures] == [{"double": 2 * number} for number in range(6)]
    assert asked.batches == batches


@pytest.mark.parametrize(
    "error", [ChildCrashError("died"), ChildTimeLimitError("too long"), ChildFailedError("memory", "too much")]
)
def test_a_question_that_fails_costs_the_others_nothing(error):
    asked = Asked(poison=[2], error=error)
    futures = ask_all(asked, 8, 4)
    assert futures[2].exception() is error
    assert [futures[number].result() for number in (0, 1, 3)] == [{"double": 0}, {"double": 2}, {"double": 6}]
    assert asked.batches == [[0], [1, 2, 3], [1], [2], [3]]


@pytest.mark.parametrize("slow", [1, 2])
def test_who_has_an_answer_does_not_wait_for_the_others_of_a_batch_that_failed(slow):
    has_begun, may_go_on, may_end = (threading.Event() for _ in range(3))

    def ask(questions):
        numbers = [question["number"] for question in questions]
        if numbers == [0]:
            has_begun.set()
            assert may_go_on.wait(LIMIT_S)
        if len(numbers) > 1:
            raise ChildCrashError("died")
        if numbers == [slow]:
            assert may_end.wait(LIMIT_S)
        return [{"double": 2 * number} for number in numbers]

    batches = Batches(ask, 8)
    with ThreadPoolExecutor() as threads:
        futures = [threads.submit(batches.ask, {"number": 0})]
        try:
            assert has_begun.wait(LIMIT_S)
            order = [3 - slow, slow]
            for place, number in enumerate(order, 1):
                futures.append(threads.submit(batches.ask, {"number": number}))
                while len(batches._waiting) < place:
                    threading.Event().wait(0.002)
            may_go_on.set()
            assert futures[1].result(LIMIT_S) == {"double": 2 * order[0]}
            assert not futures[2].done()
        finally:
            may_go_on.set()
            may_end.set()
        assert futures[2].result(LIMIT_S) == {"double": 2 * slow}


@pytest.mark.parametrize("error", [PoolStoppedError(), ValueError("a mistake")])
def test_nobody_waits_for_ever_when_there_is_no_going_on(error):
    asked = Asked(poison=range(9), error=error)
    futures = ask_all(asked, 2, 4)
    assert [future.exception(LIMIT_S) for future in futures] == [error] * 4


def test_a_batch_has_a_size():
    with pytest.raises(ValueError, match="batches of 0"):
        Batches(Asked(), 0)
