"""A received object becomes a file and a job, both durable, before it is acknowledged."""

import contextlib
import time
from functools import cache
from typing import Any

import sqlalchemy as sa
import structlog

from config.storage import SpoolSettings
from scp_node.errors import BusyError
from scp_node.jobs import database, deliveries, order, trace
from scp_node.jobs.accession import Pseudonyms
from scp_node.jobs.analysis import first_job_id, restart_analysis
from scp_node.jobs.backlog import Backlog
from scp_node.jobs.queues import Jobs
from scp_node.jobs.states import DeadLetterReason, change, settle
from scp_node.jobs.tables import conflict, instance, sent_uid
from scp_node.records import DeliveryState, InstanceState, Intake, ReceivedInstance
from scp_node.spool.store import Spool

log = structlog.get_logger(__name__)


class Filing:
    """Files received objects; used by all association threads at once.

    Parameters
    ----------
    models, destinations
        Names, as configured.
    limits
        How much may wait for analysis; None: without limit.
    """

    def __init__(
        self,
        engine: sa.Engine,
        jobs: Jobs,
        spool: Spool,
        *,
        models: tuple[str, ...],
        destinations: tuple[str, ...],
        limits: SpoolSettings | None = None,
    ) -> None:
        self._backlog = None if limits is None else Backlog(engine, limits)
        self._engine = engine
        self._jobs = jobs
        self._spool = spool
        self._pseudonyms = Pseudonyms(spool.folder)
        self._models = models
        self._destinations = destinations

    def accept(self, received: ReceivedInstance) -> Intake:
        """Make an object durable and its job too; whatever is raised, nothing is promised to the sender.

        First the file, then one transaction with row and job. A crash between the two leaves a file that no row names
        and nobody was promised.

        Raises
        ------
        SpoolFullError
            No space.
        BusyError
            Too much waits already, or what is there under this UID is just being removed.
        sqlalchemy.exc.SQLAlchemyError
            The database does not answer.
        """
        known = self._known(received.sop_instance_uid)
        if known.sent_uid is not None:
            self._count_own_result(received)
            received.file.unlink(missing_ok=True)
            return Intake.OWN_RESULT
        if known.removal is not None:
            # Its file could be removed as that of the old row. In a moment this is simply a new instance.
            raise BusyError("what is there under this UID is being removed")
        if known.sha256 == received.sha256:
            self._file_again(known, received)
            return Intake.DUPLICATE
        if self._backlog is not None and known.id is None:
            self._backlog.require_room(received.size_bytes)
        file = self._spool.adopt(received.file, received.sha256)
        try:
            return self._file(received, file)
        except Exception:
            self._take_back(file)
            raise

    def _file(self, received: ReceivedInstance, file: str) -> Intake:
        """Write the rows of a durable file, in one transaction."""
        pseudonym = self._pseudonym(received)
        with database.write(self._engine) as connection:
            row = self._insert(connection, received, file, pseudonym)
            if row is not None:
                self._jobs.analyse(connection, self._job_id(received), row.id, received.priority, place=row.place)
                self._trace(
                    connection,
                    trace.Event.RECEIVED,
                    received,
                    row.id,
                    sha256=received.sha256,
                    size_bytes=received.size_bytes,
                    called_ae_title=received.called_ae_title,
                )
                self._require_file(file)
                return Intake.FILED
            # It was there before, or another association was quicker.
            present = connection.execute(
                sa.select(instance).where(instance.c.sop_instance_uid == received.sop_instance_uid)
            ).one()
            if present.removal is not None:
                raise BusyError("what is there under this UID is being removed")
            if present.sha256 == received.sha256:
                self._trace(connection, trace.Event.DUPLICATE, received, present.id)
                return Intake.DUPLICATE
            self._set_aside(connection, received, file)
            self._trace(connection, trace.Event.CONFLICT, received, present.id, sha256=received.sha256)
            self._require_file(file)
            return Intake.CONFLICT

    def _take_back(self, file: str) -> None:
        """Remove a file that no row names, while nobody can name it; what cannot be removed now is swept some day."""
        with (
            contextlib.suppress(sa.exc.SQLAlchemyError, OSError),
            database.exclusive(self._engine, instance, conflict) as connection,
        ):
            named = sa.union(
                sa.select(instance.c.file).where(instance.c.file == file),
                sa.select(conflict.c.file).where(conflict.c.file == file),
            )
            if connection.execute(named).first() is None:
                self._spool.remove(file)

    def _require_file(self, file: str) -> None:
        """Look once more, inside the transaction: a sweeper looks inside one too, so one of the two sees the other."""
        if not self._spool.path(file).exists():
            raise BusyError("a leftover of the same name was just removed")

    @staticmethod
    def _trace(
        connection: sa.Connection,
        event: trace.Event,
        received: ReceivedInstance,
        row_id: int | None,
        **detail: object,
    ) -> None:
        trace.record(
            connection,
            event,
            received.sop_instance_uid,
            instance_id=row_id,
            calling_ae_title=received.calling_ae_title,
            peer_address=received.peer_address,
            sop_class_uid=received.sop_class_uid,
            study_instance_uid=received.study_instance_uid,
            **detail,
        )

    def _job_id(self, received: ReceivedInstance) -> str:
        return first_job_id(self._models, received.sop_instance_uid, received.sha256)

    def _count_own_result(self, received: ReceivedInstance) -> None:
        with database.write(self._engine) as connection:
            connection.execute(
                sa.update(sent_uid)
                .where(sent_uid.c.sop_instance_uid == received.sop_instance_uid)
                .values(returned=sent_uid.c.returned + 1, last_returned_at=time.time())
            )
            self._trace(connection, trace.Event.OWN_RESULT, received, None)

    def _known(self, uid: str) -> sa.Row[Any]:
        with self._engine.connect() as connection:
            return connection.execute(_KNOWN, {"uid": uid}).one()

    def _pseudonym(self, received: ReceivedInstance) -> str | None:
        try:
            return self._pseudonyms.of(received.accession_number)
        except OSError as error:
            # That somebody cannot search by it is no reason to refuse a radiograph.
            log.error("no pseudonym of an accession number", error=str(error))  # noqa: TRY400 - the sentence says all
            return None

    def _insert(
        self, connection: sa.Connection, received: ReceivedInstance, file: str, pseudonym: str | None
    ) -> sa.Row[Any] | None:
        values = {
            "sop_instance_uid": received.sop_instance_uid,
            "sop_class_uid": received.sop_class_uid,
            "transfer_syntax_uid": received.transfer_syntax_uid,
            "sha256": received.sha256,
            "size_bytes": received.size_bytes,
            "file": file,
            "calling_ae_title": received.calling_ae_title,
            "called_ae_title": received.called_ae_title,
            "peer_address": received.peer_address,
            "priority": received.priority.value,
            "received_at": received.received_at.timestamp(),
            "state": InstanceState.RECEIVED.value,
            "detail": "",
            "job_id": self._job_id(received),
            "round": 1,
            "crashes": 0,
            "place": order.next_place(connection, received.calling_ae_title),
            "notes": "[]",
            "updated_at": time.time(),
            "accession_pseudonym": pseudonym,
            "study_instance_uid": received.study_instance_uid,
        }
        return connection.execute(_insert_instance(connection.dialect.name), values).one_or_none()

    def _set_aside(self, connection: sa.Connection, received: ReceivedInstance, file: str) -> None:
        connection.execute(
            database.insert(connection, conflict)
            .values(
                sop_instance_uid=received.sop_instance_uid,
                sha256=received.sha256,
                file=file,
                calling_ae_title=received.calling_ae_title,
                peer_address=received.peer_address,
                received_at=received.received_at.timestamp(),
            )
            .on_conflict_do_nothing()
        )

    def _file_again(self, known: sa.Row[Any], received: ReceivedInstance) -> None:
        """Keep the file that is there; where it is lost, the new one takes its place."""
        if self._spool.path(known.file).exists():
            received.file.unlink(missing_ok=True)
            self._resume(known.id, received, None)
            return
        log.warning("a received file was missing and has come again", sop_instance_uid=received.sop_instance_uid)
        file = self._spool.adopt(received.file, received.sha256)
        try:
            self._resume(known.id, received, file)
        except Exception:
            self._take_back(file)
            raise

    def _resume(self, instance_id: int, received: ReceivedInstance, file: str | None) -> None:
        """Take up deliveries that were given up or that a new destination lacks; an analysis is never repeated.

        Parameters
        ----------
        file
            What takes the place of a lost one: then an analysis that could not read that is begun anew.
        """
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, instance_id)
            if row is None or row.removal is not None:
                raise BusyError("what is there under this UID is being removed")
            self._trace(connection, trace.Event.DUPLICATE, received, instance_id)
            if file is not None:
                change(connection, instance_id, file=file)
                self._require_file(file)
            if row.analysed_at is None:
                if file is not None and row.reason == DeadLetterReason.UNREADABLE.value:
                    restart_analysis(connection, self._jobs, row, self._models)
                return
            begun = deliveries.begin(connection, self._jobs, row, self._destinations)
            begun += deliveries.restart(connection, self._jobs, row, (DeliveryState.REFUSED,))
            if begun:
                settle(connection, row)


_ASKED = sa.select(sa.bindparam("uid", type_=sa.Text).label("uid")).subquery()
_KNOWN: sa.Select[Any] = sa.select(
    sent_uid.c.sop_instance_uid.label("sent_uid"),
    instance.c.id,
    instance.c.sha256,
    instance.c.removal,
    instance.c.file,
).select_from(
    _ASKED.outerjoin(sent_uid, sent_uid.c.sop_instance_uid == _ASKED.c.uid).outerjoin(
        instance, instance.c.sop_instance_uid == _ASKED.c.uid
    )
)
"""What is there under a UID, sent or received: one row in any case."""


@cache
def _insert_instance(dialect: str) -> sa.Executable:
    return (
        database.insert_for(dialect, instance)
        .on_conflict_do_nothing(index_elements=["sop_instance_uid"])
        .returning(instance.c.id, instance.c.place)
    )
