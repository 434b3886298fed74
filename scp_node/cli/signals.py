"""The signals of a server: SIGTERM and SIGINT ask it to stop, SIGHUP to read its configuration again."""

import signal
import threading
from dataclasses import dataclass, field
from types import FrameType


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operator has asked for so far; a server looks at it when it can."""

    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)


def catch() -> Asked:
    """Catch the signals from now on: call it before anything slow, since an uncaught one ends the process.

    A second SIGTERM or SIGINT finds Python's own behaviour again and ends the process.
    """
    asked = Asked()

    def on_stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        asked.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_stop)
    signal.signal(signal.SIGHUP, lambda _number, _frame: asked.reload.set())
    return asked
