"""The way of one radiograph through a whole node, with real clients, real models and real peers."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from config.analysis import AnalysisSettings
from config.destinations import DeliverySettings, DicomDestination, FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.demo.modality import send
from scp_node.demo.pacs import StandInPacs
from scp_node.errors import StartError
from scp_node.jobs.admin import Admin
from scp_node.jobs.node import Node
from scp_node.records import DeliveryState, InstanceState

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

RG1 = Path(get_testdata_file("RG1_UNCR.dcm"))
RG3 = Path(get_testdata_file("RG3_UNCR.dcm"))
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LIMIT_S = 400
"""Loading models takes seconds on an idle machine and minutes on a busy one."""


def _settings(folder, checkpoints, destinations=(), **analysis):
    return NodeSettings(
        receiver={"acse_timeout_s": 30},
        spool=SpoolSettings(folder=folder / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{folder / 'node.sqlite'}"),
        analysis=AnalysisSettings(checkpoints=checkpoints, threads=1, device="cpu", **analysis),
        delivery=DeliverySettings(first_delay_s=0.5, maximum_delay_s=1.0),
        destinations=tuple(destinations),
    )


def _share(folder):
    return FolderDestination(kind="folder", name="share", folder=folder / "share")


class House:
    """A node, a PACS that is there, one that is not there yet, and a share."""

    def __init__(self, folder, checkpoints, late_port):
        self.folder = folder
        self.late_port = late_port
        self.pacs = StandInPacs(folder / "pacs", ae_title="PACS")
        self.pacs.start()

        def to(name, port):
            return DicomDestination(name=name, ae_title=name.upper(), host="127.0.0.1", port=port, timeout_s=60)

        destinations = [to("pacs", self.pacs.port), to("late", self.late_port), _share(folder)]
        self.settings = _settings(folder, checkpoints, destinations)
        self.node = Node(self.settings, receiver_port=0)

    def store(self, file):
        send(file, host="127.0.0.1", port=self.node.port, called_ae_title="SCP_NODE")


@pytest.fixture(scope="module")
def house(tmp_path_factory, random_checkpoints, free_port):
    """One node for several tests: most of a start is spent on loading models."""
    made = House(tmp_path_factory.mktemp("house"), random_checkpoints, free_port())
    with made.node:
        yield made
    made.pacs.stop()


def _copy(source, folder, number):
    dataset = pydicom.dcmread(source)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}"
    file = folder / f"copy-{number}.dcm"
    dataset.save_as(file)
    return file


def _wait(settings, condition, uids=None):
    """Wait until the records of these instances satisfy a condition; return them in the order of ``uids``."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        with Admin(settings) as admin:
            found = {record.sop_instance_uid: record for record in admin.list_instances()}
        records = [found[uid] for uid in uids or found if uid in found]
        if len(records) == len(uids or records) and condition(records):
            return records
        assert time.monotonic() < deadline, [record.as_json() for record in records]
        time.sleep(0.1)


def _final(records):
    return bool(records) and all(record.state.is_final for record in records)


def _settled_but_late(records):
    """Everything is done but the deliveries to the destination that is not there."""
    waiting = {d.destination for r in records for d in r.deliveries if d.state is DeliveryState.WAITING}
    return waiting <= {"late"} and all(r.state.is_final or r.state is InstanceState.DELIVERING for r in records)


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs DCMTK's storescu")
def test_two_pacs_one_down_at_first_and_a_folder_get_every_result_once(house):
    settings, node = house.settings, house.node
    command = ["storescu", "-v", "-aec", "SCP_NODE", "127.0.0.1", str(node.port), str(RG1)]
    sent = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert sent.returncode == 0, sent.stdout + sent.stderr

    source = pydicom.dcmread(RG1, stop_before_pixels=True)
    uid = source.SOPInstanceUID
    (record,) = _wait(settings, _settled_but_late, [uid])
    assert record.state is InstanceState.DELIVERING
    with Admin(settings) as admin:
        results = {result.sop_instance_uid for result in admin.show(uid).results}

    with StandInPacs(house.folder / "late", ae_title="LATE", port=house.late_port) as late:
        (record,) = _wait(settings, _final, [uid])
        assert record.state is InstanceState.DELIVERED
        attempts = {d.destination: d.attempts for d in record.deliveries}
        assert attempts["late"] > 1
        assert attempts["pacs"] == attempts["share"] == 1
        # The same object again: nothing new happens.
        house.store(RG1)
        time.sleep(0.5)
        uids = sorted(item.sop_instance_uid for item in late.objects if item.sop_instance_uid in results)
    assert sorted(item.sop_instance_uid for item in house.pacs.objects if item.sop_instance_uid in results) == uids
    assert len(uids) == len(set(uids)) == 6
    assert {f"{uid}.dcm" for uid in uids} <= {file.name for file in (house.folder / "share").iterdir()}

    for item in house.pacs.objects:
        result = pydicom.dcmread(item.file)
        assert result.StudyInstanceUID == source.StudyInstanceUID
        assert result.PatientID == source.PatientID
    with Admin(settings) as admin:
        detail = admin.show(uid)
    assert [prediction.model for prediction in detail.predictions] == list(settings.analysis.models)
    # Three classes of the measurement report are made; each destination takes one.
    assert len(detail.results) == 8
    assert {c.destination for result in detail.results for c in result.confirmations} == {"pacs", "late", "share"}
    assert detail.window
    assert detail.file.read_bytes()[128:132] == b"DICM"


def test_an_extremity_is_not_eligible_and_a_broken_file_a_dead_letter(house, tmp_path):
    broken = pydicom.dcmread(RG1)
    broken.SOPInstanceUID = broken.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    broken.PixelData = broken.PixelData[:1000]
    broken.save_as(tmp_path / "broken.dcm")
    house.store(RG3)
    house.store(tmp_path / "broken.dcm")
    extremity_uid = pydicom.dcmread(RG3, stop_before_pixels=True).SOPInstanceUID
    extremity, truncated = _wait(house.settings, _final, [extremity_uid, "2.25.77"])
    assert extremity.state is InstanceState.NOT_ELIGIBLE
    assert extremity.reason == "not_chest"
    assert extremity.deliveries == ()
    assert truncated.state is InstanceState.DEAD_LETTER
    assert truncated.reason == "unreadable"
    assert "7FE0,0010" in truncated.detail.upper()


def test_own_results_that_come_back_are_dropped(house, tmp_path):
    """By the registry under their own UIDs, by their equipment under others, as another node's would be."""
    house.store(_copy(RG1, tmp_path, 500))
    _wait(house.settings, _settled_but_late, ["2.25.500"])
    with Admin(house.settings) as admin:
        picture = next(r for r in admin.show("2.25.500").results if r.sop_class_uid == SECONDARY_CAPTURE)
    house.store(picture.file)
    house.store(_copy(picture.file, tmp_path, 501))
    (foreign,) = _wait(house.settings, _final, ["2.25.501"])
    assert foreign.state is InstanceState.NOT_ELIGIBLE
    assert foreign.reason == "own_result"
    with Admin(house.settings) as admin:
        assert picture.sop_instance_uid not in {record.sop_instance_uid for record in admin.list_instances()}


def test_a_killed_child_costs_nothing(house, tmp_path):
    assert house.node.wait_ready(LIMIT_S)
    uids = [f"2.25.{number}" for number in range(600, 604)]
    for number in range(600, 604):
        house.store(_copy(RG1, tmp_path, number))
    # Or over already: whoever looks may be held up.
    _wait(house.settings, lambda records: any(r.state is not InstanceState.RECEIVED for r in records), uids)
    for pid in house.node.child_processes:
        os.kill(pid, signal.SIGKILL)
    records = _wait(house.settings, _settled_but_late, uids)
    assert {record.state for record in records} == {InstanceState.DELIVERING}


def test_there_is_one_node_in_a_process(house):
    with pytest.raises(StartError, match="already"):
        Node(house.settings, receiver_port=0).start()
