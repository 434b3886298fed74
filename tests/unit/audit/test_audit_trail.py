"""The file: private, append-only, chained, shared by processes, closed when it is large."""

import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

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


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


def test_a_file_that_cannot_be_renamed_is_written_on_and_closed_later(tmp_path, monkeypatch):
    """What was appended is on the disk: an error would make its writer append it again."""
    trail = Trail(tmp_path / "audit.jsonl", maximum_file_bytes=100, keep_files=9)

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logged:
        patch.setattr(Path, "rename", full)
        for name in "abc":
            trail.append(drafts(name))
            assert mode(trail.file) == 0o600
    assert [line["event"] for line in logged] == ["audit file cannot be closed and grows on"]
    assert trail.files() == [trail.file]
    for name in "de":
        trail.append(drafts(name))
    assert [file.name for file in trail.files()][:-1] == ["audit-000000000001.jsonl", "audit-000000000005.jsonl"]
    assert messages(trail) == list("abcde")
    assert list(trail.faults()) == []


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("step", ["rename", "fchmod", "fsync"])
def test_a_kill_while_a_file_is_closed_leaves_a_trail_that_goes_on(tmp_path, monkeypatch, step):
    trail = Trail(tmp_path / "audit.jsonl", maximum_file_bytes=100, keep_files=9)
    trail.create()
    real = os.fsync

    def killed(*_arguments):
        raise KilledError

    def killed_at_folder(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise KilledError
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(Path if step == "rename" else os, step, killed_at_folder if step == "fsync" else killed)
        with pytest.raises(KilledError):
            trail.append(drafts("a"))
    if trail.file.exists():
        assert mode(trail.file) == 0o600
    trail.create()
    trail.append(drafts("b"))
    assert messages(trail) == ["a", "b"]
    assert list(trail.faults()) == []


def test_the_folder_is_synchronised_after_a_file_was_closed(tmp_path, monkeypatch):
    trail = Trail(tmp_path / "audit.jsonl", maximum_file_bytes=100, keep_files=9)
    done, real, rename = [], os.fsync, Path.rename

    def synchronise(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    def renamed(self, target):
        done.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(Path, "rename", renamed)
    trail.append(drafts("a"))
    assert done == ["audit.jsonl", "renamed", tmp_path.name]


@pytest.fixture
def as_user(monkeypatch):
    """What is true for everybody but root: a file without write permission cannot be opened for writing."""
    real = os.open

    def open_as_user(path, flags, *arguments, **options):
        if flags & os.O_RDWR and Path(path).exists() and not mode(Path(path)) & 0o200:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", open_as_user)


@pytest.mark.usefixtures("as_user")
def test_a_file_that_was_left_half_closed_is_written_on(trail):
    """Killed between two steps, an earlier version of this node left its own file without write permission."""
    trail.append(drafts("a"))
    trail.file.chmod(0o400)
    trail.create()
    trail.append(drafts("b"))
    assert mode(trail.file) == 0o600
    assert messages(trail) == ["a", "b"]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("whose", ["of another user", "closed by its owner for all"])
def test_other_files_without_write_permission_stay_as_they_are(trail, monkeypatch, whose):
    trail.append(drafts("a"))
    if whose == "of another user":
        trail.file.chmod(0o400)
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    else:
        trail.file.chmod(0o444)
    before = mode(trail.file)
    with pytest.raises(AuditError, match="Permission denied"):
        trail.append(drafts("b"))
    assert mode(trail.file) == before


def test_a_file_that_was_closed_while_somebody_waited_for_it_stays_closed(trail, monkeypatch):
    trail.append(drafts("a"))
    closed = trail.file.with_name("audit-000000000001.jsonl")
    real = fcntl.flock

    def close_meanwhile(file, how):
        monkeypatch.undo()
        trail.file.rename(closed).chmod(0o400)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", close_meanwhile)
    trail.append(drafts("b"))
    assert mode(closed) == 0o400
    assert messages(trail) == ["a", "b"]


def test_the_newest_is_known_without_reading_everything(tmp_path):
    trail = Trail(tmp_path / "audit.jsonl", maximum_file_bytes=400, keep_files=2)
    assert trail.newest() == 0
    for number in range(1, 8):
        trail.append(drafts(str(number)))
        # Also when the file that is written to has just been begun, or does not exist yet.
        assert trail.newest() == number
    trail.create()
    assert trail.newest() == 7
    with trail.file.open("ab") as file:
        file.write(b"something else\n")
    assert trail.newest() is None


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
