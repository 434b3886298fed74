"""From a complete object to its answer, whatever goes wrong."""

import errno
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from config.base import Priority
from config.storage import SpoolSettings
from scp_node.errors import SpoolFullError
from scp_node.records import Intake, ReceivedInstance
from scp_node.scp.callers import Peer
from scp_node.scp.handlers import AcceptedContext, Handlers, Reception
from scp_node.scp.messages import Command, CommandField
from scp_node.scp.part10 import Implementation
from scp_node.scp.statuses import SUCCESS, Status
from scp_node.spool.incoming import IncomingFile
from scp_node.spool.store import Spool

CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
IMPLICIT = "1.2.840.10008.1.2"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PEER = Peer(calling_ae_title="SCU", called_ae_title="NODE", address="127.0.0.1", priority=Priority.STAT)
CONTEXT = AcceptedContext(abstract_syntax_uid=CR, transfer_syntax_uid=IMPLICIT)


def encoded(sop_class: str = CR, instance: str = "1.2.3") -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientName = sop_class, instance, "Secret^Name"
    buffer = DicomBytesIO()
    buffer.is_little_endian = buffer.is_implicit_VR = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def store_request(sop_class: str = CR, instance: str = "1.2.3", has_data_set: bool = True) -> Command:
    return Command(
        field=CommandField.C_STORE_RQ,
        message_id=1,
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        has_data_set=has_data_set,
    )


def urgent(value: str) -> bytes:
    """A Data Set whose order has this priority."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Rows = CR, "1.2.3", 4
    dataset.RequestedProcedurePriority = value
    dataset.DocumentTitle = "behind it"
    buffer = DicomBytesIO()
    buffer.is_little_endian = buffer.is_implicit_VR = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


class Accept:
    """Takes what the handler hands over, as the intake does."""

    def __init__(self, spool: Spool, error: Exception | None = None) -> None:
        self.spool = spool
        self.error = error
        self.instances: list[ReceivedInstance] = []
        self.names: list[str] = []

    def __call__(self, instance: ReceivedInstance) -> Intake:
        self.instances.append(instance)
        if self.error is not None:
            raise self.error
        self.names.append(self.spool.adopt(instance.file, instance.sha256))
        return Intake.FILED


@pytest.fixture
def handlers(spool: Spool) -> Callable[[Accept], Handlers]:
    def make(accept: Accept) -> Handlers:
        return Handlers(
            spool=spool,
            accept=accept,
            implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
            maximum_object_bytes=1000,
            now=lambda: NOW,
        )

    return make


def test_a_complete_object_is_handed_over_with_all_that_is_known(
    spool: Spool, handlers: Callable[[Accept], Handlers]
) -> None:
    accept = Accept(spool)
    desk = handlers(accept)
    content = encoded()
    reception = desk.begin_c_store(store_request(), CONTEXT, PEER)
    reception.write(memoryview(content[:11]))
    reception.write(memoryview(content[11:]))
    assert desk.on_c_store(reception) == SUCCESS
    (instance,) = accept.instances
    assert instance.file.parent == spool.incoming
    assert (instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid) == (CR, "1.2.3", IMPLICIT)
    assert (instance.sha256, instance.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (instance.calling_ae_title, instance.called_ae_title) == ("SCU", "NODE")
    assert (instance.peer_address, instance.priority, instance.received_at) == ("127.0.0.1", Priority.STAT, NOW)
    assert spool.path(accept.names[0]).read_bytes().endswith(content)
    assert list(spool.incoming.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "content", "status"),
    [
        (store_request(instance=""), encoded(), Status.INVALID_SOP_INSTANCE),
        (store_request(instance="../../x"), encoded(), Status.INVALID_SOP_INSTANCE),
        (store_request(sop_class=DX), encoded(), Status.SOP_CLASS_NOT_SUPPORTED),
        (store_request(sop_class=""), encoded(), Status.SOP_CLASS_NOT_SUPPORTED),
        (store_request(has_data_set=False), b"", Status.STORE_CANNOT_UNDERSTAND),
        (store_request(), b"", Status.STORE_CANNOT_UNDERSTAND),
        (store_request(), encoded() + bytes(1000), Status.STORE_CANNOT_UNDERSTAND),
        (store_request(), encoded(sop_class=DX), Status.STORE_DATA_SET_MISMATCH),
        (store_request(), encoded(instance="1.2.4"), Status.STORE_DATA_SET_MISMATCH),
        (store_request(), bytes(100), Status.STORE_DATA_SET_MISMATCH),
    ],
)
def test_objects_that_are_wrong_are_refused_and_not_kept(
    spool: Spool, handlers: Callable[[Accept], Handlers], command: Command, content: bytes, status: Status
) -> None:
    accept = Accept(spool)
    desk = handlers(accept)
    reception = desk.begin_c_store(command, CONTEXT, PEER)
    for start in range(0, len(content), 64):
        reception.write(memoryview(content[start : start + 64]))
    answer = desk.on_c_store(reception)
    assert answer.status is status
    assert 0 < len(answer.comment) <= 64
    assert accept.instances == []
    assert list(spool.incoming.iterdir()) == []


@pytest.mark.parametrize("error", [SpoolFullError("full"), OSError(errno.EIO, "broken"), KeyError("defect")])
def test_what_is_not_the_senders_fault_asks_for_another_try(
    spool: Spool, handlers: Callable[[Accept], Handlers], error: Exception
) -> None:
    accept = Accept(spool, error)
    desk = handlers(accept)
    reception = desk.begin_c_store(store_request(), CONTEXT, PEER)
    reception.write(encoded())
    assert desk.on_c_store(reception).status is Status.STORE_OUT_OF_RESOURCES
    assert list(spool.incoming.iterdir()) == []


def test_a_disk_that_fills_up_while_receiving_does_not_stop_the_reading(
    spool: Spool, handlers: Callable[[Accept], Handlers], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Accept(spool)
    desk = handlers(accept)
    reception = desk.begin_c_store(store_request(), CONTEXT, PEER)

    def full(self: IncomingFile, content: bytes) -> None:
        raise SpoolFullError("full")

    monkeypatch.setattr(IncomingFile, "write", full)
    reception.write(b"abc")
    reception.write(b"def")
    assert list(spool.incoming.iterdir()) == []
    assert desk.on_c_store(reception).status is Status.STORE_OUT_OF_RESOURCES
    assert accept.instances == []


def test_a_short_disk_is_known_before_the_data_set(tmp_path: Path) -> None:
    spool = Spool(SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=2**60, retention_days=1))
    spool.create()
    desk = Handlers(
        spool=spool,
        accept=Accept(spool),
        implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
        maximum_object_bytes=1000,
    )
    reception: Reception = desk.begin_c_store(store_request(), CONTEXT, PEER)
    reception.write(encoded())
    assert desk.on_c_store(reception).status is Status.STORE_OUT_OF_RESOURCES
    assert list(spool.incoming.iterdir()) == []


def test_an_echo_is_always_answered(spool: Spool, handlers: Callable[[Accept], Handlers]) -> None:
    assert handlers(Accept(spool)).on_c_echo(PEER) == SUCCESS


def test_logs_hold_no_patient_data(spool: Spool, handlers: Callable[[Accept], Handlers]) -> None:
    desk = handlers(Accept(spool))
    with structlog.testing.capture_logs() as entries:
        for instance in ("1.2.3", "1.2.4"):
            reception = desk.begin_c_store(store_request(instance=instance), CONTEXT, PEER)
            reception.write(encoded())
            desk.on_c_store(reception)
    assert [entry["event"] for entry in entries] == ["instance stored", "instance refused"]
    assert "Secret" not in str(entries)


@pytest.mark.parametrize(
    ("content", "in_command", "allowed", "priority"),
    [
        (urgent("STAT"), False, True, Priority.STAT),
        (urgent("HIGH"), False, True, Priority.STAT),
        (urgent("ROUTINE"), False, True, Priority.ROUTINE),
        (encoded(), False, True, Priority.ROUTINE),
        (encoded(), True, True, Priority.STAT),
        (urgent("STAT"), True, False, Priority.ROUTINE),
        (encoded() + b"\xff\xfe\x00\xe0garbage", False, True, Priority.ROUTINE),
    ],
)
def test_request_and_order_may_call_an_instance_urgent(
    spool: Spool, content: bytes, in_command: bool, allowed: bool, priority: Priority
) -> None:
    accept = Accept(spool)
    desk = Handlers(
        spool=spool,
        accept=accept,
        implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
        maximum_object_bytes=1000,
        urgent_on_request=allowed,
    )
    peer = replace(PEER, priority=Priority.ROUTINE)
    reception = desk.begin_c_store(replace(store_request(), is_urgent=in_command), CONTEXT, peer)
    reception.write(content)
    assert desk.on_c_store(reception) == SUCCESS
    assert accept.instances[0].priority is priority
