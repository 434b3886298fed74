"""A whole node in one process: database, children, workers, receiver, in that order; stopped in reverse."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

import sqlalchemy as sa
import structlog

from config.settings import NodeSettings
from inference.errors import InferenceError
from inference.imaging.source import available_transfer_syntaxes
from inference.models.checkpoint import default_folder, read_manifests, verify_weights
from scp_node.errors import DatabaseError, StartError
from scp_node.jobs import database, workflows
from scp_node.jobs.analysis import AnalysisWork
from scp_node.jobs.children import ChildPool
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.intake import Filing
from scp_node.jobs.lease import Lease, WorkerId
from scp_node.jobs.migrations import migrate
from scp_node.jobs.queues import Jobs
from scp_node.jobs.reconcile import Reconciler
from scp_node.results.uids import IMPLEMENTATION_CLASS_UID, implementation_version_name
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver
from scp_node.spool.store import Spool

log = structlog.get_logger(__name__)

_RECONCILE_S = 30.0
_STALE_INCOMING_S = 86400.0
"""Longer than any object takes to arrive: other receivers may share the spool."""

_one_per_process = threading.Lock()


class Node:
    """Receives, analyses and delivers until it is stopped; one per process, since the durable engine is one.

    Without a destination an instance is delivered as soon as it is analysed: its results stay in the spool, where
    ``scp-node jobs show`` names them.

    Parameters
    ----------
    settings
        The whole configuration.
    receiver_port
        Listen here instead of on ``settings.receiver.port``; 0 lets the operating system choose, for tests and demos.
    analyser
        ``module:function`` that the children load, see `children.ChildPool`; for tests of what surrounds it.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        receiver_port: int | None = None,
        analyser: str = "scp_node.jobs.analyse:open_analyser",
    ) -> None:
        self._settings = settings
        self._receiver_port = receiver_port
        self._analyser = analyser
        self._running = ExitStack()
        self._receiver: Receiver | None = None
        self._pool: ChildPool | None = None
        self._stop_timeout_s = 30.0
        self._reconciled_at = 0.0

    @property
    def port(self) -> int:
        """The port the receiver listens on; only while it runs."""
        if self._receiver is None:
            raise RuntimeError("the node is not running")
        return self._receiver.port

    @property
    def child_processes(self) -> tuple[int, ...]:
        """Process ids of the children that have loaded."""
        return () if self._pool is None else self._pool.processes

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; returns when associations are accepted. Models may still be loading.

        Raises
        ------
        StartError
            Something is not as configured, or another node runs in this process; whatever had started is stopped again.
        """
        if not _one_per_process.acquire(blocking=False):
            raise StartError("a node runs in this process already")
        with ExitStack() as started:
            started.callback(_one_per_process.release)
            try:
                self._start(started)
            except (OSError, InferenceError, DatabaseError) as error:
                raise StartError(str(error)) from error
            self._running = started.pop_all()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the models are loaded; False when that takes longer.

        Raises
        ------
        StartError
            They cannot be loaded.
        """
        if self._pool is None:
            raise RuntimeError("the node is not running")
        is_ready = self._pool.wait_ready(timeout_s)
        if not is_ready and self._pool.broken is not None:
            raise StartError(f"the models cannot be loaded: {self._pool.broken}")
        return is_ready

    def stop(self, timeout_s: float = 30.0) -> None:
        """Accept nothing more, let running work end within the limit, leave the rest to the next start."""
        self._stop_timeout_s = timeout_s
        self._running.close()
        self._receiver = None
        self._pool = None

    def _start(self, started: ExitStack) -> None:
        settings = self._settings
        self._verify_checkpoints()
        spool = Spool(settings.spool)
        spool.create()
        spool.sweep_incoming(_STALE_INCOMING_S)
        engine = database.open_engine(settings.database.url)
        started.callback(engine.dispose)
        migrate(engine)
        jobs = Jobs(engine)
        started.callback(jobs.close)
        pool = self._start_children()
        lease = self._start_workers(started, engine, jobs, pool, spool)
        # No association is accepted before the jobs of a predecessor are taken over.
        lease.start()
        destinations = tuple(destination.name for destination in settings.destinations)
        filing = Filing(engine, jobs, spool, models=settings.analysis.models, destinations=destinations)
        receiver = Receiver(
            settings.receiver,
            spool,
            filing.accept,
            available_transfer_syntaxes(),
            implementation=Implementation(
                class_uid=IMPLEMENTATION_CLASS_UID, version_name=implementation_version_name()
            ),
            port=self._receiver_port,
        )
        receiver.start()
        started.callback(self._stopping(receiver.stop))
        self._receiver = receiver
        self._pool = pool

    def _verify_checkpoints(self) -> None:
        folder = self._settings.analysis.checkpoints or default_folder()
        for manifest in read_manifests(folder, self._settings.analysis.models):
            verify_weights(folder / manifest.name, manifest)

    def _start_children(self) -> ChildPool:
        analysis = self._settings.analysis
        return ChildPool(
            self._analyser,
            {
                "analysis": analysis.model_dump(mode="json"),
                "results": self._settings.results.model_dump(mode="json"),
                "spool": self._settings.spool.model_dump(mode="json"),
            },
            count=analysis.processes,
            time_limit_s=analysis.time_limit_s,
            memory_limit_bytes=analysis.memory_limit_bytes,
        )

    def _start_workers(
        self,
        started: ExitStack,
        engine: sa.Engine,
        jobs: Jobs,
        pool: ChildPool,
        spool: Spool,
    ) -> Lease:
        settings = self._settings
        analysis_work = AnalysisWork(
            engine,
            jobs,
            pool,
            spool,
            models=settings.analysis.models,
            attempts=settings.analysis.attempts,
            destinations=tuple(destination.name for destination in settings.destinations),
        )
        delivery_work = DeliveryWork(
            engine,
            jobs,
            spool,
            destinations=settings.destinations,
            settings=settings.delivery,
            calling_ae_title=settings.receiver.ae_title,
        )
        worker = WorkerId.new()
        reconciler = Reconciler(engine, jobs)
        lease = Lease(
            engine,
            worker,
            owners=workflows.owners,
            take_over=workflows.take_over,
            on_beat=lambda: self._reconcile_now_and_then(reconciler),
        )
        lease.register()
        started.callback(lease.stop)
        pool.start()
        started.callback(self._stopping(pool.stop))
        workflows.launch(
            engine,
            executor_id=str(worker),
            slots=settings.analysis.processes,
            destinations=settings.destinations,
            analysing=analysis_work,
            delivering=delivery_work,
        )
        started.callback(self._stop_workers, lease, pool)
        return lease

    def _stop_workers(self, lease: Lease, pool: ChildPool) -> None:
        lease.drain()
        # Both at once: queues give out nothing more while the children finish what they have.
        stopper = workflows.begin_stop(self._stop_timeout_s)
        pool.stop(self._stop_timeout_s)
        workflows.end_stop(stopper)

    def _stopping(self, stop: Callable[[float], None]) -> Callable[[], None]:
        return lambda: stop(self._stop_timeout_s)

    def _reconcile_now_and_then(self, reconciler: Reconciler) -> None:
        if time.monotonic() - self._reconciled_at >= _RECONCILE_S:
            self._reconciled_at = time.monotonic()
            reconciler.run()
