"""The file: private, append-only, chained, shared by processes, closed when it is large."""

import json
import os
import subprocess
import sys

import pytest

from scp_node.audit.entries import NOTHING_BEFORE, Draft, digest
from scp_node.audit.trail import AuditError, Trail


def drafts(*names, record=None):
    return [
        Draft(at="2026-11-23T18:00:00.000Z", message=f"<AuditMessage>{name}</AuditMessage>", record=record)
        for name in names
    ]


def messages(trail, after=0):
    return [entry.message[14:-15] for entry in trail.entries(after)]


def test_what_is_written_is_read_in_order(trail):
    trail.append(drafts("a", "b"))
    trail.append(drafts("c", record=7))
    assert messages(trail) == ["a", "b", "c"]
    assert messages(trail, after=2) == ["c"]
    assert [entry.sequence for entry in trail.entries()] == [1, 2, 3]
    assert [entry.record for entry in trail.entries()] == [None, None, 7]
    assert list(trail.faults()) == []


def test_folder_and_file_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        trail = Trail(tmp_path / "new" / "audit.jsonl", maximum_file_bytes=2**20, keep_files=1)
        trail.create()
    finally:
        os.umask(before)
    assert trail.file.parent.stat().st_mode & 0o777 == 0o700
    assert trail.file.stat().st_mode & 0o777 == 0o600


def test_each_line_names_the_digest_of_the_one_before(trail):
    trail.append(drafts("a", "b"))
    first, second = trail.file.read_bytes().splitlines()
    assert json.loads(first)["previous"] == NOTHING_BEFORE
    assert json.loads(second)["previous"] == digest(first)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"b", b"x", 1), *lines[2:]], "does not follow"),
        (lambda lines: [lines[0], *lines[2:]], "sequence 3 after 1"),
        (lambda lines: [lines[0], b"something else", *lines[1:]], "no entry"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "sequence 1 after 2"),
    ],
)
def test_a_changed_trail_is_noticed(trail, change, fault):
    trail.append(drafts("a", "b", "c"))
    trail.file.write_bytes(b"\n".join(change(trail.file.read_bytes().splitlines())) + b"\n")
    assert any(fault in found for found in trail.faults())


def test_large_files_are_closed_and_the_oldest_removed(tmp_path):
    trail = Trail(tmp_path / "audit.jsonl", maximum_file_bytes=400, keep_files=2)
    for number in range(12):
        trail.append(drafts(str(number)))
    assert [file.name for file in trail.files()] == [
        "audit-000000000007.jsonl",
        "audit-000000000010.jsonl",
        "audit.jsonl",
    ]
    assert trail.files()[0].stat().st_mode & 0o777 == 0o400
    assert messages(trail) == [str(number) for number in range(6, 12)]
    assert messages(trail, after=10) == ["10", "11"]
    assert list(trail.faults()) == []


def test_the_chain_goes_on_in_a_new_file_and_after_a_restart(tmp_path):
    for name in "abcdef":
        trail = Trail(tmp_path / "audit.jsonl", maximum_file_bytes=200, keep_files=9)
        trail.append(drafts(name))
    assert messages(trail) == list("abcdef")
    assert len(trail.files()) > 2
    assert list(trail.faults()) == []


def test_a_torn_line_is_removed_as_its_writer_promised_nothing(trail):
    trail.append(drafts("a"))
    with trail.file.open("ab") as file:
        file.write(b'{"sequence": 2, "previ')
    assert messages(trail) == ["a"]
    trail.append(drafts("b"))
    assert messages(trail) == ["a", "b"]
    assert list(trail.faults()) == []


def test_a_foreign_file_is_not_continued(trail):
    trail.file.write_text("something else\n", encoding="ascii")
    with pytest.raises(AuditError, match="none of this node's"):
        trail.append(drafts("a"))


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError):
        Trail(tmp_path / "audit.jsonl", maximum_file_bytes=2**20, keep_files=1).create()
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_an_error_and_what_was_written_stays(trail, monkeypatch):
    trail.append(drafts("a"))
    real = os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AuditError, match="No space left"):
        trail.append(drafts("b"))
    monkeypatch.setattr(os, "fsync", real)
    assert messages(trail) == ["a"]
    trail.append(drafts("c"))
    assert messages(trail) == ["a", "c"]
    assert list(trail.faults()) == []


def test_several_processes_write_one_trail(trail):
    code = """
import sys
from pathlib import Path
from scp_node.audit.entries import Draft
from scp_node.audit.trail import Trail
trail = Trail(Path(sys.argv[1]), maximum_file_bytes=4000, keep_files=99)
for number in range(40):
    trail.append([Draft(at="", message=f"<AuditMessage>{sys.argv[2]}{number}</AuditMessage>")])
"""
    started = [subprocess.Popen([sys.executable, "-c", code, str(trail.file), name]) for name in "abc"]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    assert list(trail.faults()) == []
    found = messages(trail)
    assert len(found) == 120
    for name in "abc":
        assert [message for message in found if message[0] == name] == [f"{name}{number}" for number in range(40)]
