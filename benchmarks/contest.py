"""Interleaved comparison of functions, each in an interpreter of its own: medians, ratios, CPU seconds, peak memory.

A contestant is ``module:factory``. Its process calls the factory once with the stage's arguments and then runs what it
returned as often as it is told. The contestants take turns, in another order each round, so that a change of the
machine's speed meets all of them; ratios are taken within a round and their median is reported.
"""

import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(sys.prefix) / "bench"
"""Packages that only the node's peers use, see `make bench`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Who runs, and what is handed to its factory beside the stage's arguments."""

    title: str
    factory: str
    arguments: dict[str, object] = field(default_factory=dict)
    is_reference: bool = False

    @property
    def path(self) -> str:
        """Where its packages are looked for first."""
        return os.pathsep.join(map(str, (ROOT, PEERS) if self.is_reference else (ROOT,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contestant's figures.

    Parameters
    ----------
    wall_ms, cpu_ms
        Medians per call.
    ratio
        Median over the rounds of reference / contestant: above 1 is faster than the reference; by CPU time.
    peak_mb
        Largest resident set of its process.
    """

    title: str
    wall_ms: float
    cpu_ms: float
    ratio: float
    peak_mb: float
    note: str = ""


class _Process:
    def __init__(self, contestant: Contestant, arguments: dict[str, object]) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": contestant.path}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contest", contestant.factory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self.note = self._ask(arguments | contestant.arguments).get("note", "")

    def _ask(self, message: object) -> dict:
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contestant ended with {self._process.wait()}")
        return json.loads(line)

    def run(self, calls: int) -> dict:
        return self._ask({"calls": calls})

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(
    contestants: Sequence[Contestant], arguments: dict[str, object], *, rounds: int, calls: int = 1
) -> list[Row]:
    """Run all contestants in turn.

    Parameters
    ----------
    rounds
        After one that is not counted.
    calls
        Per contestant and round.
    """
    processes = {contestant.title: _Process(contestant, arguments) for contestant in contestants}
    figures: dict[str, list[dict]] = {contestant.title: [] for contestant in contestants}
    order = random.Random(1)
    try:
        for number in range(rounds + 1):
            turn = list(processes)
            order.shuffle(turn)
            for title in turn:
                found = processes[title].run(calls)
                if number:
                    figures[title].append(found)
    finally:
        for process in processes.values():
            process.close()
    (reference,) = (contestant.title for contestant in contestants if contestant.is_reference)
    return [
        Row(
            title=title,
            wall_ms=1000 * statistics.median(found["wall_s"] / calls for found in taken),
            cpu_ms=1000 * statistics.median(found["cpu_s"] / calls for found in taken),
            ratio=statistics.median(
                other["cpu_s"] / found["cpu_s"] for other, found in zip(figures[reference], taken, strict=True)
            ),
            peak_mb=max(found["peak_mb"] for found in taken),
            note=processes[title].note,
        )
        for title, taken in figures.items()
    ]


def _peak_mb() -> float:
    """Of this program: what `getrusage` says begins with the memory of who started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def _serve(name: str) -> None:
    module, _, factory = name.partition(":")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is nobody's protocol
    made = getattr(importlib.import_module(module), factory)(**json.loads(sys.stdin.readline()))
    call, note = made if isinstance(made, tuple) else (made, "")
    answers.write(json.dumps({"note": note}) + "\n")
    answers.flush()
    for line in sys.stdin:
        calls = json.loads(line)["calls"]
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            call()
        found = {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "peak_mb": _peak_mb(),
        }
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
