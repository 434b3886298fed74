"""The kill test for the PyPI package dicom-ai-router 0.3.0, as far as it applies; figures in docs/reliability.md.

    pip install dicom-ai-router==0.3.0        # in a virtual environment of its own
    python -m tests.faults.peer --program VENV/bin/dicom-ai-router [--instances 300] [--kills 20] [--seed N]

It takes CT only, groups by study, calls a model over HTTP and has one destination: each phantom here is labelled CT and
is a study of its own, the model is a server of this run that always gives the same answer, and the one destination is
down until half of the kills are done. Its process and the destination are killed; sender, destination and counting are
those of `tests.faults.kills`. Its configuration is the one it ships, but for addresses.
"""

import argparse
import http.server
import json
import random
import secrets
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage

from scp_node.demo.phantoms import chest_array, cr
from tests.faults.account import Kill, repeats
from tests.faults.processes import Program, free_port, python, wait_until
from tests.faults.records import read

_FINAL = {"DONE", "IGNORED", "FAILED"}
_ANSWER = {
    "model": "lung-nodule",
    "model_version": "1",
    "result": "NEGATIVE",
    "summary_lines": [["Result", "No finding detected by model"]],
    "key_sop_instance_uid": None,
    "overlays": [],
    "display_window": [-600, 1500],
    "findings": [],
    "processing_ms": 1.0,
}


class _Model(http.server.BaseHTTPRequestHandler):
    """Answers every study alike and at once."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps(_ANSWER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def write(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Write one-image CT studies; return SOP Instance UID by Study Instance UID."""
    folder.mkdir(parents=True)
    picture = chest_array(256, 224, seed=seed)
    noise = np.random.default_rng(seed)
    studies = {}
    for number in range(count):
        source = cr(
            np.minimum(picture + noise.integers(0, 8, picture.shape, dtype=np.uint16), 4095),
            photometric_interpretation="MONOCHROME2",
            identity=f"peer-{seed}-{number}",
            SOPClassUID=CTImageStorage,
            Modality="CT",
            PatientName="Doe^Jane",
            PixelSpacing=[1.5, 1.5],
            ImagePositionPatient=[0, 0, number],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            RescaleIntercept=-1024,
            RescaleSlope=1,
            ViewPosition=None,
            SeriesDescription="Thorax",
        )
        source.save_as(folder / f"{number:05}.dcm", enforce_file_format=True)
        studies[str(source.StudyInstanceUID)] = str(source.SOPInstanceUID)
    return studies


class PeerRun:
    """One run."""

    def __init__(self, program: Path, folder: Path, *, seed: int, instances: int, kills: int, gap_s: float) -> None:
        self._chance = random.Random(seed)
        self._seed, self._kills, self._gap_s = seed, kills, gap_s
        self._folder = folder
        self._studies = write(folder / "studies", instances, seed)
        self._record = folder / "first.jsonl"
        model = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Model)
        threading.Thread(target=model.serve_forever, daemon=True).start()
        port, destination = free_port(), free_port()
        self._port = port
        configuration = {
            "router": {
                "ae_title": "AIROUTER",
                "port": port,
                "bind_address": "127.0.0.1",
                "workdir": str(folder / "data"),
            },
            "pacs": {"ae_title": "FIRST", "host": "127.0.0.1", "port": destination, "retries": 3},
            "ai_endpoints": {"lung-nodule": {"url": f"http://127.0.0.1:{model.server_address[1]}/infer", "retries": 3}},
            "rules": [{"name": "ct-chest", "match": {"Modality": "^CT$"}, "model": "lung-nodule", "series": "largest"}],
            "deid": {"salt": "", "reject_burned_in_annotation": True},
        }
        (folder / "router.yaml").write_text(json.dumps(configuration))  # JSON is YAML
        variables = {"AIROUTER_DEID_SALT": secrets.token_hex(32), "PYTHONPATH": ""}
        command = [str(program), "serve", "--config", str(folder / "router.yaml")]
        self.router = Program("router", command, folder / "router.log", variables)
        again = [str(program), "rerun", "--failed", "--config", str(folder / "router.yaml")]
        self._again = Program("rerun", again, folder / "rerun.log", variables)
        self._pacs = Program(
            "first",
            python("tests.faults.pacs", "--port", destination, "--ae-title", "FIRST", "--record", self._record),
            folder / "first.log",
        )
        self.done: list[Kill] = []

    def run(self) -> list[str]:
        """Send, kill, wait, count; then do what its manual tells a person to do, and count again."""
        count = len(self._studies)
        pause_s = 0.8 * self._kills * self._gap_s * 4 / count
        sender = Program(
            "sender",
            python(
                "tests.faults.sender",
                *("--port", self._port, "--called", "AIROUTER", "--folder", self._folder / "studies"),
                *("--record", self._folder / "sender.jsonl", "--pause", pause_s, "--seed", self._seed),
            ),
            self._folder / "sender.log",
        )
        self.router.start()
        try:
            wait_until(lambda: "AIROUTER up" in self.router.log.read_text(), 120, "the router")
            sender.start()
            for number in range(self._kills):
                if number == self._kills // 2:
                    self._pacs.start()
                time.sleep(self._chance.uniform(0.2, 2 * self._gap_s))
                is_pacs = self._pacs.is_alive and self._chance.random() < 0.2
                self._kill(self._pacs if is_pacs else self.router)
            sender.wait(3600)
            self._wait_final()
            lines = ["without a person:", *self._count()]
            self.router.kill()  # `rerun` refuses while it runs
            self._again.start()
            self._again.wait(3600)
            return [*lines, "after stopping it, `rerun --failed`:", *self._count()]
        finally:
            for program in (sender, self.router, self._pacs):
                if program.is_alive:
                    program.kill()

    def _kill(self, program: Program) -> None:
        self.done.append(Kill(at=time.time(), victim=program.name))
        print(f"  {time.strftime('%H:%M:%S')} kill {len(self.done):2}/{self._kills}: {program.name}", flush=True)
        program.kill()
        time.sleep(self._chance.uniform(0.0, 1.5))
        program.start()

    def _states(self) -> dict[str, str]:
        database = sqlite3.connect(f"file:{self._folder / 'data' / 'router.sqlite'}?mode=ro", uri=True)
        try:
            return dict(database.execute("SELECT study_uid, state FROM studies").fetchall())
        finally:
            database.close()

    def _wait_final(self, stalled_s: float = 120.0) -> None:
        before, changed = None, time.monotonic()
        while time.monotonic() - changed < stalled_s:
            states = self._states()
            if len(states) == len(self._studies) and set(states.values()) <= _FINAL:
                return
            if states != before:
                before, changed = states, time.monotonic()
            time.sleep(1.0)

    def _count(self) -> list[str]:
        rows = read(self._record)
        states = self._states()
        answers = read(self._folder / "sender.jsonl")
        acknowledged = {answer["uid"] for answer in answers if answer["status"] == 0x0000}
        arrived: dict[str, set[str]] = {}
        uids: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            arrived.setdefault(row["study"], set()).add(row["sop_class"])
            uids.setdefault((row["study"], row["sop_class"]), set()).add(row["uid"])
        complete = {study for study, classes in arrived.items() if len(classes) == 2}
        undelivered = [study for study in self._studies if study not in complete]
        explained, unexplained = repeats(rows, self.done)
        return [
            f"  sent                    {len(self._studies)}",
            f"  acknowledged            {len(acknowledged)}",
            f"  answers                 {dict(Counter(str(answer['status']) for answer in answers))}",
            f"  its states              {dict(Counter(states.values()))}",
            f"  complete at the PACS    {len(complete)}",
            f"  sent twice              {len(explained)} explained, {len(unexplained)} not",
            f"  two UIDs for one result {sum(len(found) > 1 for found in uids.values())}",
            f"  FAILED, for a person    {sum(states.get(study) == 'FAILED' for study in undelivered)}",
            f"  DONE, not at the PACS   {sum(states.get(study) == 'DONE' for study in undelivered)}",
            f"  unknown or not final    {sum(states.get(study) not in _FINAL for study in undelivered)}",
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--gap", type=float, default=6.0)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(10**6)
    folder = Path(tempfile.mkdtemp(prefix="faults-peer-"))
    print(f"dicom-ai-router, seed {seed}, {folder}", flush=True)
    started = time.monotonic()
    run = PeerRun(
        arguments.program,
        folder,
        seed=seed,
        instances=arguments.instances,
        kills=arguments.kills,
        gap_s=arguments.gap,
    )
    print("\n".join(run.run()))
    print(f"kills {dict(Counter(kill.victim for kill in run.done))}, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
