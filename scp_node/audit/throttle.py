"""Many events of one kind become one message and a number: who floods a node must not wash older messages away."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from scp_node.security.events import SecurityEvent

_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """An event, and how many like it there were since the last message about them."""

    event: SecurityEvent
    times: int = 1


class Throttle:
    """Lets the first event of a kind through at once, and one message for all further ones at the end of a period.

    Not for use by several threads at once.

    Parameters
    ----------
    period_s
        Events like one that was let through are counted this long.
    maximum_kinds
        Told apart at the same time: then titles, and then addresses, are told apart no more.
    clock
        Seconds that never go back.
    """

    def __init__(self, *, period_s: float, maximum_kinds: int, clock: Callable[[], float]) -> None:
        self._period_s = period_s
        self._maximum_kinds = maximum_kinds
        self._clock = clock
        self._began: dict[_Key, float] = {}
        self._counted: dict[_Key, Counted] = {}

    def take(self, event: SecurityEvent) -> Counted | None:
        """Return the event if it is to be told at once; otherwise it is counted."""
        key = self._key(event)
        if key not in self._began:
            self._began[key] = self._clock()
            return Counted(event=event)
        before = self._counted.get(key)
        self._counted[key] = Counted(event=_common(key, event), times=1 + (before.times if before else 0))
        return None

    def due(self, *, everything: bool = False) -> list[Counted]:
        """Return what was counted in periods that are over, or in all."""
        now = self._clock()
        over = [key for key, began in self._began.items() if everything or now - began >= self._period_s]
        for key in over:
            del self._began[key]
        counted = [self._counted.pop(key) for key in over if key in self._counted]
        for one in counted:
            # What goes on is counted on: one message a period, however long it lasts.
            self._began[self._key(one.event)] = now
        return counted

    def _key(self, event: SecurityEvent) -> _Key:
        candidates = (
            (event.kind.value, event.reason, event.address, event.calling_ae_title),
            (event.kind.value, event.reason, event.address, ""),
            (event.kind.value, event.reason, "", ""),
        )
        known = next((key for key in candidates if key in self._began), None)
        if known is not None:
            return known
        # Half of the room for titles, a quarter more for addresses, the rest for reasons, which this node makes itself.
        share = len(self._began) / self._maximum_kinds
        return candidates[0 if share < 0.5 else 1 if share < 0.75 else 2]


def _common(key: _Key, event: SecurityEvent) -> SecurityEvent:
    """The event with only what all that are counted under this key have in common."""
    return replace(event, address=key[2], calling_ae_title=key[3])
