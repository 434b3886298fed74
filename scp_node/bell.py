"""Wakes a thread that waits for a socket: any other thread may ring."""

import contextlib
import select
import socket


class Bell:
    """One thread waits, others ring; closed when nobody waits any more."""

    def __init__(self) -> None:
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._own = self._bell.fileno()
        self._poll = select.poll()
        self._poll.register(self._own, select.POLLIN)

    def watch(self, wire: socket.socket) -> None:
        """Let each `wait` end when this socket has something to read, or its end, too."""
        self._poll.register(wire, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the socket can be read or somebody rings; return whether it can be read."""
        is_readable = False
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            if descriptor == self._own:
                with contextlib.suppress(OSError):
                    self._bell.recv(4096)
            else:
                is_readable = True
        return is_readable

    def ring(self) -> None:
        """End the `wait` that lasts, or the next one."""
        # Full or closed: it is ringing already, or there is nobody to hear it.
        with contextlib.suppress(OSError):
            self._rope.send(b"!")

    def close(self) -> None:
        """Release the descriptors."""
        self._bell.close()
        self._rope.close()
