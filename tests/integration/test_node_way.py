"""The way of one radiograph through a whole node, with real clients, real models and real peers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from config.settings import (
    AnalysisSettings,
    DatabaseSettings,
    DeliverySettings,
    DicomDestination,
    FolderDestination,
    NodeSettings,
    SpoolSettings,
)
from scp_node.demo.modality import send
from scp_node.demo.pacs import StandInPacs
from scp_node.jobs.admin import Admin
from scp_node.jobs.node import Node
from scp_node.records import DeliveryState, InstanceState

pytestmark = pytest.mark.integration

RG1 = Path(get_testdata_file("RG1_UNCR.dcm"))
RG3 = Path(get_testdata_file("RG3_UNCR.dcm"))
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LIMIT_S = 60


@pytest.fixture
def settings_of(tmp_path, random_checkpoints):
    """Makes settings of a node that lives in this test's folder."""

    def make(destinations=(), **analysis):
        return NodeSettings(
            spool=SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0),
            database=DatabaseSettings(url=f"sqlite:///{tmp_path / 'node.sqlite'}"),
            analysis=AnalysisSettings(checkpoints=random_checkpoints, threads=1, device="cpu", **analysis),
            delivery=DeliverySettings(first_delay_s=0.5, maximum_delay_s=1.0),
            destinations=tuple(destinations),
        )

    return make


def _dicom(name, port, **options):
    return DicomDestination(name=name, ae_title=name.upper(), host="127.0.0.1", port=port, timeout_s=5, **options)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _store(node, file):
    send(file, host="127.0.0.1", port=node.port, called_ae_title="SCP_NODE")


def _copy(source, folder, number):
    dataset = pydicom.dcmread(source)
    dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = folder / f"copy-{number}.dcm"
    dataset.save_as(file)
    return file


def _wait(settings, condition):
    """Wait until the records of all instances satisfy a condition; return them."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        with Admin(settings) as admin:
            records = list(admin.list_instances())
        if condition(records):
            return records
        assert time.monotonic() < deadline, [record.as_json() for record in records]
        time.sleep(0.1)


def _all_final(count):
    return lambda records: len(records) == count and all(record.state.is_final for record in records)


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs DCMTK's storescu")
def test_two_pacs_one_down_at_first_and_a_folder_get_every_result_once(tmp_path, settings_of):
    late_port = _free_port()
    with StandInPacs(tmp_path / "pacs", ae_title="PACS") as pacs:
        settings = settings_of(
            [
                _dicom("pacs", pacs.port),
                _dicom("late", late_port),
                FolderDestination(kind="folder", name="share", folder=tmp_path / "share"),
            ]
        )
        with Node(settings, receiver_port=0) as node:
            command = ["storescu", "-v", "-aec", "SCP_NODE", "127.0.0.1", str(node.port), str(RG1)]
            sent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert sent.returncode == 0, sent.stdout + sent.stderr

            (record,) = _wait(
                settings,
                lambda records: [d.state for r in records for d in r.deliveries].count(DeliveryState.DELIVERED) == 2,
            )
            assert record.state is InstanceState.DELIVERING
            waiting = {d.destination: d for d in record.deliveries}["late"]
            assert waiting.state is DeliveryState.WAITING

            with StandInPacs(tmp_path / "late", ae_title="LATE", port=late_port) as late:
                (record,) = _wait(settings, _all_final(1))
                assert record.state is InstanceState.DELIVERED
                assert {d.destination: d.attempts > 1 for d in record.deliveries} == {
                    "late": True,
                    "pacs": False,
                    "share": False,
                }
                # The same object again: nothing new happens.
                _store(node, RG1)
                time.sleep(0.5)
                uids = sorted(item.sop_instance_uid for item in late.objects)
        assert sorted(item.sop_instance_uid for item in pacs.objects) == uids

    assert len(uids) == len(set(uids)) == 6
    assert sorted(file.stem for file in (tmp_path / "share").iterdir()) == uids
    source = pydicom.dcmread(RG1, stop_before_pixels=True)
    for item in pacs.objects:
        result = pydicom.dcmread(item.file)
        assert result.StudyInstanceUID == source.StudyInstanceUID
        assert result.PatientID == source.PatientID
    with Admin(settings) as admin:
        detail = admin.show(record.sop_instance_uid)
    assert [prediction.model for prediction in detail.predictions] == list(settings.analysis.models)
    assert len(detail.results) == 8
    assert {c.destination for result in detail.results for c in result.confirmations} == {"pacs", "late", "share"}
    assert detail.window
    assert detail.file.read_bytes()[128:132] == b"DICM"


def test_an_extremity_is_not_eligible_and_a_broken_file_a_dead_letter(tmp_path, settings_of):
    settings = settings_of()
    broken = pydicom.dcmread(RG1)
    broken.SOPInstanceUID = broken.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    broken.PixelData = broken.PixelData[:1000]
    broken.save_as(tmp_path / "broken.dcm")
    with Node(settings, receiver_port=0) as node:
        _store(node, RG3)
        _store(node, tmp_path / "broken.dcm")
        _store(node, RG1)
        extremity, truncated, chest = _wait(settings, _all_final(3))
    assert extremity.state is InstanceState.NOT_ELIGIBLE
    assert extremity.reason == "not_chest"
    assert truncated.state is InstanceState.DEAD_LETTER
    assert truncated.reason == "unreadable"
    assert "7FE0,0010" in truncated.detail.upper()
    # No destination is configured: analysed is delivered.
    assert chest.state is InstanceState.DELIVERED


def test_own_results_that_come_back_are_dropped(tmp_path, settings_of):
    """By the registry under their own UIDs, by their equipment under others, as another node's would be."""
    share = tmp_path / "share"
    settings = settings_of([FolderDestination(kind="folder", name="share", folder=share)])
    with Node(settings, receiver_port=0) as node:
        _store(node, RG1)
        _wait(settings, _all_final(1))
        picture = next(f for f in sorted(share.iterdir()) if pydicom.dcmread(f).SOPClassUID == SECONDARY_CAPTURE)
        _store(node, picture)
        time.sleep(0.3)
        _wait(settings, lambda records: len(records) == 1)
        renamed = _copy(picture, tmp_path, 1)
        _store(node, renamed)
        _, foreign = _wait(settings, _all_final(2))
    assert foreign.state is InstanceState.NOT_ELIGIBLE
    assert foreign.reason == "own_result"


def test_a_killed_child_costs_nothing(tmp_path, settings_of):
    settings = settings_of(processes=1)
    with Node(settings, receiver_port=0) as node:
        assert node.wait_ready(LIMIT_S)
        for number in range(4):
            _store(node, _copy(RG1, tmp_path, number))
        _wait(settings, lambda records: any(record.state is InstanceState.ANALYSING for record in records))
        for pid in node.child_processes:
            os.kill(pid, signal.SIGKILL)
        records = _wait(settings, _all_final(4))
    assert {record.state for record in records} == {InstanceState.DELIVERED}


def test_a_second_node_finishes_what_the_first_left(tmp_path, settings_of):
    """Stopped with work in hand; the next node starts on the same folder and takes it up without a person."""
    settings = settings_of([FolderDestination(kind="folder", name="share", folder=tmp_path / "share")])
    with Node(settings, receiver_port=0) as node:
        for number in range(3):
            _store(node, _copy(RG1, tmp_path, number))
        node.stop(0.1)
    with Admin(settings) as admin:
        assert not all(record.state.is_final for record in admin.list_instances())
    with Node(settings, receiver_port=0):
        records = _wait(settings, _all_final(3))
    assert {record.state for record in records} == {InstanceState.DELIVERED}
    assert len(list((tmp_path / "share").iterdir())) == 18


def test_a_node_killed_in_the_middle_is_taken_over_by_the_next(tmp_path, settings_of):
    settings = settings_of([FolderDestination(kind="folder", name="share", folder=tmp_path / "share")])
    file = tmp_path / "settings.json"
    file.write_text(settings.model_dump_json())
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from config.settings import NodeSettings\n"
        "from scp_node.jobs.node import Node\n"
        "node = Node(NodeSettings.model_validate_json(Path(sys.argv[1]).read_text()), receiver_port=0)\n"
        "node.start()\n"
        "Path(sys.argv[2]).write_text(str(node.port))\n"
        "time.sleep(600)\n"
    )
    port = tmp_path / "port"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(file), str(port)],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + LIMIT_S
        while not port.exists() or not port.read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for number in range(3):
            send(
                _copy(RG1, tmp_path, number),
                host="127.0.0.1",
                port=int(port.read_text()),
                called_ae_title="SCP_NODE",
            )
        _wait(settings, lambda records: any(record.state is InstanceState.ANALYSING for record in records))
    finally:
        process.kill()
        process.wait()
    with Node(settings, receiver_port=0):
        records = _wait(settings, _all_final(3))
    assert {record.state for record in records} == {InstanceState.DELIVERED}
    assert len(list((tmp_path / "share").iterdir())) == 18
