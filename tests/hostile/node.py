"""A running node that gets the cases, and what can be seen of it from outside."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydicom import dcmread

from config.destinations import DicomDestination
from config.load import load
from scp_node.delivery.catalog import echo
from scp_node.jobs.admin import Admin
from scp_node.jobs.records import InstanceRecord
from tests.faults.processes import Program, free_port, scp_node, wait_until
from tests.hostile.cases import Case
from tests.hostile.wire import send

START_LIMIT_S = 300.0
STALLED_S = 300.0
"""Without any change of state for so long, an instance is stuck."""
CANARY = b"CANARY"
_SENDERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """What became of a case.

    Parameters
    ----------
    detail
        The node's sentence.
    probability
        Of the one model, None without a result.
    """

    answer: str
    state: str = ""
    reason: str = ""
    detail: str = ""
    probability: float | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.answer, self.state, f"({self.reason})" if self.reason else "")))


class Node:
    """``scp-node serve`` with one model and a folder as destination, everything below one folder."""

    def __init__(self, folder: Path, checkpoints: Path | None = None) -> None:
        # Three levels down: what climbs up with ../ would be seen.
        self.top = folder
        self.home = folder / "a" / "b" / "home"
        self.home.mkdir(parents=True)
        self.port = free_port()
        self.share = self.home / "share"
        variables = {
            "SCP_NODE__RECEIVER__PORT": str(self.port),
            "SCP_NODE__RECEIVER__ACSE_TIMEOUT_S": "30",
            "SCP_NODE__SPOOL__FOLDER": str(self.home / "spool"),
            "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES": "0",
            "SCP_NODE__DATABASE__URL": f"sqlite:///{self.home / 'node.sqlite'}",
            "SCP_NODE__ANALYSIS__MODELS": '["resnet18"]',
            "SCP_NODE__ANALYSIS__PROCESSES": "1",
            "SCP_NODE__ANALYSIS__THREADS": "1",
            "SCP_NODE__ANALYSIS__DEVICE": "cpu",
            "SCP_NODE__RESULTS__SECONDARY_CAPTURE__SINGLES": "false",
            "SCP_NODE__RESULTS__SECONDARY_CAPTURE__PANEL_SIZE": "256",
            "SCP_NODE__DESTINATIONS": json.dumps([{"name": "share", "kind": "folder", "folder": str(self.share)}]),
            "SCP_NODE__LOGGING__FORMAT": "json",
            "SCP_NODE__LOGGING__LEVEL": "DEBUG",
        }
        if checkpoints is not None:
            variables["SCP_NODE__ANALYSIS__CHECKPOINTS"] = str(checkpoints)
        self.settings = load(None, variables)
        self.log = self.home / "node.log"
        self.program = Program(
            "serve", scp_node("serve", "--role", "receiver", "--role", "worker"), self.log, variables
        )

    def __enter__(self) -> Self:
        self.program.start()
        wait_until(self._receives, START_LIMIT_S, "the start of the node")
        return self

    def __exit__(self, *error: object) -> None:
        if self.program.is_alive:
            self.program.terminate()

    def _receives(self) -> bool:
        assert self.program.is_alive, self.log.read_text()[-2000:]
        return b'"receiving"' in self.log.read_bytes()

    def judge(self, cases: Sequence[Case]) -> dict[str, Actual]:
        """Send all cases and wait for what becomes of them; by name of the case."""
        # Several at a time: each waits for the disk.
        with ThreadPoolExecutor(_SENDERS) as senders:
            answers = dict(zip((case.name for case in cases), senders.map(self._send, cases), strict=True))
        stored = {case.sop_instance_uid for case in cases if answers[case.name] == "0000"}
        records = self._wait_final(stored)
        found: dict[str, Actual] = {}
        with Admin(self.settings) as admin:
            for case in cases:
                record = records.get(case.sop_instance_uid)
                if record is None:
                    found[case.name] = Actual(answer=answers[case.name])
                    continue
                predictions = admin.show(str(record.id)).predictions
                found[case.name] = Actual(
                    answer=answers[case.name],
                    state=record.state.value,
                    reason=record.reason or "",
                    detail=record.detail,
                    probability=predictions[0].probability if predictions else None,
                )
        return found

    def _send(self, case: Case) -> str:
        return send(case, self.port)

    def _wait_final(self, uids: set[str]) -> dict[str, InstanceRecord]:
        before: object = None
        changed = time.monotonic()
        while True:
            with Admin(self.settings) as admin:
                records = {record.sop_instance_uid: record for record in admin.list_instances()}
            open_ = {uid for uid in uids if uid not in records or not records[uid].state.is_final}
            if not open_:
                return records
            if open_ != before:
                before, changed = open_, time.monotonic()
            assert self.program.is_alive, self.log.read_text()[-2000:]
            assert time.monotonic() - changed < STALLED_S, f"nothing happens to {sorted(open_)[:5]}"
            time.sleep(0.5)

    def complaints(self, cases: Sequence[Case]) -> list[str]:
        """Return what is wrong with the node itself after all of it; nothing if all is well."""
        found = []
        if not self.program.is_alive:
            found.append("the node is not alive")
        if problem := self._echo():
            found.append(problem)
        found += [f"{file} is outside of the node's folders" for file in self._strays()]
        found += self._log_lines()
        found += [f"{case.name}: {tag:08x} differs in a result" for case, tag in self._changed_identities(cases)]
        return found

    def _echo(self) -> str | None:
        peer = DicomDestination(
            name="node", ae_title=self.settings.receiver.ae_title, host="127.0.0.1", port=self.port, timeout_s=60
        )
        outcome = echo(peer, "HOSTILE")
        return None if outcome.is_reachable else f"no C-ECHO: {outcome.detail}"

    def _strays(self) -> list[Path]:
        own = {self.home / name for name in ("spool", "share", "audit")}
        return [
            file
            for file in self.top.rglob("*")
            if file.is_file()
            and not own & set(file.parents)
            and not (file.parent == self.home and file.name.startswith("node."))
        ]

    def _log_lines(self) -> list[str]:
        found = []
        content = self.log.read_bytes()
        if CANARY in content:
            found.append("a patient's name is in the log")
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                found.append(f"line {number} of the log is no JSON: {line[:80]!r}")
                continue
            if entry.get("event") == "forged":
                found.append(f"line {number} of the log is forged")
        return found

    def _changed_identities(self, cases: Sequence[Case]) -> list[tuple[Case, int]]:
        by_source = {case.sop_instance_uid: case for case in cases if case.identity}
        found = []
        for file in self.share.rglob("*.dcm"):
            result = dcmread(file, stop_before_pixels=True)
            references = [item.ReferencedSOPInstanceUID for item in result.get("SourceImageSequence", [])]
            case = next((by_source[uid] for uid in references if uid in by_source), None)
            if case is None:
                continue
            raw = file.read_bytes()
            for tag, value in case.identity.items():
                head = tag.to_bytes(4, "big")
                key = head[1::-1] + head[:1:-1]
                place = raw.index(key, 132)
                length = int.from_bytes(raw[place + 6 : place + 8], "little")
                if raw[place + 8 : place + 8 + length].rstrip(b" \0") != value:
                    found.append((case, tag))
        return found
