"""The console's web server, in a thread of its own."""

import socket
import ssl
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa
import structlog
import uvicorn

from config.settings import NodeSettings
from scp_node.console.app import create_app
from scp_node.console.secure import Credentials
from scp_node.console.services import Services
from scp_node.errors import StartError
from scp_node.security.certificates import CredentialsError
from scp_node.security.events import Sink, reporting

log = structlog.get_logger(__name__)

_START_LIMIT_S = 60.0
_BACKLOG = 128


class Server:
    """Serves the console until it is stopped.

    Parameters
    ----------
    port
        Listen here instead of on ``settings.console.port``; 0 lets the operating system choose.
    sink
        Takes security events; None: they are only logged.
    """

    def __init__(
        self, settings: NodeSettings, engine: sa.Engine, *, port: int | None = None, sink: Sink | None = None
    ) -> None:
        console = settings.console
        self._settings = console
        self._port = console.port if port is None else port
        self._sink = reporting(sink)
        self._socket: socket.socket | None = None
        self._credentials: Credentials | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(Services(settings, engine)),
                # Guard does it, and knows which proxies to believe.
                proxy_headers=False,
                server_header=False,
                # Addresses and UIDs in a second log of another form; what matters is logged by the parts themselves.
                access_log=False,
                log_config=None,
                ws="none",
                limit_concurrency=256,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=5,
                h11_max_incomplete_event_size=32768,
                ssl_context_factory=None if console.tls_certificate is None else self._context,
            )
        )
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on; only while it runs."""
        if self._socket is None:
            raise RuntimeError("the console is not running")
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Listen; returns when requests are answered.

        Raises
        ------
        StartError
            The port is taken, or a certificate cannot be read.
        """
        bind = self._settings.bind
        if self._settings.tls_certificate is not None:
            try:
                self._credentials = Credentials(self._settings, self._sink)
            except CredentialsError as error:
                raise StartError(f"the console's certificate: {error}") from error
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        try:
            self._socket = socket.create_server((bind, self._port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise StartError(f"the console cannot listen on {bind}:{self._port}: {error.strerror or error}") from error
        self._thread.start()
        deadline = time.monotonic() + _START_LIMIT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self._socket.close()
                raise StartError("the console did not start: see the log")
            time.sleep(0.01)
        if self._credentials is not None:
            self._credentials.start()
        scheme = "http" if self._settings.tls_certificate is None else "https"
        log.info("console", address=f"{scheme}://{bind}:{self.port}/")

    def refresh_certificates(self) -> bool:
        """Read certificate and key now; False when they cannot be used, and the former stay in use."""
        return self._credentials is None or self._credentials.refresh()

    def stop(self, timeout_s: float) -> None:
        """Take nothing new, let running answers end within the limit."""
        self._server.should_exit = True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(5.0)
        if self._credentials is not None:
            self._credentials.stop()
        if self._socket is not None:
            self._socket.close()

    def _context(self, _config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        if self._credentials is None:
            raise RuntimeError("start() reads the certificate first")
        return self._credentials.context

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket] if self._socket is not None else None)
        except SystemExit:
            # uvicorn's way of saying that it could not start; the caller sees the thread end.
            log.exception("console ended")
        except Exception:  # top of a thread
            log.exception("console ended")
