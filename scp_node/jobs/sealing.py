"""Seals over the records of the trace, which make changes evident.

`seal` takes the records that no seal covers yet, whatever their number (on PostgreSQL a transaction with a lower number
may commit later), and writes one digest over the digest before and over each of them. So nobody who writes a record
waits for another one, and a record that is changed, removed or put in between afterwards breaks its seal and every
later one. Each seal goes to the log too: whoever can rewrite the whole table cannot rewrite the log of another machine,
see `verify`.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from scp_node.jobs import database
from scp_node.jobs.tables import trace, trace_seal

_SEALED_AT_ONCE = 2000
"""Records under one seal at most: SQLite's other writers wait while it is made."""
_READ_AT_ONCE = 1000
_BEGINNING = "0" * 64
"""What the first seal has in front of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found.

    Parameters
    ----------
    unsealed
        Records that no seal covers yet.
    last_seal, digest
        Number and digest of the last seal; 0 and zeros before the first.
    faults
        Sentences; empty when every seal holds.
    """

    records: int
    unsealed: int
    last_seal: int
    digest: str
    faults: tuple[str, ...]


def seal(engine: sa.Engine) -> int:
    """Seal the records that have none; return how many. One process at a time: others wait for its commit."""
    with database.exclusive(engine, trace_seal) as connection:
        rows = connection.execute(
            sa.select(trace).where(trace.c.seal.is_(None)).order_by(trace.c.id).limit(_SEALED_AT_ONCE)
        ).all()
        if not rows:
            return 0
        last = connection.execute(sa.select(trace_seal).order_by(trace_seal.c.number.desc()).limit(1)).one_or_none()
        number, before = (last.number + 1, last.digest) if last else (1, _BEGINNING)
        digest = _Digest(before)
        for row in rows:
            digest.add(row)
        connection.execute(
            sa.insert(trace_seal).values(number=number, at=time.time(), records=len(rows), digest=digest.value)
        )
        ids = [row.id for row in rows]
        for start in range(0, len(ids), _READ_AT_ONCE):
            some = ids[start : start + _READ_AT_ONCE]
            connection.execute(sa.update(trace).where(trace.c.id.in_(some)).values(seal=number))
    # Imported here: commands that only read the trace log nothing.
    import structlog

    structlog.get_logger(__name__).info("trace sealed", number=number, records=len(rows), digest=digest.value)
    return len(rows)


def verify(connection: sa.Connection, *, expected: Mapping[int, str] | None = None) -> Verification:
    """Compute every seal again from the records.

    Parameters
    ----------
    expected
        Digests by number of seals as they were noted elsewhere, in a log or on paper: finds a table that was written
        anew as a whole, or cut off at its end.
    """
    faults: list[str] = []
    records, before, number = 0, _BEGINNING, 0
    for one in connection.execute(sa.select(trace_seal).order_by(trace_seal.c.number)).all():
        number += 1
        if one.number != number:
            faults.append(f"seal {number} is missing")
            number = one.number
        digest, count = _Digest(before), 0
        for row in _sealed(connection, number):
            digest.add(row)
            count += 1
        if count != one.records:
            faults.append(f"seal {number} ({_day(one.at)}) covers {one.records} records, {count} are there")
        if digest.value != one.digest:
            faults.append(f"seal {number} ({_day(one.at)}) does not hold: records were changed, or a seal before it")
        # As it stands and not as computed: one change is one fault, not a fault of everything after it.
        before, records = one.digest, records + count
        if (noted := (expected or {}).get(number)) not in (None, one.digest):
            faults.append(f"seal {number} is not the one that was noted: {noted}")
    faults += [f"seal {one} was noted and is missing" for one in sorted(expected or {}) if one > number]
    total = int(connection.execute(sa.select(sa.func.count()).select_from(trace)).scalar_one())
    unsealed = sa.select(sa.func.count()).select_from(trace).where(trace.c.seal.is_(None))
    waiting = int(connection.execute(unsealed).scalar_one())
    if total - waiting != records:
        faults.append(f"{total - waiting - records} records name a seal that is not there")
    return Verification(records=total, unsealed=waiting, last_seal=number, digest=before, faults=tuple(faults))


class _Digest:
    """Runs over the records of one seal."""

    def __init__(self, before: str) -> None:
        self._hash = hashlib.sha256(before.encode("ascii"))

    def add(self, row: sa.Row[Any]) -> None:
        parts = [row.id, repr(float(row.at)), row.event, row.instance_id, row.sop_instance_uid, row.detail]
        self._hash.update(hashlib.sha256(json.dumps(parts).encode()).digest())

    @property
    def value(self) -> str:
        return self._hash.hexdigest()


def _sealed(connection: sa.Connection, number: int) -> Iterator[sa.Row[Any]]:
    query = sa.select(trace).where(trace.c.seal == number).order_by(trace.c.id).limit(_READ_AT_ONCE)
    last = 0
    while rows := connection.execute(query.where(trace.c.id > last)).all():
        yield from rows
        last = rows[-1].id


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
