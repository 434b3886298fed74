"""SIGKILL exactly where it hurts: one node after the other dies at a chosen line, each the heir of the one before it.

The lives are a chain on one folder and one database. Each sends instances of its own; the last life has no fault. Then
the contract of docs/architecture.md must hold for the instances of every life.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults import radiographs
from tests.faults.account import Kill, balance
from tests.faults.installation import DESTINATIONS, Installation
from tests.faults.processes import Program, wait_until
from tests.faults.records import read

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

LIMIT_S = 240
EACH = 2


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place to die at: before or after the `number`-th call of a function."""

    title: str
    at: str
    when: str
    number: int = 1
    parent: bool = False
    starts_only: bool = False
    """Dies before it receives: nothing is sent in this life."""
    expected: dict = field(default_factory=dict)


POINTS = (
    Point(
        title="in the middle of the first migration",
        at="sqlalchemy.engine.base:Connection.execute",
        when="after",
        number=5,
        starts_only=True,
    ),
    Point(
        title="before the durable engine has made its tables",
        at="scp_node.jobs.workflows:launch",
        when="before",
        starts_only=True,
    ),
    Point(
        title="with half an object received", at="scp_node.spool.incoming:IncomingFile.write", when="after", number=2
    ),
    Point(title="file renamed, no transaction", at="scp_node.spool.store:Spool.adopt", when="after"),
    Point(title="committed, no Success", at="scp_node.jobs.intake:Filing.accept", when="after"),
    Point(
        title="results half written: the child alone",
        at="scp_node.spool.store:Spool.write_durably",
        when="after",
        number=2,
    ),
    Point(
        title="results half written: child and node",
        at="scp_node.spool.store:Spool.write_durably",
        when="after",
        number=2,
        parent=True,
    ),
    Point(title="results written, not committed", at="scp_node.jobs.analysis:AnalysisWork._finish", when="before"),
    Point(
        title="during take-over, before",
        at="scp_node.jobs.recovery:Recovery.take_over",
        when="before",
        starts_only=True,
    ),
    Point(
        title="during take-over, after", at="scp_node.jobs.recovery:Recovery.take_over", when="after", starts_only=True
    ),
    Point(
        title="the destination answered, not committed",
        at="scp_node.jobs.delivering:DeliveryWork._remember",
        when="before",
    ),
    Point(
        title="the answer committed, the next object not sent",
        at="scp_node.jobs.delivering:DeliveryWork._remember",
        when="after",
    ),
    Point(title="all sent, the delivery not final", at="scp_node.jobs.delivering:DeliveryWork._finish", when="before"),
)


@dataclass
class Chain:
    """All lives, and what is known of them at the end."""

    installation: Installation
    folder: Path
    kills: list[Kill] = field(default_factory=list)
    is_final: bool = False
    results: dict = field(default_factory=dict)
    confirmed: dict = field(default_factory=dict)
    senders: list[Program] = field(default_factory=list)

    def live(self, number: int, point: Point) -> None:
        """Start a node with one fault, send it something, wait until it is dead."""
        marker = self.folder / f"struck-{number}"
        module, name = point.at.split(":")
        fault = {
            "module": module,
            "name": name,
            "when": point.when,
            "number": point.number,
            "parent": point.parent,
            "marker": str(marker),
        }
        node = self.installation.node
        healthy = node.variables
        root = Path(__file__).parents[2]
        node.variables = {
            **healthy,
            "FAULT_AT": json.dumps(fault),
            "PYTHONPATH": os.pathsep.join([str(root / "tests" / "faults" / "injected"), str(root)]),
        }
        try:
            node.start()
            if not point.starts_only:
                self._send(number, point)
            wait_until(marker.exists, LIMIT_S, f"{point.title}: the strike")
            at = None
            if point.at.endswith("write_durably") and not point.parent:
                # Only the child died. The node lives on, with another child; then it dies too.
                wait_until(lambda: len(node.log.read_text().split("child ended")) > 1, LIMIT_S, "the child's end")
                node.kill()
                at = time.time()
            node.wait(LIMIT_S)
            self.kills.append(Kill(at=at or float(marker.read_text()), victim="serve"))
        finally:
            node.variables = healthy

    def _send(self, number: int, point: Point) -> None:
        files = self.folder / f"radiographs-{number}"
        files.mkdir()
        point.expected.update(radiographs.write(files, EACH, seed=1000 + number))
        sender = self.installation.sender(files, associations=1, seed=number)
        sender.start()
        self.senders.append(sender)

    def finish(self) -> None:
        """Start the last node, without a fault, and wait for everything."""
        self.installation.node.start()
        for sender in self.senders:
            assert sender.wait(LIMIT_S) == 0
        self.is_final = self.installation.wait_final(sum(len(point.expected) for point in POINTS), 120.0)
        assert self.installation.node.terminate() == 0
        self.results, self.confirmed = self.installation.results()


@pytest.fixture(scope="module")
def chain(tmp_path_factory, random_checkpoints):
    """All lives, one after the other."""
    folder = tmp_path_factory.mktemp("crash-points")
    # A confined child could neither write down that it was struck nor take its parent with it.
    settings = {"analysis": {"confine_children": False}}
    installation = Installation(folder, checkpoints=random_checkpoints, settings=settings)
    installation.compile_models()
    lives = Chain(installation, folder)
    try:
        for destination in installation.destinations.values():
            destination.start()
        for number, point in enumerate(POINTS):
            lives.live(number, point)
        lives.finish()
        yield lives
    finally:
        installation.stop()
        for sender in lives.senders:
            if sender.is_alive:
                sender.kill()


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.title)
def test_the_contract_holds_after_a_kill(chain, point):
    """What was acknowledged in this life is final and complete at both destinations, once but for the window."""
    drawn = balance(
        point.expected,
        answers=[answer for answer in read(chain.installation.record("sender")) if answer["uid"] in point.expected],
        instances=[one for one in chain.installation.instances() if one.sop_instance_uid in point.expected],
        results=chain.results,
        confirmed=chain.confirmed,
        stored={
            name: [
                row
                for row in read(chain.installation.record(name))
                if not point.expected or set(row["references"]) & set(point.expected)
            ]
            for name in DESTINATIONS
        },
        kills=chain.kills + chain.installation.take_overs(),
    )
    assert drawn.holds, "\n".join(drawn.lines())


def test_nothing_incoming_is_left_and_every_life_was_struck(chain):
    assert len(chain.kills) == len(POINTS)
    assert chain.is_final
