"""The worker of a process: children that analyse, the durable engine that runs jobs, the lease that says it lives."""

import time
from contextlib import ExitStack

import structlog

from inference.cores import processes
from inference.models.checkpoint import default_folder, read_manifests, verify_weights
from scp_node.errors import StartError
from scp_node.jobs import database, workflows
from scp_node.jobs.analysis import AnalysisWork
from scp_node.jobs.analysis_children import AnalysisChildren
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.housekeeping import open_housekeeping
from scp_node.jobs.lease import Lease, WorkerId
from scp_node.jobs.patience import Patience
from scp_node.jobs.probing import Probing
from scp_node.jobs.queues import Jobs
from scp_node.jobs.reconcile import Reconciler
from scp_node.jobs.recovery import Recovery
from scp_node.jobs.roles import Shared

log = structlog.get_logger(__name__)

_LOOK_AFTER_S = 30.0


class Working:
    """Analyses and delivers.

    Without a destination an instance is delivered as soon as it is analysed: its results stay in the spool, where
    ``scp-node jobs show`` names them.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._patience = Patience()
        # Of its own: a worker waits for a database that is away, a receiver in the same process must not.
        self._engine = database.open_engine(self._settings.database.url, patience=self._patience)
        self._jobs = Jobs(self._engine)
        self._children = AnalysisChildren(
            shared.analyser,
            self._settings,
            count=processes(self._settings.analysis),
            writable=(shared.spool.incoming, shared.spool.results),
        )
        self._worker = WorkerId.new()
        self._recovery = Recovery(self._engine, str(self._worker), workflows.running)
        self._reconciler = Reconciler(self._engine, self._jobs)
        self._lease = Lease(
            self._engine,
            self._worker,
            ttl_s=self._settings.service.lease_ttl_s,
            owners=self._recovery.owners,
            take_over=self._recovery.take_over,
            on_beat=self._look_after,
        )
        self._probing = Probing(
            self._engine,
            self._jobs,
            self._settings.destinations,
            self._settings.delivery,
            calling_ae_title=self._settings.receiver.ae_title,
        )
        self._chores = open_housekeeping(self._engine, self._jobs, shared.spool, self._settings)
        self._looked_after_at: float | None = None
        self._stop_timeout_s = 0.0
        self._running = ExitStack()

    @property
    def child_processes(self) -> tuple[int, ...]:
        """Process ids of the children that have loaded."""
        return self._children.processes

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the models are loaded; False when that takes longer.

        Raises
        ------
        StartError
            They cannot be loaded.
        """
        is_ready = self._children.wait_ready(timeout_s)
        if not is_ready and self._children.broken is not None:
            raise StartError(f"the models cannot be loaded: {self._children.broken}")
        return is_ready

    def start(self) -> None:
        """Take over what dead workers left, and run jobs; models may still be loading when it returns."""
        with ExitStack() as started:
            started.callback(self._close)
            self._verify_checkpoints()
            self._lease.register()
            started.callback(self._lease.stop)
            self._children.start()
            started.callback(lambda: self._children.stop(self._stop_timeout_s))
            delivering = self._delivery_work()
            started.callback(delivering.close)
            workflows.launch(
                self._engine,
                executor_id=str(self._worker),
                slots=processes(self._settings.analysis),
                destinations=self._settings.destinations,
                analysing=self._analysis_work(),
                delivering=delivering,
                give_back=lambda job_id: self._recovery.give_back((job_id,)),
            )
            started.callback(self._drain)
            self._probing.start()
            started.callback(self._probing.stop)
            self._chores.start()
            started.callback(self._chores.stop)
            self._lease.start()
            self._running = started.pop_all()

    def stop(self, timeout_s: float) -> None:
        """Let running jobs end within the limit, leave the rest to others or to the next start."""
        self._stop_timeout_s = timeout_s
        self._running.close()

    def _drain(self) -> None:
        self._lease.drain()
        # Both at once: queues give out nothing more while the children finish what they have.
        stopper = workflows.begin_stop(self._stop_timeout_s)
        self._children.stop(self._stop_timeout_s)
        # Who waits for the database now waits no longer.
        stopper.join(self._stop_timeout_s)
        self._patience.stopped.set()
        workflows.end_stop(stopper)

    def _close(self) -> None:
        self._patience.stopped.set()
        self._jobs.close()
        self._engine.dispose()

    def _look_after(self) -> None:
        now = time.monotonic()
        if self._looked_after_at is None or now - self._looked_after_at >= _LOOK_AFTER_S:
            self._looked_after_at = now
            self._recovery.adopt()
            self._recovery.reclaim()
            self._reconciler.run()

    def _verify_checkpoints(self) -> None:
        folder = self._settings.analysis.checkpoints or default_folder()
        for manifest in read_manifests(folder, self._settings.analysis.models):
            verify_weights(folder / manifest.name, manifest)

    def _analysis_work(self) -> AnalysisWork:
        settings = self._settings
        return AnalysisWork(
            self._engine,
            self._jobs,
            self._children.pool,
            self._shared.spool,
            models=settings.analysis.models,
            attempts=settings.analysis.attempts,
            destinations=tuple(destination.name for destination in settings.destinations),
            patience=self._patience,
        )

    def _delivery_work(self) -> DeliveryWork:
        settings = self._settings
        return DeliveryWork(
            self._engine,
            self._jobs,
            self._shared.spool,
            destinations=settings.destinations,
            settings=settings.delivery,
            calling_ae_title=settings.receiver.ae_title,
            patience=self._patience,
            fence=self._lease.fence,
        )
