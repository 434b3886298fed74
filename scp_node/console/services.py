"""What the pages and the API work with: settings, database, users, explorer, intake; opened once per process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa
import structlog

from config.settings import NodeSettings
from inference.imaging.decoders import available_transfer_syntaxes
from scp_node import implementation
from scp_node.console.access import Access, Visitor
from scp_node.console.explorer import Explorer
from scp_node.console.uploads import Uploads
from scp_node.errors import DatabaseError
from scp_node.jobs import findings, user_actions
from scp_node.jobs.accession import Pseudonyms
from scp_node.jobs.admin import Admin
from scp_node.jobs.intake import Filing
from scp_node.jobs.migrations import require_current
from scp_node.jobs.queues import Jobs
from scp_node.jobs.refusals import Refusals
from scp_node.scp.handlers import Handlers
from scp_node.scp.part10 import Implementation
from scp_node.spool.store import Spool
from scp_node.telemetry.metrics import NodeCollector

_log = structlog.get_logger(__name__)

_FINDINGS_S = 60.0
_MAXIMUM_WAITING = 32
"""Files that wait for the explorer at most; more are told to come back."""


class BusyError(Exception):
    """Too many files wait for the explorer."""


class Services:
    """One per process.

    Parameters
    ----------
    engine
        The node's database; it need not exist yet.
    access
        None: from the settings.
    """

    def __init__(
        self,
        settings: NodeSettings,
        engine: sa.Engine,
        *,
        explorer: Explorer | None = None,
        access: Access | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.access = access or Access(settings.console)
        self.uploads = Uploads(
            maximum_files=settings.console.maximum_batch_files, maximum_bytes=4 * settings.console.maximum_upload_bytes
        )
        self.explorer = explorer or Explorer(settings, writable=self.uploads.root)
        self.metrics = NodeCollector(settings, engine)
        self._refusals = Refusals(engine)
        self.pseudonyms = Pseudonyms(settings.spool.folder)
        self.started_at = datetime.now(UTC)
        self._lock = threading.Lock()
        self._closers: list[Callable[[], None]] = []
        self._admin: Admin | None = None
        self._handlers: Handlers | None = None
        self._waiting = 0
        self._findings: dict[int, tuple[float, findings.Findings | None]] = {}

    def start(self) -> None:
        """Begin what runs in the background."""
        self.explorer.start()
        self._refusals.start()

    def close(self) -> None:
        """End everything that was opened here."""
        self.explorer.close()
        self._refusals.stop()
        self.uploads.close()
        with self._lock:
            closers, self._closers = self._closers, []
        for close in reversed(closers):
            close()

    @property
    def admin(self) -> Admin:
        """Reads and changes jobs; raises DatabaseError while there is no database of this version."""
        with self._lock:
            if self._admin is None:
                self._admin = Admin(self.settings)
                self._closers.append(self._admin.close)
            return self._admin

    @property
    def handlers(self) -> Handlers:
        """The intake of C-STORE, for STOW-RS; raises DatabaseError while there is no database of this version."""
        with self._lock:
            if self._handlers is None:
                require_current(self.engine, self.settings.database.url)
                spool = Spool(self.settings.spool)
                spool.create()
                jobs = Jobs(self.engine)
                self._closers.append(jobs.close)
                filing = Filing(
                    self.engine,
                    jobs,
                    spool,
                    models=self.settings.analysis.models,
                    destinations=tuple(one.name for one in self.settings.destinations),
                )
                self._handlers = Handlers(
                    spool=spool,
                    accept=filing.accept,
                    implementation=Implementation(
                        class_uid=implementation.CLASS_UID, version_name=implementation.version_name()
                    ),
                    maximum_object_bytes=self.settings.receiver.maximum_object_bytes,
                    refused=self._refusals.refused,
                )
            return self._handlers

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for reading; raises DatabaseError while there is no database of this version."""
        require_current(self.engine, self.settings.database.url)
        with self.engine.connect() as connection:
            yield connection

    def findings(self, days: int) -> findings.Findings:
        """What the models said in the last days; at most a minute old, since every prediction is read for it."""
        with self._lock:
            read_at, found = self._findings.get(days, (0.0, None))
        if found is None or time.monotonic() - read_at >= _FINDINGS_S:
            with self.reading() as connection:
                found = findings.findings(connection, days=days, models=self.settings.analysis.models)
            with self._lock:
                self._findings = {**dict(list(self._findings.items())[-8:]), days: (time.monotonic(), found)}
        return found

    @property
    def spool(self) -> Spool:
        """The stored files."""
        return Spool(self.settings.spool)

    @property
    def transfer_syntaxes(self) -> tuple[str, ...]:
        """What can be decoded here."""
        return available_transfer_syntaxes()

    def record(self, visitor: Visitor, action: str, *, subject: str = "", before: str = "", after: str = "") -> None:
        """Write down what somebody did."""
        require_current(self.engine, self.settings.database.url)
        user_actions.record(
            self.engine,
            user_name=visitor.name,
            role=visitor.role.value,
            address=visitor.address,
            action=action,
            subject=subject,
            before=before,
            after=after,
        )

    def record_log_in(self, visitor: Visitor, action: str, after: str) -> None:
        """Write down a log-in or log-out; while the database is away it must do with a line in the log."""
        try:
            self.record(visitor, action, after=after)
        except (DatabaseError, sa.exc.SQLAlchemyError) as error:
            _log.warning(
                "log-in not recorded", user_name=visitor.name, action=action, after=after, error=type(error).__name__
            )

    @contextmanager
    def place_in_line(self) -> Iterator[None]:
        """A place among those who wait for the explorer; raises BusyError when there is none."""
        with self._lock:
            if self._waiting >= _MAXIMUM_WAITING:
                raise BusyError
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
