"""A node at DEBUG that gets canaries, as a user without privileges, and all that it wrote, said and left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import httpx
import pytest
from canaries import CANARY, canaries, hostile
from pynetdicom import AE

from scp_node.demo.pacs import StandInPacs

ROOT = Path(__file__).parents[2]
LIMIT_S = 300
PROGRAM = "import sys; from scp_node.cli.main import main; sys.exit(main())"
UNPRIVILEGED = 65534
FINAL = ("delivered", "not_eligible", "dead_letter")


def as_user():
    """Interpreter, environment and identity of a process without privileges.

    A root user's own interpreter may lie where nobody else can read it; the system's of the same version then serves.
    Where neither can, the node runs as whoever runs the tests, and one test says so.
    """
    if os.getuid() != 0:
        return sys.executable, {}, {}
    identity = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("-packages"))])}
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter, environment in ((sys.executable, {}), (system, paths)):
        try:
            tried = subprocess.run(
                [interpreter, "-c", "import numpy, scp_node.cli.main"],
                env={**os.environ, **environment, "HOME": "/nonexistent"},
                cwd="/",
                capture_output=True,
                timeout=120,
                check=False,
                **identity,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return interpreter, environment, identity
    return sys.executable, {}, {}


class Running:
    """`scp-node serve` at DEBUG as nobody in particular, and the commands that a person would run."""

    def __init__(self, folder, checkpoints, ports, pacs_port):
        self.folder = folder
        self.port, self.console_port = ports[:2]
        self.interpreter, paths, self.identity = as_user()
        self.user = self.identity.get("user", os.getuid())
        self.config = folder / "node.toml"
        data = folder / "data"
        self.config.write_text(
            f"""
            [receiver]
            port = {self.port}
            acse_timeout_s = 30
            [console]
            port = {self.console_port}
            [spool]
            folder = "{data / "spool"}"
            minimum_free_bytes = 0
            [database]
            url = "sqlite:///{data / "node.sqlite"}"
            [analysis]
            checkpoints = "{checkpoints}"
            models = ["resnet18"]
            runtime = "torch"
            device = "cpu"
            threads = 1
            time_limit_s = 60
            attempts = 1
            [delivery]
            first_delay_s = 0.5
            maximum_delay_s = 1
            [logging]
            level = "DEBUG"
            format = "json"
            [[destinations]]
            kind = "dicom"
            name = "pacs"
            ae_title = "PACS"
            host = "127.0.0.1"
            port = {pacs_port}
            [[destinations]]
            kind = "dicom"
            name = "gone"
            ae_title = "GONE"
            host = "127.0.0.1"
            port = {ports[2]}
            patience_s = 2
            """,
            encoding="utf-8",
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **paths,
        }
        for name in ("home", "tmp", "data"):
            (folder / name).mkdir()
        if self.identity:
            for path in (folder, *folder.iterdir()):
                os.chown(path, self.user, self.user)
        self.log = folder.parent / "log.txt"
        self.said = b""
        with self.log.open("wb") as log:
            self.process = self._popen("serve", stdout=log, stderr=subprocess.STDOUT)

    def _popen(self, *arguments, **named):
        command = [self.interpreter, "-c", PROGRAM, *arguments, "--config", str(self.config)]
        return subprocess.Popen(command, env=self.environment, cwd=self.folder, **self.identity, **named)

    def run(self, *arguments):
        process = self._popen(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=LIMIT_S)
        self.said += output
        return output

    def wait(self, condition):
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < deadline, self.log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.2)

    def answers(self):
        return b'"event": "receiving"' in self.log.read_bytes()

    def instances(self):
        lines = self.run("jobs", "list", "--json").splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def has_final(self, count):
        """Whether so many instances are in a final state, as the console says: a command takes seconds each time."""
        entries = json.loads(self.get("/api/v1/instances?limit=500") or b"{}").get("entries", ())
        return len(entries) == count and all(one["instance"]["state"] in FINAL for one in entries)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.console_port}{path}", timeout=120) as answer:
                return answer.read()
        except urllib.error.URLError:
            return b""

    def search(self, accession_number):
        """What the console finds by an Accession Number, and the address that its page leads to."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.console_port}", timeout=120) as client:
            found = client.post("/api/v1/instances/search", json={"accession_number": accession_number}).json()
            page = client.post("/worklist", data={"accession_number": accession_number})
            client.post("/api/v1/instances/search", json={"accession_number": [accession_number]})
            return [one["instance"]["sop_instance_uid"] for one in found["entries"]], page.headers["location"]


def store(dataset, port, **named):
    """Send without looking: wrong values must reach the node as they are."""
    entity = AE("MODALITY")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = LIMIT_S
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="SCP_NODE")
    assert association.is_established
    status = association.send_c_store(dataset, **named)
    association.release()
    return status.get("Status")


@pytest.fixture(scope="module")
def told(request, random_checkpoints, free_port):
    """Everything that a node and its commands wrote, said and left behind."""
    # pytest keeps its folders from other users, and each new session of it closes them again.
    outer = Path(tempfile.mkdtemp(prefix="canary-"))
    request.addfinalizer(lambda: shutil.rmtree(outer))
    outer.chmod(0o755)
    checkpoints = shutil.copytree(random_checkpoints, outer / "checkpoints")
    for path in (checkpoints, *checkpoints.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    folder = outer / "node"
    folder.mkdir()
    with StandInPacs(outer / "pacs", ae_title="PACS") as pacs:
        running = Running(folder, checkpoints, [free_port() for _ in range(3)], pacs.port)
        try:
            running.wait(running.answers)
            sent = {1: canaries(1), **hostile()}
            for dataset in sent.values():
                assert store(dataset, running.port) == 0
            # Another object under a known UID; a data set that contradicts its command; a UID that is a name.
            other = canaries(1)
            other.PatientName = f"{CANARY}OTHER"
            assert store(other, running.port) == 0
            other.SOPInstanceUID = f"{CANARY}.1"
            assert store(other, running.port) != 0
            running.wait(lambda: running.has_final(len(sent)))
            assert len(running.instances()) == len(sent)
            for uid in ("2.25.91", "2.25.92", "2.25.95"):
                running.run("jobs", "show", uid)
            running.run("audit", "show", "2.25.91")
            running.run("jobs", "retry", "2.25.92")
            running.run("jobs", "list", "--conflicts")
            running.run("audit", "verify")
            running.run("config", "show")
            for number, dataset in sent.items():
                file = folder / f"file-{number}.dcm"
                dataset.save_as(file)
                file.chmod(0o644)
            running.run("analyze", *(str(folder / f"file-{number}.dcm") for number in sent), "--json")
            running.found = running.search(f"{CANARY}1")
            metrics = running.get("/metrics")
            running.wait(lambda: running.has_final(len(sent)))
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(LIMIT_S) == 0
        finally:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait()
        yield running, metrics, pacs
