"""What goes over the wire when a file is sent directly, and what an open association costs meanwhile."""

import threading
import time

import pytest
from pydicom import FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import encode

from config.destinations import DicomDestination
from scp_node.delivery.association import connect
from scp_node.delivery.transmission import DirectMessages, store_command
from scp_node.records import Outgoing

# The peer of these tests, pynetdicom 3.0.4, drops the socket of an aborted association without closing it.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

LIMIT_S = 60.0
CONTEXTS = [(str(SecondaryCaptureImageStorage), str(ExplicitVRLittleEndian))]


@pytest.mark.parametrize("number", [1, 65535])
@pytest.mark.parametrize("instance", ["1.2.34", "1.2.345", "2.25." + "9" * 59])
@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.11"])
def test_the_command_is_the_one_that_pynetdicom_makes(sop_class, instance, number):
    request = C_STORE()
    request.MessageID, request.Priority = number, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, instance
    request._dataset_path = ("file", 0)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    assert store_command(sop_class, instance, number) == encode(message.command_set, True, True)


@pytest.fixture
def item(tmp_path):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
    file = tmp_path / "1.dcm"
    dataset.save_as(file, enforce_file_format=True)
    return Outgoing(
        file=file,
        sop_class_uid=str(SecondaryCaptureImageStorage),
        sop_instance_uid="2.25.1",
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        group="2.25.1",
    )


class Peer:
    """A Storage SCP."""

    def __init__(self, status=0x0000):
        self.status = status
        self.stored = []
        self.numbers = []
        self.answers = lambda _request: []
        """What it answers beside, before its own answer."""
        self.accepted = []
        self.ended = threading.Event()
        ae = AE(ae_title="PACS")
        ae.maximum_pdu_size = 64
        ae.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ESTABLISHED, lambda event: self.accepted.append(event.assoc)),
            (evt.EVT_RELEASED, lambda _: self.ended.set()),
        ]
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        port = self.server.server_address[1]
        self.destination = DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_s=60.0)

    @property
    def association(self):
        """Its end of the only one; it is in order a moment after who asked knows."""
        _until(lambda: self.accepted)
        return self.accepted[0]

    def _store(self, event):
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        self.numbers.append(event.request.MessageID)
        for answer in self.answers(event.request):
            event.assoc.dimse.send_msg(answer, event.context.context_id)
        return self.status


@pytest.fixture
def peer():
    made = Peer()
    yield made
    made.server.shutdown()


@pytest.fixture
def connection(peer):
    made = connect(peer.destination, "NODE", CONTEXTS)
    yield made
    made.close()


def _until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _store(connection, item):
    messages = connection.association.dimse
    assert isinstance(messages, DirectMessages)
    return messages.store(item, connection.association.accepted_contexts[0].context_id)


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA700, 0x0122])
def test_the_status_is_what_the_peer_says(peer, connection, item, status):
    """In PDUs of 64 bytes, so that the command takes several."""
    peer.status = status
    assert _store(connection, item) == status
    assert peer.stored == ["2.25.1"]


@pytest.mark.parametrize("is_direct", [True, False])
def test_an_answer_is_for_who_asked(connection, item, is_direct):
    """The association's own thread may look for messages at any moment: a slow machine lets it through at the worst."""
    association = connection.association
    over, taken = threading.Event(), []

    def look():
        while not over.is_set():
            taken.append(association.dimse.get_msg(block=False)[1])

    thief = threading.Thread(target=look)
    thief.start()
    try:
        for _ in range(20):
            status = _store(connection, item) if is_direct else association.send_c_store(item.file).Status
            assert status == 0x0000
    finally:
        over.set()
        thief.join()
    assert set(taken) == {None}


def _send(connection, item, *, is_direct):
    if is_direct:
        return _store(connection, item)
    return connection.association.send_c_store(item.file).get("Status")


@pytest.mark.parametrize("is_direct", [True, False])
def test_each_request_of_an_association_has_a_number_of_its_own(peer, connection, item, is_direct):
    """PS3.7 9.3.1.1: it tells answers apart; they begin anew where there are no more."""
    connection.association.dimse._message_id = 65533
    for _ in range(4):
        assert _send(connection, item, is_direct=is_direct) == 0x0000
    assert peer.numbers == [65534, 65535, 1, 2]


def _answer(request, *, number=None, instance=None, kind=C_STORE):
    answer = kind()
    answer.MessageIDBeingRespondedTo = request.MessageID if number is None else number
    answer.AffectedSOPClassUID = request.AffectedSOPClassUID
    if instance != "":
        answer.AffectedSOPInstanceUID = instance or request.AffectedSOPInstanceUID
    answer.Status = 0x0000
    return answer


@pytest.mark.parametrize("is_direct", [True, False])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda request: _answer(request, number=request.MessageID - 1),
        lambda request: _answer(request, number=request.MessageID + 76, instance="2.25.9"),
        lambda request: _answer(request, instance="2.25.9"),
        lambda request: _answer(request, kind=C_ECHO),
    ],
)
def test_an_answer_to_something_else_confirms_nothing(peer, connection, item, is_direct, wrong):
    """The peer refuses the object; what comes first is not its word on it."""
    peer.status = 0xA700
    peer.answers = lambda request: [wrong(request)]
    assert _send(connection, item, is_direct=is_direct) is None
    assert connection.association.dimse.has_gone_astray
    assert not connection.is_usable
    with pytest.raises(RuntimeError):
        _send(connection, item, is_direct=is_direct)


@pytest.mark.parametrize("is_direct", [True, False])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # what this is about
@pytest.mark.parametrize("instance", ["", "2.25.1 "])
def test_an_answer_need_not_name_the_object_exactly(peer, connection, item, is_direct, instance):
    """It is optional there (PS3.7 Table 9.1-1), and some pad it like text."""
    peer.status = 0xA700
    peer.answers = lambda request: [_answer(request, instance=instance)]
    assert _send(connection, item, is_direct=is_direct) == 0x0000


def _without_head(content):
    return content[132:]


def _of_another_object(content):
    return content.replace(b"2.25.1\0\0", b"2.25.2\0\0").replace(b"2.25.1", b"2.25.2")


def _in_another_syntax(content):
    return content.replace(ExplicitVRLittleEndian.encode() + b"\0", ImplicitVRLittleEndian.encode() + b"\0\0\0")


def _cut_in_its_head(content):
    return content[:200]


def _without_data_set(content):
    return content[: 144 + int.from_bytes(content[140:144], "little")]


@pytest.mark.parametrize(
    "harm",
    [_without_head, _of_another_object, _in_another_syntax, _cut_in_its_head, _without_data_set, lambda _: b""],
)
def test_a_file_that_is_not_the_object_is_not_sent(peer, connection, item, harm):
    whole = item.file.read_bytes()
    item.file.write_bytes(harm(whole))
    with pytest.raises(ValueError, match=r"object|Information|Data Set"):
        _store(connection, item)
    item.file.write_bytes(whole)
    assert _store(connection, item) == 0x0000
    assert peer.stored == ["2.25.1"]


def test_a_file_that_is_missing_harms_no_other(peer, connection, item):
    whole = item.file.read_bytes()
    item.file.unlink()
    with pytest.raises(FileNotFoundError):
        _store(connection, item)
    item.file.write_bytes(whole)
    assert _store(connection, item) == 0x0000


def test_an_association_that_has_ended_is_no_way_to_send(peer, connection, item):
    peer.association.abort()
    _until(lambda: not connection.is_usable)
    with pytest.raises(RuntimeError):
        _store(connection, item)


def test_an_open_association_asks_seldom(peer, connection):
    """It was a millisecond in both threads."""
    association = connection.association
    turns, asked = [], []
    look, pause = association.dul._is_transport_event, association.dul.idle_timer_expired
    association.dul.idle_timer_expired = lambda: (turns.append(1), pause())[1]
    association.dul._is_transport_event = lambda: (asked.append(1), look())[1]
    began = time.monotonic()
    _until(lambda: len(turns) >= 10)
    lasted = time.monotonic() - began
    # Waiting takes time, noise only more of it: so many within that time is what is allowed.
    assert len(asked) <= 2 + 20 * lasted
    assert len(turns) <= 2 + 20 * lasted


def test_the_end_by_the_peer_is_noticed_while_nothing_is_sent(peer, connection):
    peer.association.abort()
    _until(lambda: not connection.is_usable)


def test_the_peer_s_release_is_answered(peer, connection):
    peer.association.release()
    assert peer.association.is_released
    _until(lambda: not connection.is_usable)


def test_a_release_is_sent_at_once(peer, connection):
    connection.close()
    assert peer.ended.wait(LIMIT_S)
    assert not connection.association.dul.is_alive()
