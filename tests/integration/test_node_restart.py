"""A node that is killed or stopped with work in hand: the next one on the same folder finishes it, without a person."""

import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from config.analysis import AnalysisSettings
from config.destinations import FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.demo.modality import send
from scp_node.jobs.admin import Admin
from scp_node.jobs.node import Node
from scp_node.records import InstanceState

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RG1 = Path(get_testdata_file("RG1_UNCR.dcm"))
LIMIT_S = 240
"""Loading models takes seconds on an idle machine and minutes on a busy one."""


@pytest.fixture
def settings(tmp_path, random_checkpoints):
    """Of a node with one model and a share."""
    return NodeSettings(
        receiver={"acse_timeout_s": 30},
        spool=SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{tmp_path / 'node.sqlite'}"),
        analysis=AnalysisSettings(
            checkpoints=random_checkpoints, models=("resnet18",), processes=1, threads=1, device="cpu"
        ),
        destinations=(FolderDestination(kind="folder", name="share", folder=tmp_path / "share"),),
    )


def _copy(source, folder, number):
    dataset = pydicom.dcmread(source)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}"
    file = folder / f"copy-{number}.dcm"
    dataset.save_as(file)
    return file


PROGRAM = """
import sys, time
from pathlib import Path
from config.settings import NodeSettings
from scp_node.jobs.node import Node
node = Node(NodeSettings.model_validate_json(Path(sys.argv[1]).read_text()), receiver_port=0)
node.start()
Path(sys.argv[2]).write_text(str(node.port))
time.sleep(600)
"""


class Process:
    """A node in a process of its own, to be killed."""

    def __init__(self, settings, folder):
        (folder / "settings.json").write_text(settings.model_dump_json())
        self._port = folder / "port"
        self._port.unlink(missing_ok=True)
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder / "settings.json"), str(self._port)],
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def port(self):
        deadline = time.monotonic() + LIMIT_S
        while not self._port.exists() or not self._port.read_text():
            assert self._process.poll() is None, Path(self._log.name).read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return int(self._port.read_text())

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._log.close()


def _wait(settings, condition):
    deadline = time.monotonic() + LIMIT_S
    while True:
        with Admin(settings) as admin:
            records = list(admin.list_instances())
        if condition(records):
            return records
        assert time.monotonic() < deadline, [record.as_json() for record in records]
        time.sleep(0.1)


def _final(records):
    return bool(records) and all(record.state.is_final for record in records)


def test_what_a_killed_or_stopped_node_leaves_the_next_one_finishes(tmp_path, settings):
    """Killed with jobs running, then stopped with jobs running: each time the next node takes them up by itself."""
    process = Process(settings, tmp_path)
    try:
        port = process.port
        for number in range(700, 703):
            send(_copy(RG1, tmp_path, number), host="127.0.0.1", port=port, called_ae_title="SCP_NODE")
        # Or over already: whoever looks may be held up.
        _wait(settings, lambda records: any(record.state is not InstanceState.RECEIVED for record in records))
    finally:
        process.kill()
    # Once more when this thread was held up until nothing was left to do.
    for number in range(703, 708):
        with Node(settings, receiver_port=0) as second:
            send(_copy(RG1, tmp_path, number), host="127.0.0.1", port=second.port, called_ae_title="SCP_NODE")
            second.stop(0.1)
        with Admin(settings) as admin:
            if not _final(list(admin.list_instances())):
                break
    else:
        pytest.fail("a node that is stopped leaves nothing to do")
    with Node(settings, receiver_port=0):
        records = _wait(settings, _final)
    assert [record.state for record in records] == [InstanceState.DELIVERED] * (number - 699)
    # Montage, single, measurement report, text summary; each instance its own.
    assert len(list((tmp_path / "share").iterdir())) == 4 * len(records)
