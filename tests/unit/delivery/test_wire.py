"""Peers that stop in the middle of something, or say what nobody expects: nobody waits for them for ever."""

import contextlib
import socket
import struct
import threading
import time

import pytest
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.sop_class import Verification
from reporting_peer import report_while_releasing

from config.destinations import DicomDestination
from scp_node import implementation
from scp_node.delivery import commitment, dicom
from scp_node.delivery.association import NoAssociationError, connect
from scp_node.delivery.keeping import Associations
from scp_node.delivery.wire import MAXIMUM_PDU_BYTES

LIMIT_S = 60
CONTEXTS = [(str(SecondaryCaptureImageStorage), str(ExplicitVRLittleEndian)), (str(Verification), "1.2.840.10008.1.2")]
RELEASE_RP = b"\6\0\0\0\0\4\0\0\0\0"


def read(wire):
    """The next PDU, or nothing."""
    content = b""
    while len(content) < 6 or len(content) < 6 + int.from_bytes(content[2:6], "big"):
        wanted = 6 - len(content) if len(content) < 6 else 6 + int.from_bytes(content[2:6], "big") - len(content)
        piece = wire.recv(wanted)
        if not piece:
            return b""
        content += piece
    return content


def pdu(kind, body):
    return struct.pack(">BBL", kind, 0, len(body)) + body


def item(kind, content):
    return struct.pack(">BBH", kind, 0, len(content)) + content


def accept(request, maximum_length=16384, syntax=None):
    """An A-ASSOCIATE-AC of all contexts."""
    asked = A_ASSOCIATE_RQ()
    asked.decode(request)
    contexts = b""
    for context in asked.to_primitive().presentation_context_definition_list:
        named = str(context.transfer_syntax[0]).encode() if syntax is None else syntax
        contexts += item(0x21, bytes([context.context_id, 0, 0, 0]) + (item(0x40, named) if named else b""))
    user = item(0x51, struct.pack(">L", maximum_length)) + item(0x52, b"1.2.3")
    head = b"\0\1\0\0" + request[10:42] + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1")
    return pdu(2, head + contexts + item(0x50, user))


class Peer:
    """Does as a script says with each connection, and then nothing until the end."""

    def __init__(self, script):
        self.script = script
        self.heard = []
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self):
        while True:
            try:
                wire, _ = self.listener.accept()
            except OSError:
                return
            self.threads.append(threading.Thread(target=self._serve, args=(wire,)))
            self.threads[-1].start()

    def _serve(self, wire):
        with wire, contextlib.suppress(OSError):
            self.script(self, wire)
            self.over.wait(LIMIT_S)

    def destination(self, timeout_s):
        port = self.listener.getsockname()[1]
        return DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_s=timeout_s)

    def close(self):
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(LIMIT_S)


@pytest.fixture
def make():
    made = []

    def start(script):
        made.append(Peer(script))
        return made[-1]

    yield start
    for one in made:
        one.close()


def within(function):
    """What a function returns; it must do so."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()), daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    return found[0]


def associated(then=lambda _peer, _wire: None, **settings):
    def script(peer, wire):
        peer.heard.append(read(wire))
        wire.sendall(accept(peer.heard[0], **settings))
        then(peer, wire)

    return script


def slowly(content):
    """A byte now and then, sooner than any time limit for each."""

    def send(peer, wire):
        read(wire)
        for byte in content:
            wire.sendall(bytes([byte]))
            peer.over.wait(0.5)

    return send


@pytest.mark.parametrize(
    "answer",
    [lambda request: accept(request)[:3], lambda request: accept(request)[:50], lambda _: b"\2\0\xff\xff\xff\xff"],
    ids=["half a head", "half a body", "4 GiB"],
)
def test_half_an_answer_to_an_association_is_none(make, answer):
    peer = make(lambda _, wire: wire.sendall(answer(read(wire))))

    def attempt():
        with pytest.raises(NoAssociationError):
            connect(peer.destination(1.0), "NODE", CONTEXTS)
        return True

    assert within(attempt)


@pytest.mark.parametrize(
    "then",
    [
        lambda _, wire: (read(wire), wire.sendall(pdu(4, bytes(80))[:20])),
        lambda _, wire: (read(wire), wire.sendall(b"\4\0\0")),
        slowly(pdu(4, bytes(2000))),
        lambda _, wire: (read(wire), wire.sendall(b"\4\0\xff\xff\xff\xff")),
    ],
    ids=["half a body", "half a head", "slowly", "4 GiB"],
)
def test_half_an_answer_to_a_request_is_none(make, then):
    connection = connect(make(associated(then)).destination(LIMIT_S), "NODE", CONTEXTS)
    # Only now: a machine that is held up is no peer that is silent.
    connection.association.dimse_timeout = connection.association._network_timeout = 1.0
    answer = within(connection.association.send_c_echo)
    assert "Status" not in answer
    within(connection.close)
    assert not connection.association.dul.is_alive()


@pytest.mark.parametrize("farewell", [RELEASE_RP[:7], b"", b"\5\0\0"], ids=["half", "none", "half of another"])
def test_a_release_that_is_not_answered_ends(make, farewell):
    connection = connect(
        make(associated(lambda _, wire: (read(wire), wire.sendall(farewell)))).destination(LIMIT_S), "NODE", CONTEXTS
    )
    connection.association.acse_timeout = 1.0
    # Not the timer of an association that nobody uses.
    connection.association._network_timeout = 1.0
    within(connection.close)
    assert not connection.association.dul.is_alive()


def test_a_node_that_stops_does_not_wait_for_releases(make, monkeypatch):
    """Kept associations are released side by side, and for a moment only."""
    monkeypatch.setattr("scp_node.delivery.keeping._CLOSE_S", 0.5)
    destination = make(associated(lambda _, wire: read(wire))).destination(10.0 * LIMIT_S)
    destination = destination.model_copy(update={"keep_open_s": 60.0})
    kept = Associations()
    for _ in range(3):
        with kept.open(destination, "NODE", CONTEXTS, is_more=lambda: True, is_fresh=True):
            pass
    within(kept.close)


def test_a_report_where_nobody_expects_it_holds_no_release_up(make):
    """As `test_serving` for an association that was opened for something else."""

    def until_release(_peer, wire):
        """The answer to the report, or what ends the association, comes first."""
        while read(wire)[:1] not in (b"\5", b""):
            pass
        wire.sendall(RELEASE_RP)

    peer = make(associated(until_release))
    connection = connect(peer.destination(LIMIT_S), "NODE", CONTEXTS)
    association = connection.association
    report_while_releasing(association, association.accepted_contexts[1].context_id)
    within(connection.close)


def test_a_peer_that_takes_no_message_is_none(make):
    """No object is blamed for it."""
    peer = make(associated(lambda _, wire: (read(wire), wire.sendall(RELEASE_RP)), maximum_length=6))
    with pytest.raises(NoAssociationError, match="takes no message") as caught:
        connect(peer.destination(LIMIT_S), "NODE", CONTEXTS)
    assert caught.value.is_present


def test_a_peer_that_hangs_up_at_once_is_no_error_of_this_node(make):
    """An association is established, and gone before it could be used."""

    def twice(peer, wire):
        answer = accept(read(wire))
        wire.sendall(answer + answer)

    destination = make(twice).destination(LIMIT_S)
    for _ in range(5):
        outcome = within(lambda: dicom.echo(destination, calling_ae_title="NODE"))
        assert not outcome.is_reachable


def test_a_host_that_is_no_name_is_no_error_of_this_node():
    destination = DicomDestination(name="pacs", ae_title="PACS", host="a..b", port=104, timeout_s=LIMIT_S)
    with pytest.raises(NoAssociationError, match="not a name"):
        connect(destination, "NODE", CONTEXTS)


def test_a_context_without_a_transfer_syntax_is_not_accepted(make):
    peer = make(associated(lambda _, wire: (read(wire), wire.sendall(RELEASE_RP)), syntax=b""))
    destination = peer.destination(LIMIT_S)
    outcomes = dicom.negotiate(destination, CONTEXTS, calling_ae_title="NODE")
    assert [outcome.is_accepted for outcome in outcomes] == [False, False]
    echo = dicom.echo(destination, calling_ae_title="NODE")
    assert echo.is_present
    assert echo.detail == "PACS accepts no C-ECHO"
    asked = commitment.ask(
        [("1.2", "2.25.1")], destination, calling_ae_title="NODE", transaction_uid="2.25.2", on_report=bool
    )
    assert asked.asked is commitment.Asked.DECLINED


def test_what_this_node_says_of_itself(make):
    """Conformance statement, sections 3.1 and 6."""
    peer = make(associated(lambda _, wire: (read(wire), wire.sendall(RELEASE_RP))))
    connect(peer.destination(LIMIT_S), "NODE", CONTEXTS).close()
    request = A_ASSOCIATE_RQ()
    request.decode(peer.heard[0])
    user = request.user_information
    assert user.maximum_length == MAXIMUM_PDU_BYTES == 131072
    assert user.implementation_class_uid == implementation.CLASS_UID
    assert user.implementation_version_name == implementation.version_name()


def test_an_answer_is_due_from_when_the_request_was_taken(make):
    """Through TLS a message waits in a queue: a slow network is no peer that does not answer."""
    connection = connect(
        make(associated(lambda _, wire: (read(wire), wire.sendall(RELEASE_RP)))).destination(LIMIT_S), "NODE", CONTEXTS
    )
    association = connection.association
    association.dimse_timeout = 0.2
    messages = association.dimse
    messages.expect_answer(C_ECHO, None)
    # It takes the last piece a minute from now.
    association.dul.socket.progressed_at = time.monotonic() + LIMIT_S
    answer = C_ECHO()
    answer.MessageIDBeingRespondedTo = 1
    threading.Timer(1.0, messages.msg_queue.put, [(1, answer)]).start()
    assert messages.get_msg(block=True) == (1, answer)
    association.dul.socket.progressed_at = 0.0
    messages.expect_answer(C_ECHO, None)
    assert messages.get_msg(block=True) == (None, None)
    connection.close()
