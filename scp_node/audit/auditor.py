"""Keeps the audit trail of one process: takes events from any thread, asks its feed, writes, wakes the forwarding."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from config.settings import NodeSettings
from scp_node.audit.building import Node
from scp_node.audit.entries import Draft
from scp_node.audit.forwarding import Forwarding
from scp_node.audit.lines import Writer
from scp_node.audit.messages import Message, Source, to_xml
from scp_node.audit.trail import AuditError, Trail
from scp_node.security.events import SecurityEvent

_log = structlog.get_logger(__name__)

_POLL_S = 1.0
_WAITING = 10_000
"""Events that wait while the disk refuses the trail; the oldest are then lost, which is logged."""

Feed = Callable[[Writer], int]
"""Writes what the trail has not got yet; returns how many messages. Called again as long as it returns any."""


class Auditor:
    """The audit trail of one process; `tell` is the sink of its security events.

    Nothing waits for it: events are queued, and the trail is written by a thread of its own.

    Parameters
    ----------
    user
        Who started this process.

    Attributes
    ----------
    feed
        Where messages about instances come from, set before `start`; None: this process has none.
    """

    def __init__(self, settings: NodeSettings, *, user: str) -> None:
        audit = settings.audit
        self.trail = open_trail(settings)
        self._node = Node(ae_title=settings.receiver.ae_title)
        self._source = source_of(settings)
        self._user = user
        self.feed: Feed | None = None
        self._events: queue.SimpleQueue[SecurityEvent | None] = queue.SimpleQueue()
        self._waiting: deque[Message] = deque(maxlen=_WAITING)
        self._forwarding = Forwarding(self.trail, audit.syslog) if audit.syslog.transport != "off" else None
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def tell(self, event: SecurityEvent) -> None:
        """Take a security event; quick, and safe to call from many threads."""
        self._events.put(event)

    def start(self) -> None:
        """Write that the node starts, then begin.

        Raises
        ------
        AuditError
            The trail cannot be written: a node that should keep one does not run without it.
        """
        self.trail.create()
        self._write([self._node.activity(datetime.now(UTC), is_start=True, user=self._user)])
        self._thread.start()
        if self._forwarding is not None:
            self._forwarding.start()

    def stop(self) -> None:
        """Write what is there and that the node stops, and end."""
        self._events.put(None)
        self._thread.join()
        if self._forwarding is not None:
            self._forwarding.stop()

    def _run(self) -> None:
        is_last_round = False
        while not is_last_round:
            is_last_round = self._collect(_POLL_S)
            try:
                self._write_all(is_last_round=is_last_round)
            except AuditError as error:
                self._note("audit trail cannot be written", error)
            except Exception as error:
                # Most likely the database is away. The trail must be there when it comes back.
                self._note("audit trail is behind", error)

    def _collect(self, timeout_s: float) -> bool:
        """Wait for an event, then take all there are; return whether the end was among them."""
        try:
            event = self._events.get(timeout=timeout_s)
            while event is not None:
                self._take(event)
                event = self._events.get_nowait()
        except queue.Empty:
            return False
        return True

    def _take(self, event: SecurityEvent) -> None:
        try:
            self._add(self._node.alert(event))
        except Exception:  # one event that cannot be told must not end the thread, and with it the whole trail
            _log.exception("audit message lost", kind=event.kind.value)

    def _add(self, message: Message) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            _log.error("audit message lost", audit_event=self._waiting[0].event.meaning)
        self._waiting.append(message)

    def _write_all(self, *, is_last_round: bool) -> None:
        if self._waiting:
            self._write(list(self._waiting))
            self._waiting.clear()
        if self.feed is not None:
            is_more = True
            while is_more:
                with self.trail.writing() as writer:
                    is_more = self.feed(writer) > 0
                self._wake()
        if is_last_round:
            self._write([self._node.activity(datetime.now(UTC), is_start=False, user=self._user)])
        if self._trouble:
            self._trouble = ""
            _log.info("audit trail is written again")

    def _note(self, trouble: str, error: Exception) -> None:
        """Log a trouble when it begins, not at each attempt while it lasts."""
        if trouble != self._trouble:
            _log.error(trouble, error=str(error), exc_info=None if isinstance(error, AuditError) else error)
        self._trouble = trouble

    def _write(self, messages: Sequence[Message]) -> None:
        self.trail.append([draft_of(message, self._source) for message in messages])
        self._wake()

    def _wake(self) -> None:
        if self._forwarding is not None:
            self._forwarding.wake()


def open_trail(settings: NodeSettings) -> Trail:
    """Return the trail that is configured; touches no file."""
    return Trail(
        settings.audit_file,
        maximum_file_bytes=settings.audit.maximum_file_bytes,
        keep_files=settings.audit.keep_files,
    )


def source_of(settings: NodeSettings) -> Source:
    """Return what this node calls itself in the trail."""
    node = Node(ae_title=settings.receiver.ae_title)
    return Source(id=settings.audit.source_id or f"{node.ae_title}@{node.host}", site=settings.audit.site_id)


def draft_of(message: Message, source: Source, *, record: int | None = None, user_action: int | None = None) -> Draft:
    """Return the message as it goes into the trail."""
    at = message.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Draft(at=at, message=to_xml(message, source), record=record, user_action=user_action)
