"""DICOM audit messages as values, and their XML (PS3.15 A.5.1); knows nothing of where they come from or go to."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from ipaddress import ip_address
from xml.etree import ElementTree as Xml

from scp_node.telemetry.escape import escape

MAXIMUM_BYTES = 32768
"""Longest message that every collector has to take (PS3.15 A.6)."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: PS3.16 Annex D, or one of this node's own."""

    value: str
    meaning: str
    scheme: str = "DCM"


APPLICATION_ACTIVITY = Code("110100", "Application Activity")
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
EXPORT = Code("110106", "Export")
SECURITY_ALERT = Code("110113", "Security Alert")
USER_AUTHENTICATION = Code("110114", "User Authentication")
LOGIN = Code("110122", "Login")
LOGOUT = Code("110123", "Logout")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
SECURITY_CONFIGURATION = Code("110129", "Security Configuration")
NETWORK_CONFIGURATION = Code("110128", "Network Configuration")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
DELIVERIES_RESUMED = Code("resume", "Deliveries Resumed", "99SCPNODE")

ROLE_APPLICATION = Code("110150", "Application")
ROLE_LAUNCHER = Code("110151", "Application Launcher")
ROLE_DESTINATION = Code("110152", "Destination Role ID")
ROLE_SOURCE = Code("110153", "Source Role ID")
ROLE_DESTINATION_MEDIA = Code("110154", "Destination Media")
MEDIA_URI = Code("110037", "URI")

STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")


class Action(StrEnum):
    """What was done (EventActionCode)."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """How it went (EventOutcomeIndicator)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A person or process that took part (ActiveParticipant).

    Parameters
    ----------
    user_id
        Of the process or person; for a peer, its address or AE title.
    ae_titles
        Become AlternativeUserID, ``AETITLES=first;second``.
    address
        IP address or host name; empty: not known.
    media
        Of an export to something that is no network node.
    """

    user_id: str
    is_requestor: bool
    roles: tuple[Code, ...] = ()
    ae_titles: tuple[str, ...] = ()
    user_name: str = ""
    address: str = ""
    media: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What it was done to (ParticipantObjectIdentification).

    Parameters
    ----------
    kind, role
        ParticipantObjectTypeCode and ParticipantObjectTypeCodeRole (PS3.15 A.5.1.2).
    name
        Not optional in the schema; a general word, never a person's name.
    instances
        SOP Class UID -> SOP Instance UIDs.
    details
        Implementation-defined pairs; encoded as the schema asks.
    """

    id: str
    id_type: Code
    kind: int
    role: int
    name: str
    instances: tuple[tuple[str, tuple[str, ...]], ...] = ()
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who writes the trail (AuditSourceIdentification)."""

    id: str
    site: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One audit message.

    Parameters
    ----------
    types
        Refine the event (EventTypeCode).
    description
        Why it went as it did; empty: nothing to say.
    """

    event: Code
    action: Action
    at: datetime
    outcome: Outcome
    participants: tuple[Participant, ...]
    subjects: tuple[Subject, ...] = ()
    types: tuple[Code, ...] = ()
    description: str = ""


def to_xml(message: Message, source: Source) -> str:
    """Return the message as one line of XML, valid against the schema of PS3.15 A.5.1 and at most 32768 bytes long.

    Instances are named one by one while there is room; their number is always given.
    """
    text = _render(message, source, with_instances=True)
    if len(text.encode()) > MAXIMUM_BYTES:
        text = _render(message, source, with_instances=False)
    return text


def _render(message: Message, source: Source, *, with_instances: bool) -> str:
    root = Xml.Element("AuditMessage")
    event = _add(
        root,
        "EventIdentification",
        EventActionCode=message.action.value,
        EventDateTime=message.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(message.outcome.value),
    )
    _add_code(event, "EventID", message.event)
    for code in message.types:
        _add_code(event, "EventTypeCode", code)
    if message.description:
        _add(event, "EventOutcomeDescription").text = _safe(message.description)
    for participant in message.participants:
        _add_participant(root, participant)
    optional = {"AuditEnterpriseSiteID": source.site} if source.site else {}
    _add(_add(root, "AuditSourceIdentification", **optional, AuditSourceID=source.id), "AuditSourceTypeCode").set(
        # Application server process, PS3.15 A.5.1.2.1.
        "csd-code",
        "4",
    )
    for subject in message.subjects:
        _add_subject(root, subject, with_instances=with_instances)
    return Xml.tostring(root, encoding="unicode")


def _add_participant(root: Xml.Element, participant: Participant) -> None:
    attributes = {"UserID": participant.user_id}
    if participant.ae_titles:
        attributes["AlternativeUserID"] = "AETITLES=" + ";".join(participant.ae_titles)
    if participant.user_name:
        attributes["UserName"] = participant.user_name
    attributes["UserIsRequestor"] = "true" if participant.is_requestor else "false"
    if participant.address:
        attributes["NetworkAccessPointID"] = participant.address
        # 2: IP address, 1: machine name.
        attributes["NetworkAccessPointTypeCode"] = "2" if _is_ip_address(participant.address) else "1"
    element = _add(root, "ActiveParticipant", **attributes)
    for role in participant.roles:
        _add_code(element, "RoleIDCode", role)
    if participant.media is not None:
        _add_code(_add(element, "MediaIdentifier"), "MediaType", participant.media)


def _add_subject(root: Xml.Element, subject: Subject, *, with_instances: bool) -> None:
    element = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=subject.id,
        ParticipantObjectTypeCode=str(subject.kind),
        ParticipantObjectTypeCodeRole=str(subject.role),
    )
    _add_code(element, "ParticipantObjectIDTypeCode", subject.id_type)
    _add(element, "ParticipantObjectName").text = _safe(subject.name)
    for name, value in subject.details:
        _add(element, "ParticipantObjectDetail", type=name, value=_base64(value))
    if subject.instances:
        description = _add(element, "ParticipantObjectDescription")
        for sop_class_uid, uids in subject.instances:
            sop_class = _add(description, "SOPClass", UID=sop_class_uid, NumberOfInstances=str(len(uids)))
            for uid in uids if with_instances else ():
                _add(sop_class, "Instance", UID=uid)


def _add(parent: Xml.Element, name: str, **attributes: str) -> Xml.Element:
    return Xml.SubElement(parent, name, {key: _safe(value) for key, value in attributes.items()})


def _add_code(parent: Xml.Element, name: str, code: Code) -> None:
    element = _add(parent, name, codeSystemName=code.scheme, originalText=code.meaning)
    element.set("csd-code", code.value)


def _safe(text: str) -> str:
    """No control character, which XML 1.0 forbids and which would break a line, whoever sent it."""
    return escape(text)


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode("ascii")


def _is_ip_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
