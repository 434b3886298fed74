"""Every kind of message is valid against the schema, and says what it is about."""

from datetime import UTC, datetime

import pytest
from lxml import etree

from scp_node.audit.building import Node, Objects, Peer
from scp_node.audit.messages import MAXIMUM_BYTES, Action, Outcome, Source, to_xml
from scp_node.records import Person
from scp_node.security.events import EventKind, SecurityEvent

NODE = Node(ae_title="SCP_NODE")
AT = datetime(2026, 11, 23, 18, 0, 0, 123456, tzinfo=UTC)
SOURCE = Source(id="SCP_NODE@host", site="General Hospital")
DX = "1.2.840.10008.5.1.4.1.1.1.1"
OBJECTS = Objects(study_instance_uid="1.2.3", instances=((DX, ("1.2.3.4", "1.2.3.5")),))
PEER = Peer(ae_title="PACS", address="192.0.2.10")
ANNA = Person(name="anna", address="192.0.2.44")


def event(kind=EventKind.ASSOCIATION_REJECTED, **values):
    return SecurityEvent(kind=kind, occurred_at=AT, **{"reason": "calling_ae_title", "address": "192.0.2.66", **values})


MESSAGES = {
    "start": NODE.activity(AT, is_start=True, user="scp-node"),
    "stop": NODE.activity(AT, is_start=False, user="scp-node"),
    "received": NODE.transfer(AT, OBJECTS, peer=PEER, is_received=True),
    "delivered": NODE.transfer(AT, OBJECTS, peer=PEER, is_received=False, outcome=Outcome.SERIOUS_FAILURE),
    "analysed": NODE.access(AT, OBJECTS, action=Action.READ, details=[("model", "resnet18 1.0.0")]),
    "removed": NODE.access(AT, OBJECTS, action=Action.DELETE, user=Person(name="root"), what="purged"),
    "exported": NODE.export(AT, OBJECTS, to="/srv/share", user=ANNA),
    "stored by STOW-RS": NODE.transfer(AT, OBJECTS, peer=PEER, is_received=True, user=ANNA),
    "logged in": NODE.authentication(AT, ANNA, is_login=True),
    "not logged in": NODE.authentication(
        AT, ANNA, is_login=True, outcome=Outcome.MINOR_FAILURE, description="refused: wrong name or password"
    ),
    "logged out": NODE.authentication(AT, ANNA, is_login=False),
    "not allowed": NODE.restricted(AT, ANNA, description="retry: refused: needs the role operator"),
    "resumed": NODE.resumed(AT, Person(name="root"), description="deliveries to pacs are attempted again"),
    **{kind.value: NODE.alert(event(kind)) for kind in EventKind},
}


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_is_valid(name, faults_of):
    assert faults_of(to_xml(MESSAGES[name], SOURCE)) == []


def test_the_schema_refuses_what_the_standard_refuses(faults_of):
    text = to_xml(MESSAGES["received"], SOURCE)
    for wrong in (
        text.replace('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="1"'),
        text.replace('csd-code="110104" ', ""),
        text.replace("UserIsRequestor", "IsRequestor"),
        text.replace('UID="1.2.3.4"', 'UID="../etc"'),
    ):
        assert wrong != text
        assert faults_of(wrong)


def test_a_transfer_names_both_sides_study_and_classes():
    root = etree.fromstring(to_xml(MESSAGES["received"], SOURCE))
    assert root.find("EventIdentification/EventID").get("csd-code") == "110104"
    assert root.find("EventIdentification").get("EventDateTime") == "2026-11-23T18:00:00.123+00:00"
    source, destination = root.findall("ActiveParticipant")
    assert source.get("AlternativeUserID") == "AETITLES=PACS"
    assert source.get("NetworkAccessPointID") == "192.0.2.10"
    assert source.get("NetworkAccessPointTypeCode") == "2"
    assert (source.get("UserIsRequestor"), destination.get("UserIsRequestor")) == ("true", "false")
    assert [p.find("RoleIDCode").get("csd-code") for p in (source, destination)] == ["110153", "110152"]
    study, patient = root.findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == "1.2.3"
    assert study.find("ParticipantObjectDescription/SOPClass").attrib == {"UID": DX, "NumberOfInstances": "2"}
    assert patient.get("ParticipantObjectID") == "withheld"
    assert root.find("AuditSourceIdentification").get("AuditEnterpriseSiteID") == "General Hospital"


def test_an_unknown_caller_is_a_security_alert_of_node_authentication():
    root = etree.fromstring(to_xml(MESSAGES["association_rejected"], SOURCE))
    assert root.find("EventIdentification/EventID").get("csd-code") == "110113"
    assert root.find("EventIdentification/EventTypeCode").get("csd-code") == "110126"
    assert root.find("EventIdentification").get("EventOutcomeIndicator") == "8"


@pytest.mark.parametrize(
    ("name", "kind", "outcome"),
    [("logged in", "110122", "0"), ("not logged in", "110122", "4"), ("logged out", "110123", "0")],
)
def test_a_log_in_names_person_address_and_outcome(name, kind, outcome):
    root = etree.fromstring(to_xml(MESSAGES[name], SOURCE))
    assert root.find("EventIdentification/EventID").get("csd-code") == "110114"
    assert root.find("EventIdentification/EventTypeCode").get("csd-code") == kind
    assert root.find("EventIdentification").get("EventOutcomeIndicator") == outcome
    person, node = root.findall("ActiveParticipant")
    assert (person.get("UserID"), person.get("UserIsRequestor")) == ("anna", "true")
    assert (person.get("NetworkAccessPointID"), person.get("NetworkAccessPointTypeCode")) == ("192.0.2.44", "2")
    assert node.get("UserIsRequestor") == "false"
    assert root.findall("ParticipantObjectIdentification") == []


def test_who_acts_at_this_machine_is_at_this_machine():
    root = etree.fromstring(to_xml(MESSAGES["removed"], SOURCE))
    person = root.findall("ActiveParticipant")[1]
    assert (person.get("UserID"), person.get("NetworkAccessPointID")) == ("root", NODE.host)


def test_what_a_peer_calls_itself_can_break_neither_the_xml_nor_the_line(faults_of):
    hostile = 'A\r\n</AuditMessage>\x00\x1b[2J"&\ud800'
    text = to_xml(NODE.alert(event(calling_ae_title=hostile, subject=hostile)), SOURCE)
    assert faults_of(text) == []
    assert text.isprintable()


def test_a_message_stays_below_the_limit_of_collectors(faults_of):
    uids = tuple(f"1.2.840.99999.{number}" for number in range(1000))
    objects = Objects(study_instance_uid="1.2.3", instances=((DX, uids),))
    text = to_xml(NODE.transfer(AT, objects, peer=PEER, is_received=False), SOURCE)
    assert len(text.encode()) <= MAXIMUM_BYTES
    assert 'NumberOfInstances="1000"' in text
    assert faults_of(text) == []


def test_a_patient_is_named_only_when_it_is_given():
    objects = Objects(study_instance_uid="1.2.3", instances=OBJECTS.instances, patient_id="P-1")
    assert 'ParticipantObjectID="P-1"' in to_xml(NODE.transfer(AT, objects, peer=PEER, is_received=True), SOURCE)
