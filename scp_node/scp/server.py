"""The receiver: a Verification and Storage SCP that starts, listens, and stops without losing what is under way."""

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence

import structlog
from pynetdicom.ae import ApplicationEntity

from config.receiver import ReceiverSettings
from scp_node.scp.acceptor import AcceptorServer
from scp_node.scp.contexts import supported_contexts
from scp_node.scp.gate import Gate
from scp_node.scp.handlers import Accept, Handlers
from scp_node.scp.part10 import Implementation
from scp_node.spool.store import Spool

_log = structlog.get_logger(__name__)

_BACKLOG = 128
"""Connections that wait to be accepted; a burst beyond it is delayed by a second per retry."""
_POLL_S = 0.1
_LAST_WORDS_S = 2.0
"""For the A-ABORTs of associations that were still open when the time to stop was over."""


def listen(bind: str, port: int) -> socket.socket:
    """Return a listening socket. Several acceptor processes can share one that was made before they started.

    Parameters
    ----------
    bind
        ``localhost``, or an IPv4 or IPv6 address.
    port
        0 lets the operating system choose.

    Raises
    ------
    OSError
        The address is not of this machine, or the port is taken.
    """
    address = "127.0.0.1" if bind == "localhost" else bind
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class Receiver:
    """The Storage SCP of one process.

    Parameters
    ----------
    accept
        Called with each complete object, by the thread of its association; makes it durable before it returns. Then
        success is answered; what it raises is answered with a failure.
    transfer_syntaxes
        UIDs that are accepted for all SOP Classes.
    implementation
        What this product calls itself.
    port
        Listen here instead of on ``settings.port``; 0 lets the operating system choose.
    listener
        A socket made by `listen`, instead of one of its own; closed by `stop`.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        spool: Spool,
        accept: Accept,
        transfer_syntaxes: Sequence[str],
        *,
        implementation: Implementation,
        port: int | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self._settings = settings
        self._port = settings.port if port is None else port
        self._listener = listener
        self._contexts = supported_contexts(transfer_syntaxes)
        self._implementation = implementation
        self._gate = Gate(settings)
        self._handlers = Handlers(
            spool=spool,
            accept=accept,
            implementation=implementation,
            maximum_object_bytes=settings.maximum_object_bytes,
        )
        self._server: AcceptorServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; only while it runs."""
        if self._server is None:
            raise RuntimeError("the receiver is not running")
        return int(self._server.server_address[1])

    @property
    def connections(self) -> int:
        """Open connections, with and without an association."""
        return 0 if self._server is None else len(self._server.associations)

    def start(self) -> None:
        """Listen, and accept associations from now on; returns at once.

        Raises
        ------
        OSError
            The address is not of this machine, or the port is taken.
        """
        if self._server is not None:
            raise RuntimeError("the receiver is running")
        listener = self._listener or listen(self._settings.bind, self._port)
        self._server = AcceptorServer(
            self._application_entity(),
            listener,
            contexts=self._contexts,
            handlers=self._handlers,
            gate=self._gate,
            maximum_associations=self._settings.maximum_associations,
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="receiver", daemon=True
        )
        self._thread.start()
        _log.info("receiver started", ae_title=self._settings.ae_title, bind=self._settings.bind, port=self.port)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Accept nothing more, let open associations end within the limit, abort the rest; nothing is left running.

        An object that was not answered when its association was aborted leaves no file; its sender has to repeat it.
        """
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._gate.drain()
        server.shutdown()
        thread.join()
        for association in server.associations:
            if not self._gate.contains(association):
                association.hang_up()
        ended = self._gate.wait_until_empty(timeout_s)
        for association in server.associations:
            association.abort(block=False)
        deadline = time.monotonic() + _LAST_WORDS_S
        for association in server.associations:
            association.join(timeout=max(deadline - time.monotonic(), 0.0))
            association.hang_up()
        self._server = self._thread = None
        _log.info("receiver stopped", aborted=not ended)

    def _application_entity(self) -> ApplicationEntity:
        settings = self._settings
        entity = ApplicationEntity(settings.ae_title)
        entity.acse_timeout = settings.acse_timeout_s
        entity.dimse_timeout = settings.dimse_timeout_s
        entity.network_timeout = settings.network_timeout_s
        entity.maximum_pdu_size = settings.maximum_pdu_bytes
        # The gate counts; the library would count connections that never asked for an association.
        entity.maximum_associations = 2**31
        entity.implementation_class_uid = self._implementation.class_uid
        entity.implementation_version_name = self._implementation.version_name
        return entity
