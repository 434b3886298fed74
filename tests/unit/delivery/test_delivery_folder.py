"""Results into a folder: complete files only, and an absent folder is a reason to try again."""

import os

import pytest

from config.destinations import FolderDestination
from scp_node.delivery import catalog
from scp_node.records import Outgoing, Verdict


def _outgoing(folder, number, group=None, rank=0):
    file = folder / f"result-{number}"
    file.write_bytes(bytes([number]) * 1000)
    return Outgoing(
        file=file,
        sop_class_uid="1.2",
        sop_instance_uid=f"2.25.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        group=group or str(number),
        rank=rank,
    )


def _to(folder):
    return FolderDestination(kind="folder", name="share", folder=folder)


def test_files_are_complete_named_by_uid_and_nothing_else_is_left(tmp_path):
    target = tmp_path / "not" / "yet"
    objects = [_outgoing(tmp_path, 1), _outgoing(tmp_path, 2)]
    outcomes = catalog.send(objects, _to(target), calling_ae_title="NODE")
    assert [outcome.verdict for outcome in outcomes] == [Verdict.CONFIRMED] * 2
    assert sorted(file.name for file in target.iterdir()) == ["2.25.1.dcm", "2.25.2.dcm"]
    assert (target / "2.25.2.dcm").read_bytes() == bytes([2]) * 1000


def test_of_alternatives_the_first_is_written(tmp_path):
    target = tmp_path / "out"
    objects = [_outgoing(tmp_path, 2, "sr", 1), _outgoing(tmp_path, 1, "sr", 0)]
    outcomes = {o.sop_instance_uid: o.verdict for o in catalog.send(objects, _to(target), calling_ae_title="N")}
    assert outcomes == {"2.25.1": Verdict.CONFIRMED, "2.25.2": Verdict.NOT_NEEDED}
    assert [file.name for file in target.iterdir()] == ["2.25.1.dcm"]


def test_a_folder_that_cannot_be_written_is_transient(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    (outcome,) = catalog.send([_outgoing(tmp_path, 1)], _to(blocked / "sub"), calling_ae_title="N")
    assert outcome.verdict is Verdict.TRANSIENT
    assert str(blocked) in outcome.detail
    assert not catalog.echo(_to(blocked / "sub"), "N").is_reachable


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "out"

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    item = _outgoing(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", full)
    (outcome,) = catalog.send([item], _to(target), calling_ae_title="N")
    assert outcome.verdict is Verdict.TRANSIENT
    assert "No space left" in outcome.detail
    assert list(target.iterdir()) == []


def test_a_missing_result_is_permanent(tmp_path):
    item = _outgoing(tmp_path, 1)
    item.file.unlink()
    (outcome,) = catalog.send([item], _to(tmp_path / "out"), calling_ae_title="N")
    assert outcome.verdict is Verdict.PERMANENT


def test_echo_of_a_folder(tmp_path):
    outcome = catalog.echo(_to(tmp_path / "out"), "N")
    assert outcome.is_reachable
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["dicom", "folder"])
def test_every_kind_has_a_sender(kind):
    assert set(catalog.SENDERS) == {"dicom", "folder"}
    assert callable(catalog.SENDERS[kind].send)
