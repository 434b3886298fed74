"""The balance of a fault run, from what peers swear to and what the node says; knows no process and no database."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from scp_node.jobs.records import InstanceRecord
from scp_node.records import DeliveryState, InstanceState

WINDOW_S = 1.0
"""For a program that keeps no record of confirmations: an object that was sent twice is explained by a kill within this
time of its first arrival, between the destination's answer and the program's note of it."""
_BEFORE_S = 0.1
"""A killed process may write its last line this long before the kill is noted, and after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL: when, and whom it hit (``child``, a destination, or a process of the node); or a ``take-over``."""

    at: float
    victim: str


@dataclass(slots=True, kw_only=True)
class Balance:
    """What became of what was sent."""

    sent: int = 0
    acknowledged: int = 0
    answers: Counter = field(default_factory=Counter)
    states: Counter = field(default_factory=Counter)
    delivered: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    duplicates_explained: list[str] = field(default_factory=list)
    duplicates_unexplained: list[str] = field(default_factory=list)
    different_uids: list[str] = field(default_factory=list)
    different_bytes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the contract of docs/architecture.md held."""
        broken = (
            self.lost,
            self.stuck,
            self.unexpected,
            self.duplicates_unexplained,
            self.different_uids,
            self.different_bytes,
        )
        return self.sent == self.acknowledged and not any(broken)

    def lines(self) -> list[str]:
        """Return the balance in words, one figure a line."""
        delivered = ", ".join(
            f"{name} {count} instances ({self.objects[name]} objects)" for name, count in self.delivered.items()
        )
        return [
            f"sent                    {self.sent}",
            f"acknowledged            {self.acknowledged}",
            f"answers                 {_words(self.answers)}",
            f"final states            {_words(self.states)}",
            f"delivered               {delivered}",
            f"sent twice, explained   {_count(self.duplicates_explained)}",
            f"sent twice, unexplained {_count(self.duplicates_unexplained)}",
            f"two UIDs for one result {_count(self.different_uids)}",
            f"two contents, one UID   {_count(self.different_bytes)}",
            f"unexpected final state  {_count(self.unexpected)}",
            f"lost                    {_count(self.lost)}",
            f"stuck                   {_count(self.stuck)}",
        ]


def _words(counter: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=str)) or "none"


def _count(found: Sequence[str]) -> str:
    return "0" if not found else f"{len(found)}: " + "; ".join(found[:5])


def balance(
    expected: Mapping[str, InstanceState],
    *,
    answers: Iterable[Mapping[str, Any]],
    instances: Sequence[InstanceRecord],
    results: Mapping[str, set[str]],
    confirmed: Mapping[str, Mapping[str, float]],
    stored: Mapping[str, Sequence[Mapping[str, Any]]],
    kills: Sequence[Kill],
) -> Balance:
    """Draw the balance.

    Parameters
    ----------
    expected
        The state each SOP Instance UID must end in.
    answers
        The sender's record.
    results
        UIDs of the results that the node has on record, by source; of alternatives a destination gets one.
    confirmed
        When the node committed a destination's confirmation, by destination and UID of the result.
    stored
        Each destination's record.
    """
    drawn = Balance(sent=len(expected))
    acknowledged = set()
    for answer in answers:
        status = answer["status"]
        drawn.answers["no answer" if status is None else f"{status:#06x}"] += 1
        if status == 0x0000:
            acknowledged.add(answer["uid"])
    drawn.acknowledged = len(acknowledged & set(expected))
    by_uid = {record.sop_instance_uid: record for record in instances}
    drawn.states = Counter(record.state.value for record in instances)
    arrived = {name: _by_source(rows, set(expected)) for name, rows in stored.items()}
    for uid in sorted(acknowledged):
        record = by_uid.get(uid)
        if record is None:
            drawn.lost.append(f"{uid} was acknowledged and is unknown to the node")
            continue
        if not record.state.is_final:
            drawn.stuck.append(f"{uid} is {record.state.value}")
        elif record.state is not expected.get(uid):
            drawn.unexpected.append(f"{uid} is {record.state.value} ({record.reason})")
        for delivery in record.deliveries:
            if delivery.state is DeliveryState.DELIVERED and not _is_complete(arrived[delivery.destination].get(uid)):
                drawn.lost.append(f"{uid} counts as delivered and is not complete at {delivery.destination}")
    for name, rows in stored.items():
        drawn.delivered[name] = sum(_is_complete(found) for found in arrived[name].values())
        drawn.objects[name] = len({row["uid"] for row in rows})
        # Neither a child nor another destination has a part in this delivery: their ends explain nothing here.
        others = {"child", *stored} - {name}
        explained, unexplained = repeats(
            rows, [kill for kill in kills if kill.victim not in others], confirmed.get(name, {})
        )
        drawn.duplicates_explained += [f"{name} {one}" for one in explained]
        drawn.duplicates_unexplained += [f"{name} {one}" for one in unexplained]
    _sameness(drawn, stored, results, set(expected))
    return drawn


def _by_source(rows: Iterable[Mapping[str, Any]], sources: set[str]) -> dict[str, set[tuple[str, str]]]:
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        for source in sources.intersection(row["references"]):
            found[source].add((row["series"], row["instance"]))
    return found


def _is_complete(found: set[tuple[str, str]] | None) -> bool:
    """Whether a destination has a picture, a measurement report and a text: a series of pictures, two of reports."""
    return found is not None and len(found) >= 3


def repeats(
    rows: Iterable[Mapping[str, Any]], suspects: Sequence[Kill], confirmed: Mapping[str, float] | None = None
) -> tuple[list[str], list[str]]:
    """Return the objects that one destination got again: those that a kill explains, and the others.

    A kill explains it when it came after the first arrival, and the program had not yet committed the confirmation.

    Parameters
    ----------
    confirmed
        When that was committed, by UID; None: the program keeps no such record, see `WINDOW_S`.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        times[row["uid"]].append(row["at"])
    explained, unexplained = [], []
    for uid, seen in times.items():
        for first, second in pairwise(seen):
            end = second if confirmed is not None else min(first + WINDOW_S, second)
            cause = [kill for kill in suspects if first - _BEFORE_S <= kill.at <= end]
            is_resent = confirmed is not None and confirmed.get(uid, second) < second
            if cause and not is_resent:
                explained.append(f"{uid}: {cause[0].victim}, {cause[0].at - first:+.3f} s from its arrival")
            elif is_resent:
                unexplained.append(f"{uid}: sent although its confirmation was committed")
            else:
                unexplained.append(f"{uid}: {second - first:.1f} s apart, no kill in between")
    return explained, unexplained


def _sameness(
    drawn: Balance,
    stored: Mapping[str, Sequence[Mapping[str, Any]]],
    results: Mapping[str, set[str]],
    sources: set[str],
) -> None:
    """Whatever arrived anywhere for one source: one UID per kind of result, one content per UID, all on record."""
    uids: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    contents: dict[str, set[str]] = defaultdict(set)
    for rows in stored.values():
        for row in rows:
            contents[row["uid"]].add(row["sha256"])
            for source in sources.intersection(row["references"]):
                uids[source, row["sop_class"], row["series"], row["instance"]].add(row["uid"])
                if row["uid"] not in results.get(source, set()):
                    drawn.different_uids.append(f"{row['uid']} for {source} is not on the node's record")
    drawn.different_uids += [f"{key[0]}: {sorted(found)}" for key, found in uids.items() if len(found) > 1]
    drawn.different_bytes += [uid for uid, found in contents.items() if len(found) > 1]
