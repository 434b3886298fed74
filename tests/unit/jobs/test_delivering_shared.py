"""Two workers with one delivery, because one of them was thought dead: each object is sent once all the same."""

import sqlalchemy as sa
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from config.destinations import DicomDestination, FolderDestination
from scp_node.demo.pacs import StandInPacs
from scp_node.jobs import confirmations, database
from scp_node.jobs.tables import delivered_object
from scp_node.records import DeliveryState, ObjectOutcome, Verdict

CLASSES = (SecondaryCaptureImageStorage, Comprehensive3DSRStorage, BasicTextSRStorage)


def _confirm(results, name, uid):
    with database.write(results.engine) as connection:
        outcome = ObjectOutcome(sop_instance_uid=uid, verdict=Verdict.CONFIRMED, status=0x0000)
        of = confirmations.source(connection, results.row(1, name).instance_id)
        confirmations.remember(connection, of, name, outcome, results.now)


def test_what_another_worker_brought_during_the_association_is_not_sent_again(results, tmp_path):
    """The other one, thought dead, had the last object confirmed while this one sent the first."""
    arrived = []

    def answer(uid):
        arrived.append(uid)
        if len(arrived) == 1:
            _confirm(results, "pacs", uids[2])
        return 0x0000

    with StandInPacs(tmp_path / "pacs", answer=answer) as pacs:
        results.destinations = (
            DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs.port, kind="dicom"),
        )
        uids = results.add(1, "pacs", sop_classes=CLASSES)
        assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    assert arrived == uids[:2]
    with results.engine.connect() as connection:
        verdicts = connection.execute(sa.select(delivered_object.c.verdict)).scalars().all()
    assert verdicts == [Verdict.CONFIRMED.value] * 3


def test_a_folder_gets_no_file_that_another_worker_wrote(results, tmp_path, monkeypatch):
    folder = tmp_path / "share"
    results.destinations = (FolderDestination(kind="folder", name="share", folder=folder),)
    uids = results.add(1, "share", sop_classes=CLASSES)
    remember = confirmations.remember

    def remember_two(connection, of, name, outcome, now):
        remember(connection, of, name, outcome, now)
        if outcome.sop_instance_uid == uids[0]:
            other = ObjectOutcome(sop_instance_uid=uids[1], verdict=Verdict.CONFIRMED, status=None)
            remember(connection, of, name, other, now)

    monkeypatch.setattr(confirmations, "remember", remember_two)
    assert results.deliver(1, "share") == DeliveryState.DELIVERED
    assert sorted(file.stem for file in folder.iterdir()) == sorted([uids[0], uids[2]])
