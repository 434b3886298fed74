"""A listener's TLS context while files change: read again without ending anything that is open."""

import ssl
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime

import structlog

from config.receiver import ReceiverTlsSettings
from scp_node.security.certificates import CredentialsError, certificates_of_listener
from scp_node.security.contexts import server_context
from scp_node.security.events import EventKind, SecurityEvent, Sink

_log = structlog.get_logger(__name__)

_Signature = tuple[tuple[int, ...], ...]


class ServerCredentials:
    """Holds the context for new connections; open ones keep theirs.

    Parameters
    ----------
    used_for
        What its warnings call the certificate.
    now
        The time, with a time zone.

    Raises
    ------
    CredentialsError
        The files cannot be used.
    """

    def __init__(
        self,
        settings: ReceiverTlsSettings,
        sink: Sink,
        *,
        used_for: str = "receiver",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._used_for = used_for
        self._settings = settings
        self._sink = sink
        self._now = now
        self._signature = self._sign()
        self._context = server_context(settings)
        self._refused: set[str] = set()
        self._warned: date | None = None
        self._lock = threading.Lock()

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._context

    def refresh(self, *, is_forced: bool = False) -> bool:
        """Read the files again if they have changed; False when they have and cannot be used.

        The former context stays in use then: half a change, a new certificate with the old key, ends nobody's service.
        Each call tries again, for what was wrong may not have been the files; each reason is reported once.
        """
        with self._lock:
            signature = self._sign()
            if signature == self._signature and not is_forced:
                self._refused.clear()
                return True
            try:
                self._context = server_context(self._settings)
            except CredentialsError as error:
                reason = str(error)
                if is_forced or reason not in self._refused:
                    self._sink(SecurityEvent(kind=EventKind.CREDENTIALS_REFUSED, reason=reason, is_tls=True))
                self._refused.add(reason)
                return False
            self._signature = signature
            self._refused.clear()
            self._warned = None
        self._sink(SecurityEvent(kind=EventKind.CREDENTIALS_RELOADED, reason="the files have changed", is_tls=True))
        return True

    def warn_of_expiry(self) -> None:
        """Report certificates that expire soon, at most once a day."""
        now = self._now()
        if self._warned == now.date():
            return
        self._warned = now.date()
        for used in certificates_of_listener(self._settings, self._used_for):
            if sentence := used.warning(now, self._settings.expiry_warning_days):
                subject = used.certificate.subject if used.certificate is not None else ""
                reason = f"certificate of {used.used_for} {sentence}"
                self._sink(
                    SecurityEvent(kind=EventKind.CERTIFICATE_EXPIRES, reason=reason, subject=subject, is_tls=True)
                )

    def follow(self, stopping: threading.Event, every_s: float) -> None:
        """Read the files again when they change, and warn before a certificate expires, until it is time to stop."""
        is_failing = False
        while not stopping.is_set():
            try:
                self.refresh()
                self.warn_of_expiry()
                is_failing = False
            except Exception:  # top of a thread: years later a certificate would expire that was renewed in time
                if not is_failing:
                    _log.warning("certificates cannot be followed now", used_for=self._used_for, exc_info=True)
                is_failing = True
            stopping.wait(every_s)

    def _sign(self) -> _Signature:
        """What tells that a file has changed: one that was replaced by renaming has another inode.

        The mode too: a key that others can read is refused. The time of the last change of any of this is for what has
        the same size and an old time, as a copy of a backup has.
        """
        signs = []
        for file in (self._settings.certificate, self._settings.key, self._settings.authorities):
            try:
                status = file.stat() if file is not None else None
            except OSError:
                status = None
            signs.append(
                ()
                if status is None
                else (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_mode)
            )
        return tuple(signs)
