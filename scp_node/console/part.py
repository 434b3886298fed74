"""The console as a part of a node's process."""

import structlog

from scp_node.console.server import Server
from scp_node.errors import StartError
from scp_node.jobs.roles import Role, Shared

log = structlog.get_logger(__name__)


class Console:
    """The role ``console`` of a process.

    Beside other roles it never keeps them from their work: where it cannot listen, it says so and the rest goes on.
    """

    def __init__(self, shared: Shared) -> None:
        self._is_alone = shared.roles == (Role.CONSOLE,)
        # Tests and demonstrations ask for ports of the system's choice for everything.
        port = 0 if shared.receiver_port == 0 else None
        self._server = Server(shared.settings, shared.engine, port=port, sink=shared.sink)
        self._is_running = False

    @property
    def port(self) -> int:
        """The port it listens on; only while it runs."""
        return self._server.port

    def start(self) -> None:
        """Begin.

        Raises
        ------
        StartError
            It cannot listen, and nothing else is this process's task.
        """
        try:
            self._server.start()
        except StartError as error:
            if self._is_alone:
                raise
            log.error("console not started, the rest goes on", error=str(error))  # noqa: TRY400 - the sentence says all
        else:
            self._is_running = True

    def refresh_certificates(self) -> bool:
        """Read certificate and key now; False when they cannot be used, and the former stay in use."""
        return not self._is_running or self._server.refresh_certificates()

    def stop(self, timeout_s: float) -> None:
        """End."""
        if self._is_running:
            self._server.stop(timeout_s)
