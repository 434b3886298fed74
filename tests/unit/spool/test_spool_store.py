"""The spool: private, durable, and closed to names from outside."""

import errno
import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from config.storage import SpoolSettings
from scp_node.errors import SpoolFullError
from scp_node.spool import store
from scp_node.spool.incoming import HEAD_BYTES, IncomingFile
from scp_node.spool.store import SHARDS, Spool


def make_spool(folder: Path, minimum_free_bytes: int = 0) -> Spool:
    spool = Spool(SpoolSettings(folder=folder, minimum_free_bytes=minimum_free_bytes, retention_days=30))
    spool.create()
    return spool


def old_objects(spool, older_than_s=0):
    return [name for shard in SHARDS for name in spool.old_files("objects", shard, older_than_s)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return make_spool(tmp_path / "spool")


def receive(spool: Spool, content: bytes) -> IncomingFile:
    incoming = spool.open_incoming(b"header")
    incoming.write(content)
    incoming.close()
    return incoming


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        spool = make_spool(tmp_path / "spool")
        incoming = receive(spool, b"pixels")
        adopted = spool.adopt(incoming.path, incoming.sha256)
        result = spool.write_durably(f"{spool.results_folder('a')}/montage.dcm", b"montage")
    finally:
        os.umask(before)
    for path in (tmp_path / "spool", *(tmp_path / "spool").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert spool.path(adopted).is_file()
    assert spool.path(result).is_file()


def test_create_closes_a_folder_that_was_open_to_others(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o755)
    make_spool(tmp_path / "spool")
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_an_incoming_file_hashes_the_content_and_not_the_header(spool: Spool) -> None:
    incoming = spool.open_incoming(b"header")
    assert incoming.path.parent == spool.incoming
    incoming.write(b"a" * HEAD_BYTES)
    incoming.write(memoryview(b"b" * 10))
    incoming.close()
    content = b"a" * HEAD_BYTES + b"b" * 10
    assert incoming.path.read_bytes() == b"header" + content
    assert incoming.sha256 == hashlib.sha256(content).hexdigest()
    assert incoming.size_bytes == len(content)
    assert incoming.head == content[:HEAD_BYTES]


def test_a_discarded_file_is_gone_and_may_be_discarded_again(spool: Spool) -> None:
    incoming = spool.open_incoming()
    incoming.discard()
    incoming.discard()
    assert list(spool.incoming.iterdir()) == []


def test_adopt_moves_under_the_name_of_the_content(spool: Spool) -> None:
    incoming = receive(spool, b"pixels")
    name = spool.adopt(incoming.path, incoming.sha256)
    assert name == f"objects/{incoming.sha256[:2]}/{incoming.sha256}.dcm"
    assert spool.path(name).read_bytes() == b"headerpixels"
    assert not incoming.path.exists()


def test_adopt_is_idempotent_and_the_first_file_stays(spool: Spool) -> None:
    first, second = receive(spool, b"pixels"), spool.open_incoming(b"HEADER")
    second.write(b"pixels")
    second.close()
    name = spool.adopt(first.path, first.sha256)
    assert spool.adopt(first.path, first.sha256) == name
    assert spool.adopt(second.path, second.sha256) == name
    assert spool.path(name).read_bytes() == b"headerpixels"
    assert list(spool.incoming.iterdir()) == []


def test_adopt_synchronises_the_file_before_and_the_folder_after_the_rename(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Success is answered when adopt returns, so the order decides what a power cut leaves."""
    done: list[tuple[str, str]] = []
    original, rename = store.synchronise, Path.rename

    def synchronise(path: Path) -> None:
        done.append(("fsync", path.relative_to(spool.folder).as_posix()))
        original(path)

    def record_rename(self: Path, target: Path) -> Path:
        done.append(("rename", self.relative_to(spool.folder).as_posix()))
        return rename(self, target)

    monkeypatch.setattr(store, "synchronise", synchronise)
    monkeypatch.setattr(Path, "rename", record_rename)
    incoming = receive(spool, b"pixels")
    name = spool.adopt(incoming.path, incoming.sha256)
    temporary = incoming.path.relative_to(spool.folder).as_posix()
    folders = [("fsync", "."), ("fsync", "objects")]
    assert done == [*folders, ("fsync", temporary), ("rename", temporary), ("fsync", name[: len("objects/ab")])]


def test_adopt_by_many_threads_at_once_leaves_one_file(spool: Spool) -> None:
    files = [receive(spool, b"pixels") for _ in range(16)]
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda file=file: names.append(spool.adopt(file.path, file.sha256))) for file in files
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == 16
    assert len(set(names)) == 1
    assert old_objects(spool) == [names[0]]
    assert list(spool.incoming.iterdir()) == []


def test_adopt_refuses_files_from_elsewhere_and_digests_that_are_none(spool: Spool, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    with pytest.raises(ValueError, match="incoming"):
        spool.adopt(outside, "0" * 64)
    incoming = receive(spool, b"pixels")
    with pytest.raises(ValueError, match="sha256"):
        spool.adopt(incoming.path, "../../etc/passwd")
    assert outside.exists()


@pytest.mark.parametrize(
    "name",
    [
        "objects/../../x",
        "/etc/passwd",
        "objects//x",
        "results/.hidden",
        "elsewhere/x",
        "objects/a\0b",
        "results/a\nb",
        "",
    ],
)
def test_names_that_could_lead_out_are_refused(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="not a name in the spool"):
        spool.path(name)
    with pytest.raises(ValueError, match="not a name in the spool"):
        spool.remove(name)


def test_results_are_replaced_as_a_whole_and_never_named_by_the_analysis(spool: Spool) -> None:
    folder = spool.results_folder("analyse:resnet18:../../1.2.3:abc")
    assert ".." not in folder
    name = spool.write_durably(f"{folder}/montage.dcm", b"one")
    assert spool.write_durably(name, lambda file: file.write(b"two")) == name
    assert spool.path(name).read_bytes() == b"two"
    assert list(spool.incoming.iterdir()) == []
    assert spool.results_folder("another") != folder
    with pytest.raises(ValueError, match="results"):
        spool.write_durably("objects/x", b"")


def test_a_writer_that_fails_leaves_the_old_result_and_no_temporary_file(spool: Spool) -> None:
    name = spool.write_durably(f"{spool.results_folder('a')}/report.dcm", b"one")

    def fail(file: object) -> None:
        raise RuntimeError("cannot encode")

    with pytest.raises(RuntimeError):
        spool.write_durably(name, fail)
    assert spool.path(name).read_bytes() == b"one"
    assert list(spool.incoming.iterdir()) == []


def test_below_the_low_water_mark_nothing_new_is_opened(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool", minimum_free_bytes=2**60)
    assert spool.is_short()
    assert 0 < spool.free_bytes() < 2**60
    with pytest.raises(SpoolFullError):
        spool.open_incoming()
    assert list(spool.incoming.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_apart_from_other_errors(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    incoming = receive(spool, b"pixels")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(number, "full")))
    with pytest.raises(SpoolFullError):
        spool.adopt(incoming.path, incoming.sha256)
    with pytest.raises(SpoolFullError):
        spool.write_durably(f"{spool.results_folder('a')}/x.dcm", b"x")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        spool.adopt(incoming.path, incoming.sha256)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a file of Linux")
def test_a_write_that_a_full_disk_refuses_is_spool_full(spool: Spool) -> None:
    """The real error of the kernel, on the way through the buffer."""
    incoming = spool.open_incoming()
    full = os.open("/dev/full", os.O_WRONLY)
    assert incoming._descriptor is not None
    os.dup2(full, incoming._descriptor)
    os.close(full)
    with pytest.raises(SpoolFullError):
        incoming.write(bytes(2**20))
    incoming.discard()
    assert list(spool.incoming.iterdir()) == []


def test_remove_takes_files_and_folders_and_forgives_what_is_gone(spool: Spool) -> None:
    incoming = receive(spool, b"pixels")
    name = spool.adopt(incoming.path, incoming.sha256)
    folder = spool.results_folder("a")
    spool.write_durably(f"{folder}/montage.dcm", b"x")
    for target in (name, folder, name, folder):
        spool.remove(target)
        assert not spool.path(target).exists()
    # a removed results folder can be written again
    spool.write_durably(f"{folder}/montage.dcm", b"x")


def test_sweeping_takes_only_what_is_old(spool: Spool) -> None:
    old, new = spool.open_incoming(), spool.open_incoming()
    past = old.path.stat().st_mtime - 3600
    os.utime(old.path, (past, past))
    assert spool.sweep_incoming(older_than_s=1800) == 1
    assert not old.path.exists()
    assert new.path.exists()
    old.discard()
    new.discard()


def test_objects_lists_what_a_sweeper_may_compare_with_the_database(spool: Spool) -> None:
    incoming = receive(spool, b"pixels")
    name = spool.adopt(incoming.path, incoming.sha256)
    assert old_objects(spool) == [name]
    assert old_objects(spool, 3600) == []


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (1, 1), follow_symlinks=False)


def test_a_sweeper_passes_over_foreign_names_and_what_is_no_file(spool: Spool, tmp_path: Path) -> None:
    """NFS and FUSE leave files of their own; an operator may have left a folder."""
    incoming = receive(spool, b"pixels")
    name = spool.adopt(incoming.path, incoming.sha256)
    result = spool.write_durably(f"{spool.results_folder('a')}/x.dcm", b"x")
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    foreign = []
    for path in (spool.path(name), spool.path(result)):
        foreign += [path.with_name(".nfs000000000012"), path.with_name("white space"), path.parent / ".hidden" / "x"]
        foreign[-1].parent.mkdir()
        for file in foreign[-3:]:
            file.write_bytes(b"x")
        foreign.append(path.with_name("link"))
        foreign[-1].symlink_to(outside)
        foreign.append(path.with_name("pipe"))
        os.mkfifo(foreign[-1])
    make_old(outside, spool.path(name), spool.path(result), *foreign)
    assert old_objects(spool, 60) == [name]
    assert [one for shard in SHARDS for one in spool.old_files("results", shard, 60)] == [result]
    assert not spool.remove_old(f"{Path(name).parent.as_posix()}/link", 60)
    assert all(path.exists() for path in foreign)


def test_sweeping_incoming_passes_over_what_is_no_file_or_cannot_be_removed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["1-0-a.part", "1-1-b.part", "1-2-c.part", ".fuse_hidden1", "lost+found"]
    for name in names[:-1]:
        (spool.incoming / name).write_bytes(b"x")
    (spool.incoming / "lost+found").mkdir()
    make_old(*spool.incoming.iterdir())
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "1-1-b.part":
            raise OSError(errno.EIO, "Input/output error")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert spool.sweep_incoming(60) == 2
    assert {path.name for path in spool.incoming.iterdir()} == {"1-1-b.part", ".fuse_hidden1", "lost+found"}


def test_a_sweeper_leaves_what_became_young_again_and_takes_empty_folders_along(spool: Spool) -> None:
    def age(name: str) -> None:
        past = spool.path(name).stat().st_mtime - 7200
        os.utime(spool.path(name), (past, past))

    incoming = receive(spool, b"pixels")
    name = spool.adopt(incoming.path, incoming.sha256)
    age(name)
    assert old_objects(spool, 3600) == [name]
    # The same object arrives once more: the file is no leftover any more.
    again = receive(spool, b"pixels")
    spool.adopt(again.path, again.sha256)
    assert not spool.remove_old(name, 3600)
    assert spool.path(name).exists()
    age(name)
    assert spool.remove_old(name, 3600)
    assert spool.path(name).parent.is_dir()  # fan-out folders stay
    folder = spool.results_folder("a")
    results = [spool.write_durably(f"{folder}/{number}.dcm", b"x") for number in (1, 2)]
    for result in results:
        age(result)
        assert spool.path(folder).is_dir()
        assert spool.remove_old(result, 3600)
    assert not spool.path(folder).exists()
