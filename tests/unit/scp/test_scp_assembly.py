"""Commands and fragments: what is understood, and what ends an association."""

import struct
from datetime import UTC, datetime
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode

from config.base import Priority
from scp_node.records import Intake
from scp_node.scp.assembly import Assembler, Fragment, Request, split_fragments, take_apart
from scp_node.scp.callers import Peer
from scp_node.scp.handlers import AcceptedContext, Handlers, Reception
from scp_node.scp.messages import (
    MAXIMUM_COMMAND_BYTES,
    Command,
    CommandError,
    CommandField,
    encode_response,
    parse_command,
)
from scp_node.scp.part10 import Implementation
from scp_node.spool.store import Spool

CR = "1.2.840.10008.5.1.4.1.1.1"
COMMAND, DATA, LAST = 1, 0, 2


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def command(field: int = 1, message_id: int | None = 7, data_set_type: int = 0, **extra: bytes) -> bytes:
    content = element(0x00000002, extra.get("sop_class", CR.encode() + b"\0"))
    content += element(0x00000100, struct.pack("<H", field))
    if message_id is not None:
        content += element(0x00000110, struct.pack("<H", message_id))
    content += element(0x00000700, b"\0\0") + element(0x00000800, struct.pack("<H", data_set_type))
    return content + element(0x00001000, extra.get("instance", b"1.2.3\0"))


def test_a_store_request_is_read() -> None:
    assert parse_command(command()) == Command(
        field=CommandField.C_STORE_RQ, message_id=7, sop_class_uid=CR, sop_instance_uid="1.2.3", has_data_set=True
    )


def test_a_high_priority_is_read() -> None:
    """PS3.7 9.3.1.1: 0001H is HIGH; MEDIUM is 0000H and LOW is 0002H."""
    low = command()
    assert not parse_command(low).is_urgent
    before, after = element(0x00000700, b"\0\0"), element(0x00000700, b"\1\0")
    assert parse_command(low.replace(before, after)).is_urgent
    assert not parse_command(low.replace(before, element(0x00000700, b"\2\0"))).is_urgent


def test_an_echo_request_is_read() -> None:
    read = parse_command(command(field=0x30, data_set_type=0x0101, instance=b""))
    assert (read.field, read.has_data_set, read.sop_instance_uid) == (CommandField.C_ECHO_RQ, False, "")


def test_an_event_report_is_read() -> None:
    read = parse_command(command(field=0x0100) + element(0x00001002, b"\2\0"))
    assert (read.field, read.event_type_id, read.has_data_set) == (CommandField.N_EVENT_REPORT_RQ, 2, True)
    assert parse_command(command(field=0x0100)).event_type_id == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        command()[:20],
        command(message_id=None),
        command(field=0x0020),  # C-FIND-RQ
        command(field=0x8001),  # C-STORE-RSP
        command(field=0x0130),  # N-ACTION-RQ
        command(field=0x8100),  # N-EVENT-REPORT-RSP
        command(field=0x30),  # C-ECHO-RQ that announces a Data Set
        struct.pack("<HHL", 0xFFFE, 0xE000, 0),
    ],
)
def test_what_is_no_request_for_us_ends_the_association(content: bytes) -> None:
    with pytest.raises(CommandError):
        parse_command(content)


@given(st.binary(max_size=300))
def test_random_commands_raise_our_own_error_only(content: bytes) -> None:
    with pytest.raises(CommandError):
        parse_command(content)


def answer_to(status: int = 0, comment: str = "", **request: object) -> dict[str, object]:
    """What a library reads in our answer."""
    values = {"field": 1, "message_id": 7, "sop_class_uid": CR, "sop_instance_uid": "1.2.345", "has_data_set": True}
    content = encode_response(Command(**values | request), status, comment)  # type: ignore[arg-type] # a test's own
    found = {element.keyword: element.value for element in decode(BytesIO(content), True, True)}
    assert found.pop("CommandGroupLength") == len(content) - 12
    assert found.pop("CommandDataSetType") == 0x0101
    return found


def test_a_store_is_answered_with_its_uids() -> None:
    expected = {"CommandField": 0x8001, "MessageIDBeingRespondedTo": 7, "Status": 0}
    uids = {"AffectedSOPClassUID": CR, "AffectedSOPInstanceUID": "1.2.345"}
    assert answer_to() == expected | uids
    assert answer_to(0xA700, "no space left") == expected | uids | {"Status": 0xA700, "ErrorComment": "no space left"}


def test_an_echo_and_an_event_report_are_answered_with_theirs() -> None:
    expected = {"MessageIDBeingRespondedTo": 7, "Status": 0, "AffectedSOPClassUID": CR}
    assert answer_to(field=CommandField.C_ECHO_RQ) == expected | {"CommandField": 0x8030}
    report = expected | {"CommandField": 0x8100, "EventTypeID": 2, "AffectedSOPInstanceUID": "1.2.345"}
    assert answer_to(field=CommandField.N_EVENT_REPORT_RQ, event_type_id=2) == report


def test_what_is_no_uid_is_not_sent_back() -> None:
    assert answer_to(sop_class_uid="", sop_instance_uid="../x").keys() == {
        "CommandField",
        "MessageIDBeingRespondedTo",
        "Status",
    }


def pdv(context_id: int, control: int, content: bytes) -> bytes:
    return struct.pack(">LBB", len(content) + 2, context_id, control) + content


def test_fragments_are_split_without_copies() -> None:
    body = memoryview(bytearray(pdv(1, 3, b"abc") + pdv(3, 0, b"")))
    fragments = split_fragments(body)
    assert [(*fragment[:2], bytes(fragment.content)) for fragment in fragments] == [(1, 3, b"abc"), (3, 0, b"")]
    assert fragments[0].content.obj is body.obj


@pytest.mark.parametrize(
    "body",
    [b"\0", b"\0\0\0\0", b"\0\0\0\1\1", pdv(1, 3, b"abc")[:-1], b"\xff\xff\xff\xff\1\3abc", pdv(1, 3, b"a") + b"\0"],
)
def test_lengths_that_do_not_add_up_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="PDV"):
        split_fragments(memoryview(body))


def pdu(body: bytes, kind: int = 4) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


LIMIT = 64
FIRST, SECOND = pdu(pdv(1, 3, b"abc") + pdv(1, 0, b"d")), pdu(pdv(1, 2, b"ef"))


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        SECOND[:5],
        SECOND[:-1],
        pdu(b"", kind=5),
        pdu(pdv(1, 0, bytes(LIMIT))),
        pdu(b"\0"),
        pdu(pdv(1, 0, b"gh")[:-1]),
    ],
    ids=["nothing", "half a header", "half a PDU", "another type", "too long", "no item", "an item beyond its PDU"],
)
def test_what_has_arrived_whole_is_taken_apart_and_the_rest_left(rest: bytes) -> None:
    """The rest is read by itself, and what is wrong with it found there, when all before has been served."""
    fragments, taken = take_apart(memoryview(FIRST + SECOND + rest), LIMIT)
    assert b"".join(bytes(fragment.content) for fragment in fragments) == b"abcdef"
    assert taken == len(FIRST + SECOND)
    assert take_apart(memoryview(rest), LIMIT) == ([], 0)


def test_tiny_fragments_are_passed_on_before_there_are_many() -> None:
    """A peer that sends one byte at a time must not make a hundred thousand objects of one buffer."""
    arrived = memoryview(pdu(pdv(1, 0, b"a")) * 1000)
    fragments, taken = take_apart(arrived, LIMIT)
    assert len(fragments) < 100
    assert taken == len(fragments) * 13


@pytest.fixture
def assembler(spool: Spool) -> Assembler:
    handlers = Handlers(
        spool=spool,
        accept=lambda instance: Intake.FILED,
        implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
        maximum_object_bytes=2**20,
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )
    peer = Peer(calling_ae_title="SCU", called_ae_title="NODE", address="127.0.0.1", priority=Priority.ROUTINE)
    context = AcceptedContext(abstract_syntax_uid=CR, transfer_syntax_uid="1.2.840.10008.1.2")

    def begin(command: Command, context_id: int) -> Reception:
        if context_id != 1:
            raise CommandError("the presentation context was not accepted")
        return handlers.begin_c_store(command, context, peer)

    return Assembler(begin)


def feed(assembler: Assembler, control: int, content: bytes = b"", context_id: int = 1) -> Request | None:
    requests = list(assembler.receive([Fragment(context_id, control, memoryview(content))]))
    assert all(context == context_id for context, _ in requests)
    return requests[0][1] if requests else None


def test_a_request_comes_together_from_pieces(assembler: Assembler, spool: Spool) -> None:
    content = command()
    assert feed(assembler, COMMAND, content[:10]) is None
    assert assembler.is_receiving
    assert feed(assembler, COMMAND | LAST, content[10:]) is None
    assert feed(assembler, DATA, b"abc") is None
    # only two bits of the control header mean anything
    reception = feed(assembler, 0xFC | LAST, b"def")
    assert isinstance(reception, Reception)
    assert not assembler.is_receiving
    assert reception.file is not None
    reception.file.close()
    assert reception.file.path.read_bytes().endswith(b"abcdef")
    assert reception.file.size_bytes == 6
    reception.discard()
    assert list(spool.incoming.iterdir()) == []


def test_several_requests_at_once_come_in_their_order(assembler: Assembler) -> None:
    store = [Fragment(1, COMMAND | LAST, memoryview(command())), Fragment(1, DATA, memoryview(b"ab"))]
    store += [Fragment(1, DATA, memoryview(b"cd")), Fragment(1, LAST, memoryview(b"ef"))]
    echo = Fragment(1, COMMAND | LAST, memoryview(command(field=0x30, data_set_type=0x0101)))
    first, second, third = assembler.receive([*store, echo, *store, *store[:2]])
    assert isinstance(second[1], Command)
    for _, reception in (first, third):
        assert isinstance(reception, Reception)
        assert reception.file is not None
        assert reception.file.head == b"abcdef"
        reception.discard()
    assert assembler.is_receiving
    assembler.discard()


def test_requests_before_a_broken_rule_are_served(assembler: Assembler) -> None:
    echo = Fragment(1, COMMAND | LAST, memoryview(command(field=0x30, data_set_type=0x0101)))
    requests = assembler.receive([echo, Fragment(1, DATA, memoryview(b"ab"))])
    assert isinstance(next(requests)[1], Command)
    with pytest.raises(CommandError):
        next(requests)


def test_an_echo_is_complete_with_its_command(assembler: Assembler) -> None:
    echo = feed(assembler, COMMAND | LAST, command(field=0x30, data_set_type=0x0101))
    assert isinstance(echo, Command)
    assert not assembler.is_receiving


def test_a_store_without_data_set_is_complete_and_refused(assembler: Assembler) -> None:
    reception = feed(assembler, COMMAND | LAST, command(data_set_type=0x0101))
    assert isinstance(reception, Reception)
    assert reception.error is not None


def test_an_unfinished_message_leaves_no_file(assembler: Assembler, spool: Spool) -> None:
    feed(assembler, COMMAND | LAST, command())
    feed(assembler, DATA, b"abc")
    assert len(list(spool.incoming.iterdir())) == 1
    assembler.discard()
    assert list(spool.incoming.iterdir()) == []
    assert not assembler.is_receiving


@pytest.mark.parametrize(
    "steps",
    [
        [(DATA, b"abc", 1)],
        [(COMMAND | LAST, command(), 3)],
        [(COMMAND | LAST, command(), 1), (DATA, b"abc", 3)],
        [(COMMAND, command(), 1), (COMMAND | LAST, b"", 3)],
        [(COMMAND | LAST, command(), 1), (COMMAND | LAST, command(), 1)],
        [(COMMAND, bytes(MAXIMUM_COMMAND_BYTES), 1), (COMMAND, b"\0", 1)],
    ],
    ids=["data first", "context", "context of data", "context of command", "command in data", "endless command"],
)
def test_broken_rules_end_the_association(assembler: Assembler, steps: list[tuple[int, bytes, int]]) -> None:
    *before, last = steps
    for control, content, context_id in before:
        feed(assembler, control, content, context_id)
    with pytest.raises(CommandError):
        feed(assembler, *last)
    assembler.discard()
