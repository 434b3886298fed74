"""A database and a spool with instances in any state, and a clock, for tests of what goes by itself."""

import os
import time

import sqlalchemy as sa

from config.storage import SpoolSettings
from scp_node.jobs import database
from scp_node.jobs.intake import Filing
from scp_node.jobs.retention import Retention
from scp_node.jobs.tables import delivery, instance, result, sent_uid
from scp_node.records import Intake

DAY_S = 86400.0


class House:
    """A database and a spool with instances in any state, and a clock."""

    def __init__(self, engine, jobs, spool, receive):
        self.engine, self.jobs, self.spool, self.receive = engine, jobs, spool, receive
        self.now = time.time()
        self.schema = "dbos." if engine.dialect.name == "postgresql" else ""
        columns = ("workflow_uuid", "status", "completed_at")
        schema = "dbos" if self.schema else None
        self.jobs_table = sa.table("workflow_status", *map(sa.column, columns), schema=schema)
        self.filing = Filing(engine, jobs, spool, models=("m1",), destinations=("pacs",))

    def retention(self, **settings):
        settings = SpoolSettings(folder=self.spool.folder, retention_days=10, **settings)
        return Retention(self.engine, self.jobs, self.spool, settings, models=("m1",), clock=lambda: self.now)

    def add(self, uid, state, *, deliveries=(), content=None):
        """File an object and put it into a state, with one result on disk."""
        assert self.filing.accept(self.receive(uid, content or uid.encode())) is Intake.FILED
        with database.write(self.engine) as connection:
            row = connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == uid)).one()
            folder = self.spool.results_folder(f"{uid}:{row.sha256}")
            file = self.spool.write_durably(f"{folder}/2.25.{row.id}.dcm", b"result")
            connection.execute(
                sa.update(instance).where(instance.c.id == row.id).values(state=state, updated_at=self.now)
            )
            connection.execute(
                sa.insert(result).values(
                    instance_id=row.id,
                    sop_instance_uid=f"2.25.{row.id}",
                    position=0,
                    sop_class_uid="1",
                    transfer_syntax_uid="1",
                    kind="single",
                    alternatives="a",
                    rank=0,
                    file=file,
                    sha256="0",
                    size_bytes=6,
                )
            )
            connection.execute(
                sa.insert(sent_uid).values(
                    sop_instance_uid=f"2.25.{row.id}", source_sop_instance_uid=uid, created_at=0, returned=0
                )
            )
            for number, what in enumerate(deliveries):
                connection.execute(
                    sa.insert(delivery).values(
                        instance_id=row.id,
                        destination=f"d{number}",
                        state=what,
                        attempts=1,
                        last_error="",
                        job_id=f"deliver:{row.id}:d{number}:1:1",
                        round=1,
                        updated_at=self.now,
                    )
                )
        self.end_job(row.job_id)
        return self.spool.path(row.file), self.spool.path(file)

    def end_job(self, job_id, status="SUCCESS"):
        with database.write(self.engine) as connection:
            connection.execute(
                sa.update(self.jobs_table).where(self.jobs_table.c.workflow_uuid == job_id),
                {"status": status, "completed_at": int(self.now * 1000)},
            )

    def uids(self):
        with self.engine.connect() as connection:
            return set(connection.execute(sa.select(instance.c.sop_instance_uid)).scalars())

    def workflows(self):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(self.jobs_table.c.workflow_uuid)).scalars().all()

    def count(self, table):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def age(path, days):
    """Make a file as old as that."""
    past = time.time() - days * DAY_S
    os.utime(path, (past, past))
