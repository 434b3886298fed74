"""What is asked of a node's database: lists, counts, details. Changes nothing; runs beside a node or without one.

Imports neither torch nor the durable engine, so that `scp-node jobs list` is quick. `admin` is for what changes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import sqlalchemy as sa

from scp_node.jobs import rows, sealing, trace
from scp_node.jobs.access import Access
from scp_node.jobs.records import ConflictRecord, InstanceDetail, InstanceFilter, InstancePage, InstanceRecord
from scp_node.jobs.sealing import Verification
from scp_node.jobs.tables import instance
from scp_node.jobs.trace import TraceRecord
from scp_node.jobs.worklist import said
from scp_node.records import InstanceState

_CHUNK = 500
"""Rows read at a time: a list of 100,000 instances is streamed, not held."""
EVERYTHING = InstanceFilter()


class Reader(Access):
    """Reads the jobs of a node from its database; opened and closed as `Access`."""

    def page(
        self,
        which: InstanceFilter = EVERYTHING,
        *,
        after: int | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> InstancePage:
        """Read one page of received instances, in order of arrival.

        A page begins where the one before ended, whatever has arrived or gone meanwhile: none is shown twice.

        Parameters
        ----------
        after
            ``next_after`` of the page before; None: from the beginning.
        """
        query = sa.select(instance).where(*_conditions(which, self._engine.dialect.name)).limit(limit)
        if after is not None:
            query = query.where(instance.c.id < after if newest_first else instance.c.id > after)
        query = query.order_by(instance.c.id.desc() if newest_first else instance.c.id)
        with self._engine.connect() as connection:
            found = connection.execute(query).all()
            records = tuple(rows.instance_records(connection, found))
        return InstancePage(records=records, next_after=found[-1].id if len(found) == limit else None)

    def list_instances(
        self, which: InstanceState | InstanceFilter | None = None, *, newest_first: bool = False
    ) -> Iterator[InstanceRecord]:
        """Received instances in order of arrival, read piece by piece.

        Parameters
        ----------
        which
            Only these; None for all.
        """
        if isinstance(which, InstanceState):
            which = InstanceFilter(states=(which,))
        after: int | None = None
        while True:
            page = self.page(which or EVERYTHING, after=after, limit=_CHUNK, newest_first=newest_first)
            yield from page.records
            after = page.next_after
            if after is None:
                return

    def counts(self, which: InstanceFilter = EVERYTHING) -> dict[InstanceState, int]:
        """Instances per state; states without one count 0."""
        query = sa.select(instance.c.state, sa.func.count()).group_by(instance.c.state)
        query = query.where(*_conditions(which, self._engine.dialect.name))
        with self._engine.connect() as connection:
            found = {InstanceState(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in InstanceState}

    def show(self, key: str) -> InstanceDetail:
        """All that is known of one instance.

        Parameters
        ----------
        key
            SOP Instance UID, or the number that ``list_instances`` gives as ``id``.

        Raises
        ------
        UnknownJobError
        """
        with self._engine.connect() as connection:
            return rows.instance_detail(connection, rows.find(connection, key), self._path)

    def conflicts(self, limit: int | None = None) -> tuple[ConflictRecord, ...]:
        """Objects that came under the UID of another one and were set aside, oldest first."""
        with self._engine.connect() as connection:
            return rows.conflict_records(connection, locate=self._path, limit=limit)

    def history(self, key: str) -> tuple[TraceRecord, ...]:
        """The trace of one instance, oldest first, also when all else of it is gone.

        Parameters
        ----------
        key
            SOP Instance UID of the instance or of one of its results, or its number.
        """
        with self._engine.connect() as connection:
            return tuple(trace.history(connection, key))

    def verify(self, expected: Mapping[int, str] | None = None) -> Verification:
        """Whether the trace is as it was written, see `sealing.verify`."""
        with self._engine.connect() as connection:
            return sealing.verify(connection, expected=expected)

    def _path(self, relative: str) -> Path:
        return self._settings.spool.folder / relative


def _conditions(which: InstanceFilter, dialect: str) -> Iterator[sa.ColumnElement[bool]]:
    if which.states:
        yield instance.c.state.in_([state.value for state in which.states])
    if which.reason is not None:
        yield instance.c.reason == which.reason
    if which.uid_prefix:
        columns = (instance.c.sop_instance_uid, instance.c.study_instance_uid)
        yield sa.or_(*(_begins_with(column, which.uid_prefix, dialect) for column in columns))
    if which.calling_ae_title is not None:
        yield instance.c.calling_ae_title == which.calling_ae_title
    if which.received_from is not None:
        yield instance.c.received_at >= which.received_from.timestamp()
    if which.received_before is not None:
        yield instance.c.received_at < which.received_before.timestamp()
    if which.accession_pseudonym is not None:
        yield instance.c.accession_pseudonym == which.accession_pseudonym
    if which.finding is not None:
        yield said(which.finding)


def _begins_with(column: sa.Column[str], prefix: str, dialect: str) -> sa.ColumnElement[bool]:
    """A condition that the database finds by index: SQLite compares bytes, PostgreSQL as its locale has it."""
    if dialect == "sqlite":
        return sa.and_(column >= prefix, column < prefix + "\U0010ffff")
    return column.startswith(prefix, autoescape=True)
