"""A receiver under attack, and somebody else who is served before, during and after."""

import contextlib
import statistics
import threading
import time

from raw_dicom import ECHO_COMMAND, RELEASE_RP, RELEASE_RQ, Client, data

ATTACKER, BYSTANDER = "127.0.0.3", "127.0.0.2"
LIMIT_S = 60
"""For what takes milliseconds on a quiet machine."""
PROMPT_S = 5
"""Long before any time-out of a receiver under attack frees what an attacker holds."""


class Bystander(threading.Thread):
    """Somebody else: opens an association, sends a C-ECHO, releases, over and over, and takes the time."""

    def __init__(self, arena):
        super().__init__(name="bystander")
        self.seconds: list[float] = []
        self.error: BaseException | None = None
        self._arena = arena
        self._is_over = threading.Event()
        self._served = threading.Condition()

    def run(self):
        try:
            begun = time.monotonic()
            while not self._is_over.is_set():
                came = time.monotonic()
                try:
                    taken = self._echo(begun)
                except (AssertionError, IndexError, OSError):
                    # Somebody whom this machine held up for that long has been ended by right.
                    if time.monotonic() - came < self._arena.patience_s:
                        raise
                    continue
                with self._served:
                    self.seconds.append(taken)
                    self._served.notify_all()
                self._is_over.wait(0.002)
                begun = time.monotonic()
        except BaseException as error:
            with self._served:
                self.error = error
                self._served.notify_all()

    def _echo(self, begun):
        """One association; the time from ``begun`` to the answer."""
        with self._arena.client(associated=True, source=BYSTANDER) as client:
            client.send(data(ECHO_COMMAND, 3, 3))
            assert client.status() == 0
            taken = time.monotonic() - begun
            client.send(RELEASE_RQ)
            assert client.receive()[0] == RELEASE_RP
        return taken

    def wait_for(self, echoes=3):
        """Return when so many more have been answered."""
        with self._served:
            wanted = len(self.seconds) + echoes
            assert self._served.wait_for(lambda: self.error or len(self.seconds) >= wanted, LIMIT_S)
            assert self.error is None, repr(self.error)

    def __enter__(self):
        self.start()
        self.wait_for(1)
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self.join()


class Arena:
    """A receiver with one open port."""

    def __init__(self, running, tls):
        self.running = running
        self.tls = tls
        self.port = running.tls_port if tls else running.port
        settings = running.settings
        self.patience_s = min(
            settings.acse_timeout_s,
            settings.dimse_timeout_s,
            settings.network_timeout_s,
            settings.progress_timeout_s,
            settings.association_limit_s,
            settings.tls.handshake_timeout_s,
        )

    def client(self, associated=False, *, source=ATTACKER, request=None):
        return Client(self.port, associated, tls=self.tls, source=source, request=request)

    def bare(self):
        """A TCP connection: on the TLS port, without a handshake."""
        return Client(self.port, source=ATTACKER)

    @contextlib.contextmanager
    def attacked(self):
        """Somebody else is served soon, in the middle, while the attack goes on and after it."""
        with Bystander(self) as bystander:
            yield bystander
            bystander.wait_for()
        assert statistics.median(bystander.seconds) < PROMPT_S
        self.running.wait_until_quiet(limit_s=LIMIT_S)
