"""The audit trail of a whole node: what came in, where it went, who was turned away, who did what."""

import sqlite3
import time
from pathlib import Path

import pydicom
import pytest
from lxml import etree
from pydicom.data import get_testdata_file
from pynetdicom import AE

from config.analysis import AnalysisSettings
from config.audit import AuditSettings
from config.destinations import DicomDestination, FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.audit.auditor import open_trail
from scp_node.demo.modality import send
from scp_node.demo.pacs import StandInPacs
from scp_node.errors import StartError
from scp_node.jobs.admin import Admin
from scp_node.jobs.node import Node

pytestmark = pytest.mark.integration

RG1 = Path(get_testdata_file("RG1_UNCR.dcm"))
LIMIT_S = 180
SCHEMA = Path(__file__).parents[1] / "unit" / "audit" / "audit_message.rng"


def make_settings(folder, checkpoints, destinations, **audit):
    return NodeSettings(
        receiver={"acse_timeout_s": 30},
        spool=SpoolSettings(folder=folder / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{folder / 'node.sqlite'}"),
        analysis=AnalysisSettings(checkpoints=checkpoints, processes=1, threads=1, device="cpu", models=("resnet18",)),
        destinations=destinations,
        audit=AuditSettings(**audit),
    )


class Audited:
    """One message as a collector reads it."""

    def __init__(self, text):
        self.text = text
        self.root = etree.fromstring(text)
        event = self.root.find("EventIdentification")
        self.event = event.find("EventID").get("csd-code")
        self.types = [code.get("csd-code") for code in event.findall("EventTypeCode")]
        self.action = event.get("EventActionCode")
        self.outcome = event.get("EventOutcomeIndicator")
        self.description = event.findtext("EventOutcomeDescription") or ""
        self.roles = {
            role.get("csd-code"): participant.get("UserID")
            for participant in self.root.findall("ActiveParticipant")
            for role in participant.findall("RoleIDCode")
        }
        self.users = [participant.get("UserID") for participant in self.root.findall("ActiveParticipant")]
        self.subjects = [one.get("ParticipantObjectID") for one in self.root.findall("ParticipantObjectIdentification")]


def read(settings):
    return [Audited(entry.message) for entry in open_trail(settings).entries()]


def wait_for(settings, condition):
    deadline = time.monotonic() + LIMIT_S
    while True:
        found = [message for message in read(settings) if condition(message)]
        if found:
            return found
        assert time.monotonic() < deadline, [message.text for message in read(settings)]
        time.sleep(0.1)


def test_one_study_in_and_out_a_stranger_and_an_operator(tmp_path, random_checkpoints):
    source = pydicom.dcmread(RG1, stop_before_pixels=True)
    with StandInPacs(tmp_path / "pacs", ae_title="PACS") as pacs:
        settings = make_settings(
            tmp_path,
            random_checkpoints,
            (
                DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs.port),
                FolderDestination(kind="folder", name="share", folder=tmp_path / "share"),
            ),
        )
        with Node(settings, receiver_port=0) as node:
            send(RG1, host="127.0.0.1", port=node.port, called_ae_title="SCP_NODE")
            stranger = AE("STRANGER")
            stranger.add_requested_context("1.2.840.10008.1.1")
            assert stranger.associate("127.0.0.1", node.port, ae_title="SOMEBODY").is_rejected
            (delivered,) = wait_for(settings, lambda m: m.event == "110104" and m.roles.get("110152") == "PACS")
            (exported,) = wait_for(settings, lambda m: m.event == "110106")
            # The same again.
            send(RG1, host="127.0.0.1", port=node.port, called_ae_title="SCP_NODE")
            with Admin(settings) as admin:
                admin.resend(source.SOPInstanceUID, "pacs")
            wait_for(settings, lambda m: m.action == "R" and "again" in m.description)
            (resent,) = wait_for(settings, lambda m: "sent again by an operator" in m.description)

    messages = read(settings)
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    for message in messages:
        assert schema.validate(message.root), (message.text, schema.error_log)
    assert list(open_trail(settings).faults()) == []

    assert (messages[0].event, messages[0].types) == ("110100", ["110120"])
    assert (messages[-1].event, messages[-1].types) == ("110100", ["110121"])
    received = [m for m in messages if m.event == "110104" and "110153" in m.roles and m.action == "C"]
    assert received[0].subjects == [source.StudyInstanceUID, "withheld"]
    assert received[0].outcome == "0"
    assert source.SOPInstanceUID in received[0].text

    assert delivered.subjects[0] == source.StudyInstanceUID
    sent = {item.sop_instance_uid for item in pacs.objects}
    named = {one.get("UID") for one in delivered.root.iter("Instance")}
    assert named
    assert named <= sent
    assert exported.roles["110154"] == str(tmp_path / "share")
    (analysed,) = (m for m in messages if m.event == "110103" and m.description == "analysed")
    assert analysed.subjects[0] == source.StudyInstanceUID
    assert "ParticipantObjectDetail" in analysed.text

    (alert,) = (m for m in messages if m.event == "110113")
    assert alert.types == ["110126"]
    assert alert.outcome == "8"
    assert "STRANGER" in alert.users
    assert resent.event == "110103"
    assert resent.subjects[0] == source.StudyInstanceUID
    for message in messages:
        assert source.PatientID not in message.text
        assert str(source.PatientName) not in message.text


def test_patients_are_named_when_the_site_asks_for_it(tmp_path, random_checkpoints):
    dataset = pydicom.dcmread(RG1)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = "환자-4711"
    dataset.save_as(tmp_path / "named.dcm")
    settings = make_settings(tmp_path, random_checkpoints, (), patient_ids=True)
    with Node(settings, receiver_port=0) as node:
        send(tmp_path / "named.dcm", host="127.0.0.1", port=node.port, called_ae_title="SCP_NODE")
        (received, *_) = wait_for(settings, lambda m: m.event == "110104")
    assert received.subjects == [dataset.StudyInstanceUID, "환자-4711"]


def test_what_happened_while_no_trail_could_be_written_is_told_later_and_once(tmp_path, random_checkpoints):
    """The trace remembers: a node without a trail, then one with it, then a crash between trail and mark."""
    settings = make_settings(tmp_path, random_checkpoints, (), enabled=False)
    with Node(settings, receiver_port=0) as node:
        send(RG1, host="127.0.0.1", port=node.port, called_ae_title="SCP_NODE")
    assert not settings.audit_file.exists()
    settings = make_settings(tmp_path, random_checkpoints, ())
    with Node(settings, receiver_port=0):
        wait_for(settings, lambda m: m.event == "110104")

    with sqlite3.connect(tmp_path / "node.sqlite") as connection:
        connection.execute("UPDATE trace SET is_audited = FALSE")
    connection.close()
    with Node(settings, receiver_port=0):
        pass
    told = [message for message in read(settings) if message.event == "110104"]
    assert len(told) == 1
    assert list(open_trail(settings).faults()) == []


def test_a_node_that_cannot_write_its_trail_does_not_start(tmp_path, random_checkpoints):

    (tmp_path / "audit").write_text("a file where the folder should be", encoding="ascii")
    settings = make_settings(tmp_path, random_checkpoints, ())
    with pytest.raises(StartError, match="audit"):
        Node(settings, receiver_port=0).start()
