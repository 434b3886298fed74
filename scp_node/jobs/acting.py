"""Who acts: the person whose command or click a change follows, for the trace. Nobody, when the node acts by itself."""

import functools
import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from scp_node.records import Person

P = ParamSpec("P")
R = TypeVar("R")


_actor: ContextVar[Person | None] = ContextVar("actor", default=None)


def actor() -> Person | None:
    """The person who acts at this moment; None: nobody."""
    return _actor.get()


@contextmanager
def acting_as(name: str, address: str = "") -> Iterator[None]:
    """Until the block ends, what this thread or task changes was asked for by this person."""
    token = _actor.set(Person(name=name, address=address))
    try:
        yield
    finally:
        _actor.reset(token)


def by_operator(act: Callable[P, R]) -> Callable[P, R]:
    """Decorate an act of an operator: unless somebody is named already, it is the user of the operating system."""

    @functools.wraps(act)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        if actor() is not None:
            return act(*arguments, **named)
        with acting_as(system_user()):
            return act(*arguments, **named)

    return run


def system_user() -> str:
    """Name of the user that this process runs as; ``unknown`` in a container whose user has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
