"""The kill test: radiographs over several associations while processes die at random; ends with a balance.

    python -m tests.faults.kills [--database sqlite|postgresql] [--instances 300] [--kills 20] [--runs 1] [--seed N]

Runs a real node (`scp-node serve`; with `--shared` one receiver and two workers), two destinations and a sender as
processes of their own. One destination is down until half of the kills are done. Each kill is a SIGKILL of a process of
the node, of all of them, of an inference child, of a destination or of PostgreSQL; what died is started again after a
moment, as a supervisor would. Exit code 0 only if every instance was acknowledged, nothing is lost or stuck, each ended
in the state it must end in, and each object that a destination got twice is explained by a kill between its answer and
the node's commit.
"""

import argparse
import contextlib
import random
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scp_node.records import InstanceState
from tests.faults import radiographs
from tests.faults.account import Balance, Kill, balance
from tests.faults.installation import DESTINATIONS, ONE_PROCESS, SHARED, Installation
from tests.faults.processes import Program
from tests.faults.records import read

VICTIMS = {"node": 8, "child": 5, "all": 2, "first": 2, "second": 2, "database": 1}
"""Who dies how often, of twenty: `node` is one of its processes, `all` are all of them with their children, `database`
is the server of PostgreSQL."""


_RECOVERY_S = 60.0


@dataclass(kw_only=True)
class Run:
    """One run with one seed.

    Parameters
    ----------
    gap_s
        Mean time from one kill to the next.
    stalled_s
        Nothing has moved for this long: what is not final is stuck.
    """

    folder: Path
    seed: int
    database: str = "sqlite"
    instances: int = 300
    kills: int = 20
    gap_s: float = 6.0
    stalled_s: float = 120.0
    checkpoints: Path | None = None
    say: bool = True
    processes: Mapping[str, Sequence[str]] = field(default_factory=lambda: ONE_PROCESS)
    done: list[Kill] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """Programs that ended although nobody killed them; started again all the same."""
    in_hand: int = 0
    """Kills with unfinished work in the node."""
    _hands_off: threading.Lock = field(default_factory=threading.Lock)
    """Held while a kill is under way: the supervisor waits."""

    def run(self) -> Balance:
        """Send, kill, wait, count."""
        chance = random.Random(self.seed)
        expected = radiographs.write(self.folder / "radiographs", self.instances, seed=self.seed)
        installation = Installation(
            self.folder, database=self.database, checkpoints=self.checkpoints, processes=self.processes
        )
        installation.compile_models()
        # Sending takes about as long as killing does, so that receiving is hit as well.
        pause_s = 0.8 * self.kills * self.gap_s * 4 / self.instances
        sender = installation.sender(self.folder / "radiographs", pause_s=pause_s, seed=self.seed)
        try:
            installation.destinations["first"].start()
            installation.start_nodes()
            sender.start()
            with self._supervised(installation):
                self._kill_all(installation, chance, len(expected))
                sender.wait(3600)
                is_final = installation.wait_final(len(expected), self.stalled_s)
            self._tell(f"all final: {is_final}")
            installation.stop_nodes()
            results, confirmed = installation.results()
            return balance(
                expected,
                answers=read(installation.record("sender")),
                instances=installation.instances(),
                results=results,
                confirmed=confirmed,
                stored={name: read(installation.record(name)) for name in DESTINATIONS},
                kills=self.done + installation.take_overs(),
            )
        finally:
            if sender.is_alive:
                sender.kill()
            installation.stop()

    @contextlib.contextmanager
    def _supervised(self, installation: Installation) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.5):
                with self._hands_off:
                    for program in installation.nodes.values():
                        if not program.is_alive:
                            if not self._is_database_young():
                                self.ended.append(program.name)
                            self._tell(f"{program.name} ended by itself with {program.wait(1)}")
                            program.start()

        supervisor = threading.Thread(target=look)
        supervisor.start()
        try:
            yield
        finally:
            over.set()
            supervisor.join()

    def _is_database_young(self) -> bool:
        """Whether PostgreSQL was killed a moment ago: a node that starts without its database says so and ends."""
        return any(kill.victim == "postgresql" and time.time() - kill.at < _RECOVERY_S for kill in self.done)

    def _kill_all(self, installation: Installation, chance: random.Random, expected: int) -> None:
        names, weights = list(VICTIMS), list(VICTIMS.values())
        for number in range(self.kills):
            if number == self.kills // 2:
                self._tell("the second destination comes up")
                installation.destinations["second"].start()
            time.sleep(chance.uniform(0.2, 2 * self.gap_s))
            victim = chance.choices(names, weights)[0]
            self._kill(installation, victim, chance)
            states = Counter(record.state for record in installation.instances())
            if sum(count for state, count in states.items() if state.is_final) < expected:
                self.in_hand += 1
        if not installation.destinations["second"].is_alive:
            installation.destinations["second"].start()

    def _kill(self, installation: Installation, victim: str, chance: random.Random) -> None:
        with self._hands_off:
            if victim in DESTINATIONS and installation.destinations[victim].is_alive:
                self._kill_and_restart([installation.destinations[victim]], chance)
                return
            if victim == "database" and installation.cluster is not None:
                self._end(installation.cluster.program)
                time.sleep(chance.uniform(0.0, 3.0))
                installation.cluster.start()
                return
            nodes = list(installation.nodes.values())
            children = [child for node in nodes for child in node.children()]
            if victim == "child" and children:
                child = chance.choice(children)
                _end(child)
                self._note("child", child.pid)
                return
            # Neither a destination that is down nor a child that is not there can be killed: a node in their place.
            # Children of a killed node die with it, at the kernel's hand.
            self._kill_and_restart(nodes if victim == "all" else [chance.choice(nodes)], chance)

    def _kill_and_restart(self, programs: Sequence[Program], chance: random.Random) -> None:
        for program in programs:
            self._end(program)
        time.sleep(chance.uniform(0.0, 1.5))
        for program in programs:
            program.start()

    def _end(self, program: Program) -> None:
        pid = program.pid
        program.kill()
        # Not before: on a busy machine it may do something yet.
        self._note(program.name, pid)

    def _note(self, victim: str, pid: int) -> None:
        self.done.append(Kill(at=time.time(), victim=victim))
        self._tell(f"kill {len(self.done):2}/{self.kills}: {victim} (process {pid})")

    def _tell(self, line: str) -> None:
        if self.say:
            print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)


def _row(run: Run, drawn: Balance, duration_s: float) -> str:
    """Return the run as a row of the table in docs/reliability.md."""
    victims = Counter(kill.victim for kill in run.done)
    nodes = sum(victims[name] for name in run.processes)
    columns = (
        f"{run.database}, {len(run.processes)} process(es)",
        run.seed,
        f"{nodes} / {victims['child']} / {victims['first'] + victims['second']} / {victims['postgresql']}",
        drawn.acknowledged,
        sum(count for state, count in drawn.states.items() if InstanceState(state).is_final),
        " and ".join(str(count) for count in drawn.delivered.values()),
        len(drawn.duplicates_explained),
        len(drawn.duplicates_unexplained),
        len(drawn.lost),
        len(drawn.stuck),
        f"{duration_s:.0f} s",
    )
    return "| " + " | ".join(map(str, columns)) + " |"


def _end(child: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        child.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--shared", action="store_true", help="one receiver and two workers instead of one process")
    parser.add_argument("--gap", type=float, default=6.0, help="mean time between kills, seconds")
    parser.add_argument("--seed", type=int, help="of the first run; the others count up")
    parser.add_argument("--keep", type=Path, help="run in this folder and keep it")
    arguments = parser.parse_args()
    first = arguments.seed if arguments.seed is not None else secrets.randbelow(10**6)
    broken = 0
    for number in range(arguments.runs):
        seed = first + number
        folder = arguments.keep / str(seed) if arguments.keep else Path(tempfile.mkdtemp(prefix="faults-"))
        print(f"run {number + 1}/{arguments.runs}: {arguments.database}, seed {seed}, {folder}", flush=True)
        run = Run(
            folder=folder,
            seed=seed,
            database=arguments.database,
            instances=arguments.instances,
            kills=arguments.kills,
            gap_s=arguments.gap,
            processes=SHARED if arguments.shared else ONE_PROCESS,
        )
        started = time.monotonic()
        drawn = run.run()
        victims = Counter(kill.victim for kill in run.done)
        print(f"kills                   {len(run.done)} ({dict(victims)}), {run.in_hand} with work in hand")
        print("\n".join(drawn.lines()))
        print(f"ended by themselves     {len(run.ended)}")
        print(f"duration                {time.monotonic() - started:.0f} s")
        print(_row(run, drawn, time.monotonic() - started))
        print("the contract held" if drawn.holds and not run.ended else "BROKEN", flush=True)
        broken += not drawn.holds or bool(run.ended)
        if drawn.holds and not arguments.keep:
            shutil.rmtree(folder)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
