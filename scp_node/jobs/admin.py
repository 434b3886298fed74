"""What an operator does: retry, cancel, send again, export, purge. Runs beside a node or without one; starts no worker.

Each act goes into the trace with the change it makes. `reading` is for what only looks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from scp_node.errors import JobStateError, UnknownJobError
from scp_node.jobs import database, deliveries, export, rows, trace
from scp_node.jobs.acting import by_operator
from scp_node.jobs.analysis import restart_analysis
from scp_node.jobs.breaker import Breakers
from scp_node.jobs.queues import Jobs
from scp_node.jobs.reading import Reader
from scp_node.jobs.records import ConflictRecord, InstanceDetail, InstanceRecord, ResultRecord
from scp_node.jobs.removing import Removal, Remover
from scp_node.jobs.states import DeadLetterReason, move, settle
from scp_node.jobs.tables import conflict, delivered_object, delivery, instance
from scp_node.jobs.trace import Event
from scp_node.records import DeliveryState, InstanceState
from scp_node.spool.store import Spool

_ALL_THERE = (DeliveryState.DELIVERED, DeliveryState.COMMITTED)
"""Deliveries that leave nothing to retry."""
_BEING_WORKED_ON = (InstanceState.RECEIVED, InstanceState.ANALYSING)


class Admin(Reader):
    """Acts on the jobs of a node through its database; use it as a context manager."""

    def close(self) -> None:
        """Close the database."""
        if "_jobs" in self.__dict__:
            self._jobs.close()
        super().close()

    @by_operator
    def retry(self, key: str) -> InstanceRecord:
        """Take up again what was given up; a delivery that waits is tried now.

        A dead letter without results and a not eligible instance are analysed anew; otherwise every delivery that is
        not confirmed begins anew, to destinations added since then too. Confirmed objects are not sent again.

        Parameters
        ----------
        key
            SOP Instance UID, or number, as for all acts.

        Raises
        ------
        UnknownJobError
        JobStateError
            It is being worked on, or there is nothing left to do.
        """
        with self._locked(key) as (connection, row):
            state = InstanceState(row.state)
            if state in _BEING_WORKED_ON:
                raise JobStateError(f"{row.sop_instance_uid} is {state.value}: nothing was given up yet")
            self._trace(connection, Event.RETRIED, row)
            if row.analysed_at is None:
                restart_analysis(connection, self._jobs, row, self._settings.analysis.models)
            else:
                names = [destination.name for destination in self._settings.destinations]
                begun = deliveries.begin(connection, self._jobs, row, names)
                begun += deliveries.restart(
                    connection, self._jobs, row, [state for state in DeliveryState if state not in _ALL_THERE]
                )
                if not begun:
                    raise JobStateError(f"{row.sop_instance_uid} is {state.value}: there is nothing to retry")
                for name in begun:
                    Breakers(self._settings.delivery).grant(connection, name, row.id)
                settle(connection, row)
        return self._instance(row.id)

    @by_operator
    def resend(self, key: str, destination: str | None = None) -> InstanceRecord:
        """Send results again that were confirmed, to a destination that has lost them; with the same UIDs.

        Parameters
        ----------
        destination
            Name; None: every one that has or had a delivery.

        Raises
        ------
        UnknownJobError
        JobStateError
            There are no results, their deliveries are under way, or the destination never got any.
        """
        with self._locked(key) as (connection, row):
            if row.analysed_at is None or InstanceState(row.state) in _BEING_WORKED_ON:
                raise JobStateError(f"{row.sop_instance_uid} is {row.state}: it has no results")
            which = [delivery.c.instance_id == row.id]
            if destination is not None:
                which.append(delivery.c.destination == destination)
            found = connection.execute(sa.select(delivery).where(*which)).all()
            if not found:
                raise JobStateError(f"{row.sop_instance_uid} was not to be delivered to {destination or 'anybody'}")
            if busy := [one.destination for one in found if not DeliveryState(one.state).is_final]:
                raise JobStateError(f"{row.sop_instance_uid} is on its way to {', '.join(busy)} already")
            names = [one.destination for one in found]
            connection.execute(
                sa.delete(delivered_object).where(
                    delivered_object.c.instance_id == row.id, delivered_object.c.destination.in_(names)
                )
            )
            deliveries.restart(connection, self._jobs, row, tuple(DeliveryState), destinations=names)
            self._trace(connection, Event.RESENT, row, destinations=names)
            settle(connection, row)
        return self._instance(row.id)

    @by_operator
    def cancel(self, key: str) -> InstanceRecord:
        """Give up by hand: no more analysis, no more attempts. What was delivered stays delivered.

        Raises
        ------
        UnknownJobError
        JobStateError
            It is delivered or not eligible: there is nothing to cancel.
        """
        with self._locked(key) as (connection, row):
            state = InstanceState(row.state)
            if state in (InstanceState.DELIVERED, InstanceState.NOT_ELIGIBLE):
                raise JobStateError(f"{row.sop_instance_uid} is {state.value}: there is nothing to cancel")
            self._trace(connection, Event.CANCELLED, row)
            # Jobs in the durable engine need no telling: each looks at the state before it does anything.
            # What is stored is delivered, whether or not the destination would have committed itself.
            stored = connection.execute(
                sa.update(delivery)
                .where(delivery.c.instance_id == row.id, delivery.c.state == DeliveryState.COMMITTING.value)
                .values(
                    state=DeliveryState.DELIVERED.value,
                    next_attempt_at=None,
                    last_error="stored, not committed: cancelled by an operator",
                )
            ).rowcount
            cancelled = connection.execute(
                sa.update(delivery)
                .where(
                    delivery.c.instance_id == row.id,
                    delivery.c.state.in_([one.value for one in DeliveryState if _can_be_cancelled(one)]),
                )
                .values(state=DeliveryState.CANCELLED.value, next_attempt_at=None)
            ).rowcount
            if cancelled or stored:
                settle(connection, row)
            else:
                detail = "cancelled by an operator" + (f"; before: {row.reason}: {row.detail}" if row.reason else "")
                move(connection, row, InstanceState.DEAD_LETTER, reason=DeadLetterReason.CANCELLED, detail=detail)
        return self._instance(row.id)

    @by_operator
    def export(self, key: str, to: Path, *, sha256: str | None = None) -> Path:
        """Write the received object, as a Part 10 file, and all that is known of it to a new folder or ZIP file.

        Parameters
        ----------
        to
            A name that ends in ``.zip`` makes a ZIP file of mode 0600; any other a folder of mode 0700.
        sha256
            Beginning of the digest of an object that was set aside: this one, and not the one that was analysed.

        Returns
        -------
        Path
            What was written.

        Raises
        ------
        UnknownJobError
        ExportError
            The received file is gone, or the place cannot be written to.
        """
        history = self.history(key)
        if sha256 is None:
            detail = self.show(key)
            written = export.write(to, detail.file, export.describe(detail, history))
            number: int | None = detail.instance.id
            uid = detail.instance.sop_instance_uid
        else:
            aside = self._conflict(key, sha256)
            written = export.write(to, aside.file, export.describe_conflict(aside, history))
            uid, number = aside.sop_instance_uid, None
        with database.write(self._engine) as connection:
            trace.record(connection, Event.EXPORTED, uid, instance_id=number, sha256=sha256)
        return written

    @by_operator
    def note_download(self, detail: InstanceDetail, result: ResultRecord | None) -> None:
        """Write down that somebody is handed a copy: of a result, or of the object as it was received."""
        taken: dict[str, object] = {"to": "a download"}
        if result is not None:
            taken["result"] = {"sop_class_uid": result.sop_class_uid, "sop_instance_uid": result.sop_instance_uid}
        one = detail.instance
        with database.write(self._engine) as connection:
            trace.record(connection, Event.EXPORTED, one.sop_instance_uid, instance_id=one.id, **taken)

    @by_operator
    def purge(self, key: str, *, sha256: str | None = None) -> None:
        """Remove an instance for good, with all files; the trace stays, and the UIDs of results stay known.

        Parameters
        ----------
        sha256
            Beginning of the digest of an object that was set aside: only this one.

        Raises
        ------
        UnknownJobError
        JobStateError
            It is not final: cancel it first. Or a job that was cancelled still runs: the node removes it then.
        """
        remover = Remover(self._engine, self._jobs, Spool(self._settings.spool), self._settings.analysis.models)
        if sha256 is not None:
            aside = self._conflict(key, sha256)
            remover.remove_conflict(aside.sop_instance_uid, aside.sha256, Removal.PURGE)
            return
        with self._locked(key, being_removed=True) as (connection, row):
            if not InstanceState(row.state).is_final:
                raise JobStateError(f"{row.sop_instance_uid} is {row.state}: cancel it first")
            remover.mark(connection, [row.id], Removal.PURGE)
        if not remover.finish(only=row.id):
            raise JobStateError(f"a job of {row.sop_instance_uid} still runs; the node removes it when that has ended")

    @contextmanager
    def _locked(self, key: str, *, being_removed: bool = False) -> Iterator[tuple[sa.Connection, sa.Row[Any]]]:
        """One transaction that has this instance to itself."""
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, rows.find(connection, key).id)
            if row is None:
                raise UnknownJobError(f"no instance {key}")
            if row.removal and not being_removed:
                raise JobStateError(f"{row.sop_instance_uid} is being removed ({row.removal})")
            yield connection, row

    def _trace(self, connection: sa.Connection, event: Event, row: sa.Row[Any], **detail: object) -> None:
        trace.record(
            connection, event, row.sop_instance_uid, instance_id=row.id, state=row.state, reason=row.reason, **detail
        )

    def _instance(self, instance_id: int) -> InstanceRecord:
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(instance).where(instance.c.id == instance_id)).one()
            return rows.instance_records(connection, [row])[0]

    def _conflict(self, key: str, sha256: str) -> ConflictRecord:
        with self._engine.connect() as connection:
            found = rows.conflict_records(
                connection,
                conflict.c.sop_instance_uid == key,
                conflict.c.sha256.startswith(sha256, autoescape=True),
                locate=self._path,
                limit=2,
            )
        if len(found) != 1:
            count = "no object" if not found else "more than one object"
            raise UnknownJobError(f"{count} with SHA-256 {sha256}... was set aside under {key!r}")
        return found[0]

    @cached_property
    def _jobs(self) -> Jobs:
        return Jobs(self._engine)


def _can_be_cancelled(state: DeliveryState) -> bool:
    return state is DeliveryState.REFUSED or not state.is_final
