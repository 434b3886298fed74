"""A node without receiver and durable engine, for tests of what its jobs make of the answers they get."""

import json

import sqlalchemy as sa

from config.analysis import AnalysisSettings
from config.destinations import DeliverySettings, FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.jobs import database
from scp_node.jobs.analysis import AnalysisWork
from scp_node.jobs.children import ChildPool
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.intake import Filing
from scp_node.jobs.summary import to_json
from scp_node.jobs.tables import delivery, instance


class Bench:
    """A node without receiver and durable engine: jobs are run by hand."""

    def __init__(self, folder, engine, jobs, spool, receive):
        self.folder, self.engine, self.jobs, self.spool, self.receive = folder, engine, jobs, spool, receive
        self.now = 1_000_000.0
        self.share = FolderDestination(kind="folder", name="share", folder=folder / "share", patience_s=100)
        self.destinations = (self.share,)
        self.start_child(time_limit_s=60)

    def start_child(self, *, time_limit_s):
        """Start the one that analyses; a limit that a busy machine does not reach unless the test is about it."""
        arguments = {"spool": {"folder": str(self.spool.folder)}}
        self.pool = ChildPool("child_targets:scripted", arguments, count=1, time_limit_s=time_limit_s)
        self.pool.start()

    @property
    def settings(self):
        return NodeSettings(
            spool=SpoolSettings(folder=self.spool.folder),
            database=DatabaseSettings(url=str(self.engine.url)),
            analysis=AnalysisSettings(models=("m1",)),
            destinations=self.destinations,
        )

    @property
    def names(self):
        return tuple(destination.name for destination in self.destinations)

    def arrive(self, script, uid="1.2.3"):
        filing = Filing(self.engine, self.jobs, self.spool, models=("m1",), destinations=self.names)
        if not isinstance(script, dict):
            script = {"answer": to_json(script)}
        return filing.accept(self.receive(uid, json.dumps(script).encode()))

    def analyse(self, uid="1.2.3", *, attempts=3):
        work = AnalysisWork(
            self.engine, self.jobs, self.pool, self.spool, models=("m1",), attempts=attempts, destinations=self.names
        )
        row = self.row(uid)
        return work.run(row.id, row.job_id)

    def deliver(self, name="share", uid="1.2.3", job_id=None):
        work = DeliveryWork(
            self.engine,
            self.jobs,
            self.spool,
            destinations=self.destinations,
            settings=DeliverySettings(first_delay_s=10, maximum_delay_s=40),
            calling_ae_title="NODE",
            clock=lambda: self.now,
            random=lambda: 1.0,
        )
        row = self.row(uid)
        return work.run(row.id, name, job_id or self.delivery(name, uid).job_id)

    def row(self, uid="1.2.3"):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == uid)).one()

    def delivery(self, name="share", uid="1.2.3"):
        with self.engine.connect() as connection:
            return connection.execute(
                sa.select(delivery).where(delivery.c.instance_id == self.row(uid).id, delivery.c.destination == name)
            ).one()

    def workflows(self):
        query = "SELECT workflow_uuid, status, delay_until_epoch_ms FROM workflow_status ORDER BY created_at, 1"
        with self.engine.connect() as connection:
            return {row[0]: row[1:] for row in connection.exec_driver_sql(query)}

    def set_job_status(self, job_id, status):
        with database.write(self.engine) as connection:
            connection.execute(
                sa.text("UPDATE workflow_status SET status = :status WHERE workflow_uuid = :id"),
                {"status": status, "id": job_id},
            )
