"""The console's own TLS: the same versions, ciphers and checks of files as the receiver's, without client certificates.

Files that change are taken up for new connections; open ones keep what they have.
"""

import ssl
import threading

from config.console import ConsoleSettings
from config.receiver import ReceiverTlsSettings
from scp_node.security.credentials import ServerCredentials
from scp_node.security.events import Sink

_WATCH_S = 60.0


class Credentials:
    """Certificate and key of a console while it runs.

    Raises
    ------
    CredentialsError
        They cannot be used, or others can read the key.
    """

    def __init__(self, settings: ConsoleSettings, sink: Sink) -> None:
        files = ReceiverTlsSettings(
            enabled=True,
            certificate=settings.tls_certificate,
            key=settings.tls_key,
            # People have passwords.
            require_client_certificate=False,
        )
        self._current = ServerCredentials(files, sink, used_for="console")
        # The first one listens as long as the console does; each handshake is handed to the one that is current.
        self.context = self._current.context
        self.context.sni_callback = self._hand_over
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._current.follow, args=(self._stopping, _WATCH_S), name="console certificates", daemon=True
        )

    def start(self) -> None:
        """Begin to follow the files."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def refresh(self) -> bool:
        """Read the files now; False when they cannot be used, and the former stay in use."""
        return self._current.refresh(is_forced=True)

    def _hand_over(self, connection: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        # Called for clients that name no host too.
        connection.context = self._current.context
