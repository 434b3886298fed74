"""Syslog: one audit message as RFC 5424 has it, and the ways to a collector (RFC 5425, 5426, 6587). Keeps nothing."""

import contextlib
import fcntl
import os
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from typing import Protocol

from config.audit import SyslogSettings
from scp_node.security.contexts import collector_context
from scp_node.telemetry.escape import escape

_PRIORITY = 10 * 8 + 5
"""Facility 10, security and authorization; severity 5, notice (PS3.15 A.6.2)."""
_MESSAGE_ID = "DICOM+RFC3881"
"""Says that the message is in the schema of PS3.15 A.5.1."""
_APPLICATION = "scp-node"
_POLL_S = 0.01


def frame(message: str, at: str) -> bytes:
    """Return a syslog message (RFC 5424 6): header, no structured data, a byte order mark, the XML.

    Parameters
    ----------
    at
        Time of the event, RFC 3339.
    """
    host = escape(socket.gethostname()).replace(" ", "_")[:255] or "-"
    header = f"<{_PRIORITY}>1 {at} {host} {_APPLICATION} {os.getpid()} {_MESSAGE_ID} - "
    return header.encode("ascii", "backslashreplace") + b"\xef\xbb\xbf" + message.encode()


class Collector(Protocol):
    """A way to a collector that is open."""

    def send(self, frames: Sequence[bytes]) -> None:
        """Send; raises OSError when they may not have arrived."""

    def close(self) -> None:
        """End it."""


def connect(settings: SyslogSettings) -> Collector:
    """Open the way that is configured.

    Raises
    ------
    OSError
        The collector is not there, or its certificate is not trusted (`ssl.SSLError`).
    CredentialsError
        A file of the configuration cannot be used.
    """
    if settings.transport == "udp":
        return _Datagrams(settings)
    context = None
    host_name = settings.host
    if settings.transport == "tls":
        context, host_name = collector_context(settings)
    connection = socket.create_connection((settings.host, settings.port), timeout=settings.timeout_s)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname=host_name)
    except BaseException:
        connection.close()
        raise
    return _Stream(connection, settings.timeout_s)


class _Datagrams:
    """One datagram a message (RFC 5426). Whether it arrives nobody can say."""

    def __init__(self, settings: SyslogSettings) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind, protocol)
        self._socket.settimeout(settings.timeout_s)
        # Connected, so that "nobody listens" from a collector on this network comes back as an error.
        self._socket.connect(address)

    def send(self, frames: Sequence[bytes]) -> None:
        for one in frames:
            self._socket.send(one)

    def close(self) -> None:
        self._socket.close()


class _Stream:
    """Octet counting (RFC 5425 4.3, RFC 6587 3.4.1) over a connection.

    Syslog has no answer. So that a message is not lost in a connection that has died, sending ends when the peer's
    system has acknowledged the last byte; what the collector then loses by itself nobody can know.
    """

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s

    def send(self, frames: Sequence[bytes]) -> None:
        self._require_open()
        self._connection.sendall(b"".join(b"%d %b" % (len(one), one) for one in frames))
        deadline = time.monotonic() + self._timeout_s
        while self._unacknowledged_bytes():
            self._require_open()
            if time.monotonic() > deadline:
                raise TimeoutError("the collector does not acknowledge")
            time.sleep(_POLL_S)
        self._require_open()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if isinstance(self._connection, ssl.SSLSocket):
                self._connection.settimeout(_POLL_S)
                self._connection.unwrap()
        self._connection.close()

    def _unacknowledged_bytes(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, bytes(4)))[0])

    def _require_open(self) -> None:
        """Raise when the peer has closed; a collector sends nothing but the end, and TLS its own records."""
        # Not `select`, which knows no descriptor above 1023.
        waiting = select.poll()
        waiting.register(self._connection, select.POLLIN)
        while waiting.poll(0):
            self._connection.settimeout(0)
            try:
                if not self._connection.recv(4096):
                    raise ConnectionResetError("the collector has closed the connection")
            except (ssl.SSLWantReadError, BlockingIOError):
                return
            finally:
                self._connection.settimeout(self._timeout_s)
