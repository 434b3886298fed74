"""One child process and the parent's end of its socket: JSON, one message a line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from scp_node.private_folder import PrivateFolder

_MAXIMUM_ANSWER_BYTES = 16 * 2**20
_PREFIX = "scp-node-child-"
_SEND_S = 60.0
"""For a message to be taken: a child that does not is frozen."""


def start_module(
    module: str, *arguments: str, descriptors: Sequence[int], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a module of ours in a process that finds the same modules; it inherits these descriptors and no other.

    Parameters
    ----------
    environment
        Variables over those of this process.
    """
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", module, *arguments],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
    )


class GoneError(Exception):
    """The other end of the socket is closed."""


class Child:
    """A process of `scp_node.jobs.child`.

    On Linux it is told of the death of the *thread* that started it, which must therefore outlive it.

    It has a temporary folder of its own, ``TMPDIR``, which is removed when it has ended: libraries want one, if only to
    be imported.

    Raises
    ------
    OSError
        No process can be started: too many of them or of open files, no room for the folder.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._folder = PrivateFolder(_PREFIX)
        self.temporary = self._folder.path
        with ExitStack() as undoing:
            undoing.callback(self._folder.close)
            self._socket, theirs = socket.socketpair()
            undoing.callback(self._socket.close)
            with theirs:
                self.process = start_module(
                    "scp_node.jobs.child",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    descriptors=[theirs.fileno()],
                    environment={**environment, "TMPDIR": str(self.temporary)},
                )
            undoing.pop_all()
        self._buffer = bytearray()

    def send(self, message: dict[str, Any]) -> None:
        """Raise GoneError if the child is not there any more, or takes nothing."""
        if self.process.poll() is not None:
            raise GoneError
        try:
            self._socket.settimeout(_SEND_S)
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise GoneError from error

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Raise GoneError when the child ends first, TimeoutError when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while (end := self._buffer.find(b"\n")) < 0:
            self._socket.settimeout(max(1e-3, deadline - time.monotonic()))
            try:
                piece = self._socket.recv(65536)
            except TimeoutError:
                raise
            except OSError as error:
                raise GoneError from error
            if not piece or len(self._buffer) > _MAXIMUM_ANSWER_BYTES:
                raise GoneError
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message: dict[str, Any] = json.loads(line)
        return message

    def end(self, *, patience_s: float = 0.0) -> str:
        """End the process; say how it ended."""
        if patience_s:
            self._socket.close()
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        else:
            self.process.kill()
        code = self.process.wait()
        self._socket.close()
        self._folder.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def how_it_ended(self) -> str:
        """For a child whose socket is closed: it is dead or about to be."""
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it closed its socket; " + self.end()
        return self.end()
