"""Processes of a fault run: started, killed without warning, started again as a supervisor would."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Return a port that nobody listens on; processes that are killed and restarted must find theirs again.

    Below those that Linux gives away by itself (from 32768), which anybody may get before it is used; tests that run at
    the same time draw theirs at random.
    """
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without the node's variables, with these ones instead."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")}
    # One thread per process: a run is about faults, and several nodes share the machine's cores.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return kept | threads | {"PYTHONPATH": str(ROOT)} | dict(variables or {})


def wait_until(condition: Callable[[], bool], limit_s: float, what: str, *, look_s: float = 0.05) -> None:
    """Wait for a condition; TimeoutError says for what it waited in vain."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {limit_s:g} s")
        time.sleep(look_s)


@dataclass
class Program:
    """One program of the installation that is kept running.

    Parameters
    ----------
    log
        Standard output and error of all its lives, one after the other.
    """

    name: str
    command: Sequence[str]
    log: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Start it; it must not be running."""
        if self.is_alive:
            raise RuntimeError(f"{self.name} runs already")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=environment(self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait(self, limit_s: float) -> int:
        """Wait for its end; return the exit status."""
        assert self.process is not None
        return self.process.wait(limit_s)

    def terminate(self, limit_s: float = 120.0) -> int:
        """Ask it to stop once it hears; return the exit status.

        Restarted a moment ago, it may not have run the line that catches the signal: it would end as if killed.
        """
        assert self.process is not None
        wait_until(lambda: not self.is_alive or self._catches(signal.SIGTERM), limit_s, f"{self.name} catching SIGTERM")
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)

    def _catches(self, number: signal.Signals) -> bool:
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)

    def children(self) -> list[psutil.Process]:
        """Return the inference children of a node, oldest first."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
            return [child for child in found if any("scp_node.jobs.child" in part for part in _cmdline(child))]
        except psutil.NoSuchProcess:
            return []


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def scp_node(*arguments: object) -> list[str]:
    """Return the command that runs the node's own program, as installed."""
    return [str(Path(sys.executable).with_name("scp-node")), *map(str, arguments)]


def python(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module of this repository."""
    return [sys.executable, "-m", module, *map(str, arguments)]
