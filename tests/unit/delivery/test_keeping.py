"""Associations that stay open between two attempts, and files that go to the peer as they lie in the spool."""

import socket
import threading
import time

import pytest
from pydicom import FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR

from config.destinations import DicomDestination
from scp_node.delivery import catalog, keeping
from scp_node.delivery.keeping import Associations
from scp_node.records import Outgoing, Verdict

LIMIT_S = 60.0


class Archive:
    """A Storage SCP that counts associations and keeps the bytes it gets."""

    def __init__(self, maximum_length=16382):
        self.opened = 0
        self.ended = 0
        self.content = {}
        self.ae = AE(ae_title="PACS")
        self.ae.maximum_pdu_size = maximum_length
        self.ae.add_supported_context(SecondaryCaptureImageStorage, ExplicitVRLittleEndian)

    def _open(self, _event):
        self.opened += 1

    def _end(self, _event):
        self.ended += 1

    def _store(self, event):
        self.content[str(event.request.AffectedSOPInstanceUID)] = event.request.DataSet.getvalue()
        return 0x0000

    def __enter__(self):
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ACCEPTED, self._open),
            (evt.EVT_RELEASED, self._end),
            (evt.EVT_ABORTED, self._end),
        ]
        self.server = self.ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self.server.server_address[1]
        return self

    def __exit__(self, *_):
        self.server.shutdown()

    def hang_up(self):
        """End every association, as a peer does whose time-out is shorter than ours."""
        for association in [one for one in threading.enumerate() if getattr(one, "mode", None) == MODE_ACCEPTOR]:
            association.abort()


def _until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def make(tmp_path):
    def _make(number, size=256):
        uid = f"2.25.{number}"
        dataset = FileDataset("", {}, preamble=b"\0" * 128)
        dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, uid
        dataset.Rows, dataset.Columns = size, 256
        dataset.add_new("PixelData", "OB", bytes(range(256)) * size)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, uid
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta = meta
        file = tmp_path / f"{number}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        return Outgoing(
            file=file,
            sop_class_uid=str(SecondaryCaptureImageStorage),
            sop_instance_uid=uid,
            transfer_syntax_uid=str(ExplicitVRLittleEndian),
            group=uid,
            size_bytes=file.stat().st_size,
        )

    return _make


def _to(port, **options):
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "timeout_s": 60.0, "keep_open_s": 60.0}
    return DicomDestination(port=port, **{**values, **options})


@pytest.fixture
def associations():
    made = Associations()
    yield made
    made.close()


@pytest.fixture
def send(associations):
    def _send(objects, destination, *, is_more=True):
        return [
            outcome.verdict
            for outcome in catalog.send(
                objects,
                destination,
                calling_ae_title="NODE",
                associations=associations,
                is_more=lambda: is_more,
            )
        ]

    return _send


def test_the_next_analysis_goes_over_the_same_association_while_more_waits(make, send):
    with Archive() as archive:
        destination = _to(archive.port)
        assert send([make(1), make(2)], destination) == [Verdict.CONFIRMED] * 2
        assert send([make(3)], destination) == [Verdict.CONFIRMED]
        assert archive.opened == 1
        assert send([make(4)], destination, is_more=False) == [Verdict.CONFIRMED]
        _until(lambda: archive.ended == 1)
        assert send([make(5)], destination, is_more=False) == [Verdict.CONFIRMED]
        assert archive.opened == 2
        assert len(archive.content) == 5


@pytest.mark.parametrize("options", [{"keep_open_s": 0.0}, {"keep_open_s": 0.05}])
def test_nothing_stays_open_longer_than_it_may(make, send, options):
    with Archive() as archive:
        send([make(1)], _to(archive.port, **options))
        _until(lambda: archive.ended == 1)


def test_a_peer_that_serves_one_at_a_time_is_let_go_now_and_then(make, send, monkeypatch):
    monkeypatch.setattr(keeping, "LONGEST_S", 0.0)
    with Archive() as archive:
        send([make(1)], _to(archive.port))
        _until(lambda: archive.ended == 1)


def test_an_association_that_the_peer_ended_meanwhile_costs_no_attempt(make, send):
    with Archive() as archive:
        destination = _to(archive.port)
        send([make(1)], destination)
        archive.hang_up()
        assert send([make(2), make(3)], destination) == [Verdict.CONFIRMED] * 2
        assert archive.opened == 2


def test_an_association_that_ends_as_it_is_taken_is_replaced(make, send, monkeypatch):
    with Archive() as archive:
        destination = _to(archive.port)
        send([make(1)], destination)
        # Not noticed in time: whether it is usable was asked a moment before the peer hung up.
        monkeypatch.setattr(keeping.Connection, "is_usable", True)
        archive.hang_up()
        assert send([make(2), make(3)], destination) == [Verdict.CONFIRMED] * 2
        assert archive.opened == 2


def test_other_contexts_need_another_association_and_the_first_ends_before_it(make, send):
    with Archive() as archive:
        destination = _to(archive.port)
        send([make(1)], destination)
        other = destination.model_copy(update={"calling_ae_title": "OTHER"})
        send([make(2)], other)
        _until(lambda: archive.ended == 1)
        assert archive.opened == 2


def test_closing_releases_what_waits_and_keeps_nothing_any_more(make, send, associations):
    with Archive() as archive:
        send([make(1)], _to(archive.port))
        associations.close()
        _until(lambda: archive.ended == 1)
        send([make(2)], _to(archive.port))
        _until(lambda: archive.ended == 2)


@pytest.mark.parametrize(
    ("maximum_length", "size"), [(1024, 3000), (4096, 16), (16382, 5000), (131072, 9000), (0, 9000)]
)
def test_a_data_set_arrives_byte_for_byte(make, send, maximum_length, size):
    item = make(1, size)
    with Archive(maximum_length) as archive:
        assert send([item], _to(archive.port)) == [Verdict.CONFIRMED]
        written = item.file.read_bytes()
        assert written.endswith(archive.content["2.25.1"])
        assert len(archive.content["2.25.1"]) > size * 256
        assert dcmread(item.file).PixelData in archive.content["2.25.1"]


def test_a_file_that_was_cut_short_is_not_sent(make, send):
    item = make(1)
    item.file.write_bytes(item.file.read_bytes()[:-1000])
    with Archive() as archive:
        assert send([item, make(2)], _to(archive.port)) == [Verdict.PERMANENT, Verdict.CONFIRMED]
        assert list(archive.content) == ["2.25.2"]


def test_a_peer_that_stops_reading_costs_the_timeout_and_no_more(make, send):
    """It negotiates, and then takes nothing: the file is larger than what fits into both sides' buffers."""
    with Archive() as archive, socket.create_server(("127.0.0.1", 0)) as between:
        stalled = threading.Event()

        def relay():
            between.settimeout(LIMIT_S)
            client, _ = between.accept()
            with client, socket.create_connection(("127.0.0.1", archive.port)) as server:
                server.sendall(client.recv(65536))
                client.sendall(server.recv(65536))
                stalled.wait(LIMIT_S)

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            destination = _to(between.getsockname()[1], timeout_s=1.0)
            assert send([make(1, 60_000)], destination) == [Verdict.TRANSIENT]
        finally:
            stalled.set()
            thread.join()
