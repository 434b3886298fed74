"""C-STORE to real Storage SCPs of every temper."""

import io
import socket
import threading
import time

import pytest
from PIL import Image
from pydicom import FileDataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE

from config.destinations import DicomDestination
from scp_node.delivery import catalog
from scp_node.delivery.dicom import negotiate
from scp_node.records import Outgoing, Verdict

EVERYTHING = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage, BasicTextSRStorage)


class Peer:
    """A Storage SCP that answers as it is told."""

    def __init__(
        self, classes=EVERYTHING, syntaxes=(ExplicitVRLittleEndian, ImplicitVRLittleEndian), answer=None, echo=True
    ):
        self.received = []
        self.associations = 0
        self.no_delay = []
        self._answer = answer or (lambda number: 0x0000)
        self.ae = AE(ae_title="PACS")
        for uid in classes:
            self.ae.add_supported_context(uid, list(syntaxes))
        if echo:
            self.ae.add_supported_context("1.2.840.10008.1.1")

    def _count(self, _event):
        self.associations += 1

    def _store(self, event):
        status = self._answer(len(self.received) + 1)
        if status is None:
            event.assoc.abort()
            return 0xC000
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        self.received.append(dataset)
        return status

    def __enter__(self):
        self.server = self.ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._count)],
        )
        self.port = self.server.server_address[1]
        return self

    def __exit__(self, *_):
        self.server.shutdown()


def _to(port, **options):
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "timeout_s": 60.0}
    return DicomDestination(port=port, **{**values, **options})


@pytest.fixture
def make(tmp_path):
    """Writes a result object and describes it."""

    def _make(number, sop_class=SecondaryCaptureImageStorage, *, group=None, rank=0, jpeg=False):
        uid = f"2.25.{number}"
        dataset = FileDataset("", {}, preamble=b"\0" * 128)
        dataset.SOPClassUID = sop_class
        dataset.SOPInstanceUID = uid
        dataset.PatientName = "A^B"
        syntax = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
        if sop_class == SecondaryCaptureImageStorage:
            dataset.Rows = dataset.Columns = 16
            dataset.SamplesPerPixel = 3
            dataset.PlanarConfiguration = 0
            dataset.BitsAllocated = dataset.BitsStored = 8
            dataset.HighBit = 7
            dataset.PixelRepresentation = 0
            if jpeg:
                stream = io.BytesIO()
                Image.new("RGB", (16, 16), (200, 30, 90)).save(stream, "JPEG", quality=95, subsampling="4:2:2")
                dataset.PhotometricInterpretation = "YBR_FULL_422"
                dataset.LossyImageCompression = "01"
                dataset.PixelData = encapsulate([stream.getvalue()])
                dataset["PixelData"].VR = "OB"
            else:
                dataset.PhotometricInterpretation = "RGB"
                dataset.PixelData = bytes(16 * 16 * 3)
                dataset["PixelData"].VR = "OB"
        dataset.file_meta = _meta(sop_class, uid, syntax)
        file = tmp_path / f"{number}.dcm"
        dataset.save_as(file, enforce_file_format=True)
        return Outgoing(
            file=file,
            sop_class_uid=str(sop_class),
            sop_instance_uid=uid,
            transfer_syntax_uid=str(syntax),
            group=group or uid,
            rank=rank,
        )

    return _make


def _meta(sop_class, uid, syntax):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = syntax
    return meta


def _send(objects, port, **options):
    told = []
    outcomes = catalog.send(objects, _to(port, **options), calling_ae_title="NODE", report=told.append)
    assert told == outcomes
    return {outcome.sop_instance_uid: outcome for outcome in outcomes}


def test_all_objects_go_over_one_association(make):
    with Peer() as peer:
        outcomes = _send([make(1), make(2), make(3, BasicTextSRStorage)], peer.port)
        assert peer.associations == 1
    assert {o.verdict for o in outcomes.values()} == {Verdict.CONFIRMED}
    assert [d.SOPInstanceUID for d in peer.received] == ["2.25.1", "2.25.2", "2.25.3"]


def test_a_peer_that_knows_implicit_only_gets_it(make):
    with Peer(syntaxes=[ImplicitVRLittleEndian]) as peer:
        outcomes = _send([make(1)], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.CONFIRMED
    assert peer.received[0].file_meta.TransferSyntaxUID == ImplicitVRLittleEndian


def test_of_alternatives_the_first_accepted_is_sent_and_the_others_are_not_needed(make):
    group = [make(1, Comprehensive3DSRStorage, group="sr"), make(2, ComprehensiveSRStorage, group="sr", rank=1)]
    with Peer(classes=EVERYTHING) as peer:
        outcomes = _send(group[::-1], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.CONFIRMED
    assert outcomes["2.25.2"].verdict is Verdict.NOT_NEEDED
    with Peer(classes=[ComprehensiveSRStorage]) as peer:
        outcomes = _send(group, peer.port)
    assert outcomes["2.25.2"].verdict is Verdict.CONFIRMED
    assert outcomes["2.25.1"].verdict is Verdict.NOT_NEEDED
    assert len(peer.received) == 1


def test_an_alternative_refused_as_unknown_class_gives_way_to_the_next(make):
    group = [make(1, Comprehensive3DSRStorage, group="sr"), make(2, ComprehensiveSRStorage, group="sr", rank=1)]
    with Peer(answer=lambda number: 0x0122 if number == 1 else 0) as peer:
        outcomes = _send(group, peer.port)
    assert outcomes["2.25.2"].verdict is Verdict.CONFIRMED


def test_a_class_the_peer_does_not_take_is_named_and_harms_no_other(make):
    with Peer(classes=[SecondaryCaptureImageStorage]) as peer:
        outcomes = _send([make(1, BasicTextSRStorage), make(2)], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.NOT_TAKEN
    assert outcomes["2.25.1"].detail == "PACS accepts no presentation context for Basic Text SR Storage"
    assert outcomes["2.25.2"].verdict is Verdict.CONFIRMED


def test_a_peer_that_takes_nothing_at_all_says_so_too(make):
    with Peer(classes=[]) as peer:
        outcomes = _send([make(1)], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.NOT_TAKEN


def test_jpeg_goes_as_it_is_where_it_is_accepted(make):
    item = make(1, jpeg=True)
    with Peer(syntaxes=[JPEGBaseline8Bit, ExplicitVRLittleEndian]) as peer:
        _send([item], peer.port)
    received = peer.received[0]
    assert received.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert received.PixelData == dcmread(item.file).PixelData


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_jpeg_goes_uncompressed_under_its_uid_where_it_is_refused(make, syntax):
    with Peer(syntaxes=[syntax]) as peer:
        outcomes = _send([make(1, jpeg=True)], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.CONFIRMED
    received = peer.received[0]
    assert received.file_meta.TransferSyntaxUID == syntax
    assert received.SOPInstanceUID == "2.25.1"
    assert received.PhotometricInterpretation == "RGB"
    assert received.LossyImageCompression == "01"
    assert abs(received.pixel_array[8, 8].astype(int) - (200, 30, 90)).max() <= 3


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0xB000, Verdict.CONFIRMED),
        (0xA700, Verdict.TRANSIENT),
        (0xA900, Verdict.PERMANENT),
        (0xC000, Verdict.PERMANENT),
    ],
)
def test_each_object_has_the_verdict_of_its_own_status(make, status, verdict):
    with Peer(answer=lambda number: status if number == 2 else 0) as peer:
        outcomes = _send([make(1), make(2), make(3)], peer.port)
    assert [outcomes[f"2.25.{n}"].verdict for n in (1, 2, 3)] == [Verdict.CONFIRMED, verdict, Verdict.CONFIRMED]
    assert outcomes["2.25.2"].status == status
    assert f"0x{status:04X}" in outcomes["2.25.2"].detail


def test_a_peer_that_aborts_half_way_has_confirmed_what_it_confirmed(make):
    with Peer(answer=lambda number: None if number == 2 else 0) as peer:
        # The third may be begun before the end is noticed, and costs the time-out.
        outcomes = _send([make(1), make(2), make(3)], peer.port, timeout_s=10.0)
    assert [outcomes[f"2.25.{n}"].verdict for n in (1, 2, 3)] == [
        Verdict.CONFIRMED,
        Verdict.TRANSIENT,
        Verdict.TRANSIENT,
    ]
    assert "ended the association" in outcomes["2.25.3"].detail


def test_a_peer_that_answers_the_first_object_twice_has_not_confirmed_the_second(make):
    """It refused it: a result would be lost and nobody the wiser."""
    second, messages = threading.Event(), []

    def count(_event):
        messages.append(1)
        if len(messages) == 2:
            second.set()

    class Twice(Peer):
        def _store(self, event):
            if not self.received:
                request, answer = event.request, C_STORE()
                answer.MessageIDBeingRespondedTo, answer.Status = request.MessageID, 0x0000
                answer.AffectedSOPClassUID = request.AffectedSOPClassUID
                answer.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
                event.assoc.dimse.send_msg(answer, event.context.context_id)
                # Not before the next is there: what nobody waits for is thrown away.
                assert second.wait(60)
            return super()._store(event)

    with Twice(answer=lambda number: 0x0000 if number == 1 else 0xA700) as peer:
        peer.server.bind(evt.EVT_DIMSE_RECV, count)
        outcomes = _send([make(1), make(2)], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.CONFIRMED
    assert (outcomes["2.25.2"].verdict, outcomes["2.25.2"].status) == (Verdict.TRANSIENT, None)
    assert outcomes["2.25.2"].detail == "PACS gave an answer to something else, the association was ended"


def test_nobody_listening_is_transient(make):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outcomes = _send([make(1), make(2)], port)
    assert {o.verdict for o in outcomes.values()} == {Verdict.TRANSIENT}
    assert "connection refused" in outcomes["2.25.1"].detail
    assert not outcomes["2.25.1"].is_reached


def test_a_name_without_address_is_transient(make):
    outcomes = _send([make(1)], 104, host="nowhere.invalid")
    assert outcomes["2.25.1"].verdict is Verdict.TRANSIENT
    assert "nowhere.invalid" in outcomes["2.25.1"].detail


def test_a_peer_that_never_answers_costs_the_timeout_and_no_more(make):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        outcomes = _send([make(1)], silent.getsockname()[1], timeout_s=0.5)
        assert time.monotonic() - started < 20
    assert outcomes["2.25.1"].verdict is Verdict.TRANSIENT
    assert "not answered" in outcomes["2.25.1"].detail


def test_a_rejected_association_is_transient_and_says_why(make):
    with Peer() as peer:
        peer.ae.require_called_aet = True
        outcomes = _send([make(1)], peer.port, ae_title="OTHER")
    assert outcomes["2.25.1"].verdict is Verdict.TRANSIENT
    assert "rejected" in outcomes["2.25.1"].detail
    assert "Called AE title not recognised" in outcomes["2.25.1"].detail
    assert not outcomes["2.25.1"].is_reached


def test_a_missing_file_is_permanent(make):
    item = make(1)
    item.file.unlink()
    with Peer() as peer:
        assert _send([item], peer.port)["2.25.1"].verdict is Verdict.PERMANENT


def test_a_damaged_file_is_permanent_and_harms_no_other(make):
    item = make(1)
    item.file.write_bytes(b"no DICOM at all")
    with Peer() as peer:
        outcomes = _send([item, make(2)], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.PERMANENT
    assert outcomes["2.25.2"].verdict is Verdict.CONFIRMED


def test_the_destination_s_own_calling_title_wins(make):
    titles = []
    with Peer() as peer:
        peer.server.bind(evt.EVT_ACCEPTED, lambda event: titles.append(event.assoc.requestor.ae_title))
        _send([make(1)], peer.port, calling_ae_title="SPECIAL")
        _send([make(1)], peer.port)
    assert titles == ["SPECIAL", "NODE"]


def test_nagle_is_off(make):
    seen = []
    real = socket.socket.setsockopt

    def spy(self, *arguments):
        seen.append(arguments)
        return real(self, *arguments)

    with Peer() as peer, pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "setsockopt", spy)
        _send([make(1)], peer.port)
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in seen


def test_echo_and_negotiation(make):
    with Peer(classes=[SecondaryCaptureImageStorage]) as peer:
        outcome = catalog.echo(_to(peer.port), "NODE")
        assert outcome.is_reachable
        assert "0x0000" in outcome.detail
        wanted = [
            (str(SecondaryCaptureImageStorage), str(ExplicitVRLittleEndian)),
            (str(SecondaryCaptureImageStorage), str(JPEGBaseline8Bit)),
            (str(BasicTextSRStorage), str(ExplicitVRLittleEndian)),
        ]
        accepted = negotiate(_to(peer.port), wanted, calling_ae_title="NODE")
    assert [context.is_accepted for context in accepted] == [True, False, False]
    gone = catalog.echo(_to(peer.port), "NODE")
    assert not gone.is_reachable
    with pytest.raises(ConnectionError, match="refused"):
        negotiate(_to(peer.port), wanted, calling_ae_title="NODE")


def test_an_echo_tells_who_is_away_from_who_is_there_and_unwilling():
    with Peer() as peer:
        peer.ae.require_called_aet = True
        rejected = catalog.echo(_to(peer.port, ae_title="OTHER"), "NODE")
    assert (rejected.is_reachable, rejected.is_present) == (False, True)
    with Peer(echo=False) as peer:
        unsupported = catalog.echo(_to(peer.port), "NODE")
    assert (unsupported.is_reachable, unsupported.is_present) == (False, True)
    assert "accepts no C-ECHO" in unsupported.detail
    gone = catalog.echo(_to(peer.port), "NODE")
    assert (gone.is_reachable, gone.is_present) == (False, False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = catalog.echo(_to(silent.getsockname()[1], timeout_s=0.3), "NODE")
    assert (mute.is_reachable, mute.is_present) == (False, False)
    assert "not answered within 0.3 s" in mute.detail
    assert not any(line in outcome.detail for outcome in (rejected, unsupported, gone, mute) for line in "\n\r")


def test_a_peer_that_hangs_up_at_once_is_there():
    """As a balancer without a server behind it does: another kind of association may fare better."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            connection, _ = listener.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        outcome = catalog.echo(_to(listener.getsockname()[1]), "NODE")
        thread.join()
    assert (outcome.is_reachable, outcome.is_present) == (False, True)
    assert "aborted" in outcome.detail


def test_a_class_refused_by_status_counts_like_one_without_context(make):
    with Peer(answer=lambda number: 0x0122 if number == 1 else 0) as peer:
        outcomes = _send([make(1, BasicTextSRStorage), make(2)], peer.port)
    assert outcomes["2.25.1"].verdict is Verdict.NOT_TAKEN
    assert outcomes["2.25.2"].verdict is Verdict.CONFIRMED
