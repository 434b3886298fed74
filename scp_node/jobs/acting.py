"""Who acts: the person whose command or click a change follows, for the trace. Nobody, when the node acts by itself."""

import functools
import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

_actor: ContextVar[str] = ContextVar("actor", default="")

P = ParamSpec("P")
R = TypeVar("R")


def actor() -> str:
    """Name of the person who acts at this moment; empty: nobody."""
    return _actor.get()


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Until the block ends, what this thread or task changes was asked for by this person."""
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


def by_operator(act: Callable[P, R]) -> Callable[P, R]:
    """Decorate an act of an operator: unless somebody is named already, it is the user of the operating system."""

    @functools.wraps(act)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        with acting_as(actor() or system_user()):
            return act(*arguments, **named)

    return run


def system_user() -> str:
    """Name of the user that this process runs as; ``unknown`` in a container whose user has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
