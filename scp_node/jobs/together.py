"""Several things at a time in one process, for work that libraries do without holding the interpreter."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

_Thing = TypeVar("_Thing")
_Made = TypeVar("_Made")


class Together:
    """A few threads that are kept.

    Parameters
    ----------
    threads
        With 1, everything is done in the thread that asks.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="together") if threads > 1 else None

    def each(self, function: Callable[[_Thing], _Made], things: Iterable[_Thing], /) -> list[_Made]:
        """Call a function for each thing; results in the order of the things.

        An error is raised when all that was begun has ended: nothing is still being written behind the caller's back.
        """
        if self._threads is None:
            return [function(thing) for thing in things]
        begun = [self._threads.submit(function, thing) for thing in things]
        wait(begun)
        return [one.result() for one in begun]
