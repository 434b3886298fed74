"""From the trace and the record of users to the audit trail: each row becomes at most one message, once, in order.

The trace is written with the change that it records, so nothing is told that did not happen and nothing is left out,
whatever process ends when. What is in the trail is marked in the database; what was written just before a crash is
found at the end of the trail.
"""

from collections import deque
from typing import Any

import sqlalchemy as sa

from config.settings import NodeSettings
from scp_node.audit.auditor import Auditor, draft_of, source_of
from scp_node.audit.entries import Draft, Entry
from scp_node.audit.lines import Writer
from scp_node.audit.messages import Message
from scp_node.audit.trail import Trail
from scp_node.jobs.acting import system_user
from scp_node.jobs.audited import Building
from scp_node.jobs.tables import trace
from scp_node.jobs.user_actions import user_action
from scp_node.spool.store import Spool

_AT_ONCE = 100


def open_auditor(settings: NodeSettings, engine: sa.Engine, spool: Spool) -> Auditor:
    """Return the auditor of a process with this database."""
    auditor = Auditor(settings, user=system_user())
    auditor.feed = Auditing(settings, engine, spool, auditor.trail).write
    return auditor


_Told = tuple[int | None, int | None, str]
"""Number of the record or of the user's action, and its time."""


def _told(one: Draft | Entry) -> _Told:
    # A database that was restored from a backup gives numbers out again that the trail, which was not, has already.
    return one.record, one.user_action, one.at


class Auditing:
    """Takes the rows that the trail has not got yet; several nodes that share a database share them out."""

    def __init__(self, settings: NodeSettings, engine: sa.Engine, spool: Spool, trail: Trail) -> None:
        self._engine = engine
        self._trail = trail
        self._source = source_of(settings)
        self._building = Building(settings, spool)
        # As many as one call writes: a crash between the trail and the commit leaves no more.
        self._last: deque[_Told] = deque(maxlen=4 * _AT_ONCE)
        self._read_to: int | None = None

    def write(self, writer: Writer) -> int:
        """Write the next messages; return how many rows that settled."""
        return self._write(writer, trace) + self._write(writer, user_action)

    def _write(self, writer: Writer, table: sa.Table) -> int:
        with self._engine.begin() as connection:
            rows = connection.execute(_UNTOLD[table.name]).all()
            if not rows:
                return 0
            written = set(self._newest(writer))
            drafts = [
                draft
                for row in rows
                if (draft := self._draft(connection, table, row)) is not None and _told(draft) not in written
            ]
            if drafts:
                writer.append(drafts)
                self._last.extend(_told(draft) for draft in drafts)
                self._read_to = writer.sequence
            connection.execute(_TOLD[table.name], {"ids": [row.id for row in rows]})
        return len(rows)

    def _newest(self, writer: Writer) -> deque[_Told]:
        """What the newest messages are of, read anew when somebody else has written."""
        if writer.sequence != self._read_to:
            self._last.clear()
            for entry in self._trail.entries(after=max(0, writer.sequence - 4 * _AT_ONCE)):
                self._last.append(_told(entry))
            self._read_to = writer.sequence
        return self._last

    def _draft(self, connection: sa.Connection, table: sa.Table, row: sa.Row[Any]) -> Draft | None:
        if table is trace:
            message: Message | None = self._building.message(connection, row)
            return None if message is None else draft_of(message, self._source, record=row.id)
        message = self._building.user_message(connection, row)
        return None if message is None else draft_of(message, self._source, user_action=row.id)


# Built once: an idle node asks every second. The words and not a parameter: the index holds these rows only. Rows that
# another node has locked are its.
_UNTOLD = {
    table.name: sa.select(table)
    .where(sa.text("is_audited = FALSE"))
    .order_by(table.c.id)
    .limit(_AT_ONCE)
    .with_for_update(skip_locked=True)
    for table in (trace, user_action)
}
_TOLD = {
    table.name: sa.update(table).where(table.c.id.in_(sa.bindparam("ids", expanding=True))).values(is_audited=True)
    for table in (trace, user_action)
}
