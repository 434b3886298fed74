"""A received object becomes a file and a job, both durable, before it is acknowledged."""

import time
from typing import Any

import sqlalchemy as sa

from scp_node.jobs import database, deliveries
from scp_node.jobs.analysis import first_job_id
from scp_node.jobs.database import conflict, instance, sent_uid
from scp_node.jobs.queues import Jobs
from scp_node.jobs.states import settle
from scp_node.records import DeliveryState, InstanceState, Intake, ReceivedInstance
from scp_node.spool.store import Spool


class Filing:
    """Files received objects; used by all association threads at once.

    Parameters
    ----------
    models, destinations
        Names, as configured.
    """

    def __init__(
        self, engine: sa.Engine, jobs: Jobs, spool: Spool, *, models: tuple[str, ...], destinations: tuple[str, ...]
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._spool = spool
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
        sqlalchemy.exc.SQLAlchemyError
            The database does not answer.
        """
        if self._is_own_result(received.sop_instance_uid):
            received.file.unlink(missing_ok=True)
            return Intake.OWN_RESULT
        present = self._present(received.sop_instance_uid)
        if present is not None and present.sha256 == received.sha256:
            received.file.unlink(missing_ok=True)
            self._resume(present.id)
            return Intake.DUPLICATE
        file = self._spool.adopt(received.file, received.sha256)
        with database.write(self._engine) as connection:
            row_id = self._insert(connection, received, file)
            if row_id is not None:
                self._jobs.analyse(connection, self._job_id(received), row_id, received.priority)
                return Intake.FILED
            # It was there before, or another association was quicker.
            present = connection.execute(
                sa.select(instance).where(instance.c.sop_instance_uid == received.sop_instance_uid)
            ).one()
            if present.sha256 == received.sha256:
                return Intake.DUPLICATE
            self._set_aside(connection, received, file)
            return Intake.CONFLICT

    def _job_id(self, received: ReceivedInstance) -> str:
        return first_job_id(self._models, received.sop_instance_uid, received.sha256)

    def _is_own_result(self, uid: str) -> bool:
        with self._engine.connect() as connection:
            known = connection.execute(sa.select(sent_uid.c.sop_instance_uid).where(sent_uid.c.sop_instance_uid == uid))
            if known.first() is None:
                return False
        with database.write(self._engine) as connection:
            connection.execute(
                sa.update(sent_uid)
                .where(sent_uid.c.sop_instance_uid == uid)
                .values(returned=sent_uid.c.returned + 1, last_returned_at=time.time())
            )
        return True

    def _present(self, uid: str) -> sa.Row[Any] | None:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == uid)).one_or_none()

    def _insert(self, connection: sa.Connection, received: ReceivedInstance, file: str) -> int | None:
        statement = (
            database.insert(connection, instance)
            .values(
                sop_instance_uid=received.sop_instance_uid,
                sop_class_uid=received.sop_class_uid,
                transfer_syntax_uid=received.transfer_syntax_uid,
                sha256=received.sha256,
                size_bytes=received.size_bytes,
                file=file,
                calling_ae_title=received.calling_ae_title,
                called_ae_title=received.called_ae_title,
                peer_address=received.peer_address,
                priority=received.priority.value,
                received_at=received.received_at.timestamp(),
                state=InstanceState.RECEIVED.value,
                detail="",
                job_id=self._job_id(received),
                round=1,
                crashes=0,
                notes="[]",
                updated_at=time.time(),
            )
            .on_conflict_do_nothing(index_elements=["sop_instance_uid"])
            .returning(instance.c.id)
        )
        row_id: int | None = connection.execute(statement).scalar_one_or_none()
        return row_id

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

    def _resume(self, instance_id: int) -> None:
        """Take up deliveries that were given up or that a new destination lacks; an analysis is never repeated."""
        with database.write(self._engine) as connection:
            row = database.lock_instance(connection, instance_id)
            if row is None or row.analysed_at is None:
                return
            begun = deliveries.begin(connection, self._jobs, row, self._destinations)
            begun += deliveries.restart(connection, self._jobs, row, (DeliveryState.REFUSED,))
            if begun:
                settle(connection, row)
