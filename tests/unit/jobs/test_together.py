"""Several results at a time: in order, and nothing under way when an error is raised."""

import threading

import pytest

from scp_node.jobs.together import Together


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_the_order_of_the_things(threads):
    assert Together(threads).each(lambda thing: thing * 2, range(20)) == list(range(0, 40, 2))


def test_as_many_at_a_time_as_there_are_threads():
    both = threading.Barrier(2)
    assert sorted(Together(2).each(lambda _thing: both.wait(60), range(2))) == [0, 1]


def test_one_thread_is_the_one_that_asks():
    assert Together(1).each(lambda _thing: threading.current_thread(), range(2)) == [threading.current_thread()] * 2


def test_an_error_is_raised_when_the_others_have_ended():
    goes_on = threading.Event()
    ended = []

    def work(thing):
        if thing == 0:
            goes_on.set()
            raise OSError("no space")
        goes_on.wait(60)
        ended.append(thing)

    with pytest.raises(OSError, match="no space"):
        Together(2).each(work, range(5))
    assert sorted(ended) == [1, 2, 3, 4]
