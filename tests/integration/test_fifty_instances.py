"""Fifty radiographs over four associations of DCMTK's dcmsend: each is accounted for in the job list, to the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pydicom
import pytest

from scp_node.demo.phantoms import cr

pytestmark = pytest.mark.integration

PROGRAM = Path(sys.executable).with_name("scp-node")
ASSOCIATIONS = 4
CHESTS, OTHERS = 45, 5
OBJECTS_EACH = 4
"""Montage, one single, measurement report, text summary: one model, for what counts here is the number of instances."""
LIMIT_S = 480


@pytest.fixture
def radiographs(tmp_path):
    """Four folders with 45 chests and 5 knees, spread over them."""
    for number in range(CHESTS + OTHERS):
        part = "CHEST" if number % 10 else "KNEE"
        folder = tmp_path / "out" / str(number % ASSOCIATIONS)
        folder.mkdir(parents=True, exist_ok=True)
        source = cr(rows=256, columns=224, seed=number, BodyPartExamined=part)
        source.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return tmp_path / "out"


@pytest.mark.timeout(LIMIT_S + 120)
def test_every_one_of_fifty_is_accounted_for(radiographs, random_checkpoints, free_port, tmp_path):
    if shutil.which("dcmsend") is None:
        if os.environ.get("CI"):
            pytest.fail("dcmsend is not installed")
        pytest.skip("dcmsend is not installed (apt-get install dcmtk)")
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")} | {
        "SCP_NODE__RECEIVER__PORT": str(port),
        "SCP_NODE__RECEIVER__ACSE_TIMEOUT_S": "30",
        "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES": "0",
        "SCP_NODE__ANALYSIS__CHECKPOINTS": str(random_checkpoints),
        "SCP_NODE__ANALYSIS__MODELS": '["resnet18"]',
        "SCP_NODE__DESTINATIONS": json.dumps([{"name": "folder", "kind": "folder", "folder": str(tmp_path / "in")}]),
        "SCP_NODE__LOGGING__FORMAT": "json",
    }
    log = tmp_path / "node.log"
    with log.open("w") as stream:
        node = subprocess.Popen([PROGRAM, "serve"], cwd=tmp_path, env=environ, stderr=stream)
    deadline = time.monotonic() + LIMIT_S
    try:
        while '"receiving"' not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        senders = [
            subprocess.Popen(["dcmsend", "+sd", "-aec", "SCP_NODE", "127.0.0.1", str(port), folder])
            for folder in sorted(radiographs.iterdir())
        ]
        assert [sender.wait(LIMIT_S) for sender in senders] == [0] * ASSOCIATIONS

        def jobs():
            done = subprocess.run(
                [PROGRAM, "jobs", "list", "--json"],
                cwd=tmp_path,
                env=environ,
                capture_output=True,
                text=True,
                check=True,
            )
            return [json.loads(line) for line in done.stdout.splitlines()]

        while time.monotonic() < deadline:
            listed = jobs()
            assert len(listed) == CHESTS + OTHERS, "acknowledged means listed, from the first moment on"
            if all(job["state"] in ("delivered", "not_eligible", "dead_letter") for job in listed):
                break
            time.sleep(4)  # each look is a process of its own
        assert Counter(job["state"] for job in listed) == {"delivered": CHESTS, "not_eligible": OTHERS}
        assert {job["reason"] for job in listed if job["state"] == "not_eligible"} == {"not_chest"}
        assert len({job["sop_instance_uid"] for job in listed}) == CHESTS + OTHERS
        delivered = [
            pydicom.dcmread(file, stop_before_pixels=True) for file in (tmp_path / "in").rglob("*") if file.is_file()
        ]
        assert len({dataset.SOPInstanceUID for dataset in delivered}) == len(delivered) == CHESTS * OBJECTS_EACH
    finally:
        node.send_signal(signal.SIGTERM)
        assert node.wait(180) == 0, log.read_text()
