"""What happened to who may talk to this node: one small record, told to one callable. Holds no patient data."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import structlog

_log = structlog.get_logger(__name__)


class EventKind(StrEnum):
    """What kind of thing happened."""

    ASSOCIATION_REJECTED = "association_rejected"
    """An A-ASSOCIATE-RQ was answered with a rejection; the reason is the rule (`scp_node.scp.callers.Rejection`)."""
    ASSOCIATION_ABORTED = "association_aborted"
    """This node ended a connection or an association whose peer broke the protocol."""
    LIMIT_REACHED = "limit_reached"
    """A connection was ended because of a limit: too many, too slow, too long, too large."""
    TLS_FAILED = "tls_failed"
    """A TLS handshake failed, as server or as client: no certificate, a foreign or expired one, an old version."""
    CERTIFICATE_EXPIRES = "certificate_expires"
    """A certificate of this node has expired or will within the days that are configured."""
    CREDENTIALS_RELOADED = "credentials_reloaded"
    """Certificate, key or authorities were read again because the files have changed."""
    CREDENTIALS_REFUSED = "credentials_refused"
    """Changed files cannot be used; the former ones stay in use."""
    CALLERS_RELOADED = "callers_reloaded"
    """The list of who may open associations was read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """One event.

    Parameters
    ----------
    reason
        A rule's name or a short sentence of this node's own, never text of the peer's.
    address
        IP address of the peer; empty when there is none.
    calling_ae_title, called_ae_title
        As the peer sent them, without padding, unescaped: they may hold any character. Empty when unknown.
    subject
        Of the certificate that it is about (RFC 4514), unescaped too; empty when there is none.
    is_tls
        Whether it happened on a TLS port.
    """

    kind: EventKind
    reason: str
    address: str = ""
    calling_ae_title: str = ""
    called_ae_title: str = ""
    subject: str = ""
    is_tls: bool = False
    occurred_at: datetime = field(default_factory=lambda: datetime.now(UTC))


_GOOD_NEWS = frozenset({EventKind.CREDENTIALS_RELOADED, EventKind.CALLERS_RELOADED})

Sink = Callable[[SecurityEvent], None]
"""Takes an event; called by the thread that it happened in, so it must be quick and safe to call from many threads."""


_LINES_PER_MINUTE = 60
_WINDOW_S = 60.0
_MAXIMUM_SOURCES = 1024


def reporting(sink: Sink | None = None, *, monotonic: Callable[[], float] = time.monotonic) -> Sink:
    """Return the sink that a listener tells: tells `sink` of every event, writes log lines, and never raises.

    A peer that knocks a thousand times a second shall not fill a disk: of one kind of event from one address no more
    than 60 lines a minute are written; how many were not is said in the next.

    Parameters
    ----------
    monotonic
        Seconds of a clock that never goes back.
    """
    lock = threading.Lock()
    windows: dict[tuple[EventKind, str], tuple[float, int]] = {}

    def unwritten(source: tuple[EventKind, str]) -> int | None:
        """How many lines were left out before this one; None when this one is left out too."""
        now = monotonic()
        with lock:
            begun, count = windows.get(source, (now, 0))
            left_out = 0
            if now - begun >= _WINDOW_S:
                begun, left_out, count = now, max(count - _LINES_PER_MINUTE, 0), 0
            if source not in windows and len(windows) >= _MAXIMUM_SOURCES:
                # So many addresses within a minute: the oldest of them starts anew.
                windows.pop(next(iter(windows)))
            windows[source] = (begun, count + 1)
        return left_out if count < _LINES_PER_MINUTE else None

    def tell(event: SecurityEvent) -> None:
        left_out = unwritten((event.kind, event.address))
        if left_out is not None:
            _write(event, left_out)
        try:
            if sink is not None:
                sink(event)
        except Exception:
            # An audit trail that cannot be written must not end an association's thread.
            _log.exception("security event lost", kind=event.kind.value, reason=event.reason)

    return tell


def _write(event: SecurityEvent, left_out: int) -> None:
    details: dict[str, object] = {
        name: value
        for name, value in (
            ("peer_address", event.address),
            ("calling_ae_title", event.calling_ae_title),
            ("called_ae_title", event.called_ae_title),
            ("subject", event.subject),
            ("left_out_before", left_out),
        )
        if value
    }
    message = event.kind.value.replace("_", " ")
    write = _log.info if event.kind in _GOOD_NEWS else _log.warning
    write(message, reason=event.reason, is_tls=event.is_tls, **details)
