"""Files that no row names go by themselves, and nothing else does; none is lost to a sweep at that moment."""

import errno

import pytest
from household import age
from structlog.testing import capture_logs

from scp_node.errors import BusyError
from scp_node.records import Intake


@pytest.mark.databases
def test_files_that_no_row_names_go_after_a_day_objects_when_instances_do_and_named_ones_never(house):
    kept = house.add("1.1", "delivered")
    orphan = house.receive("1.2", b"never acknowledged")
    lost = house.spool.path(house.spool.adopt(orphan.file, orphan.sha256))
    halves = [
        house.spool.path(house.spool.write_durably(f"results/aa/bb/{'c' * 40}/2.25.{number}.dcm", b"x"))
        for number in range(2)
    ]
    beside = house.spool.path(
        house.spool.write_durably(f"{kept[1].parent.relative_to(house.spool.folder)}/9.dcm", b"x")
    )
    unfinished = house.spool.open_incoming()
    unfinished.close()
    since = house.receive("1.4", b"acknowledged after the copy of the database was made")
    unknown = house.spool.path(house.spool.adopt(since.file, since.sha256))
    young = house.receive("1.3", b"young")
    fresh = house.spool.path(house.spool.adopt(young.file, young.sha256))
    for file in (*kept, *halves, beside, unfinished.path):
        age(file, 2)
    age(lost, 11)
    age(unknown, 9)
    with capture_logs() as logs:
        assert house.retention().sweep() == 5
    # As after a restart with a database that was restored: what was acknowledged since can still be sent again.
    assert [one["files"] for one in logs if one["event"] == "received files that the database does not know"] == [1]
    assert all(file.exists() for file in (*kept, fresh, unknown))
    assert not any(file.exists() for file in (lost, *halves, beside, unfinished.path))
    assert not halves[0].parent.exists()


def test_what_cannot_be_swept_keeps_nothing_else_from_the_sweep(house, monkeypatch):
    """Foreign names, a file on a bad disk, a shard that cannot be read: the orphans behind them go."""
    orphans = []
    for shard in ("00", "01", "02"):
        (house.spool.folder / "objects" / shard).mkdir()
        for digit in "ab":
            orphan = house.spool.folder / "objects" / shard / f"{shard}{digit * 62}.dcm"
            orphan.write_bytes(b"x")
            orphans.append(orphan)
    foreign = [orphans[0].with_name(".nfs000000000012"), house.spool.incoming / ".fuse_hidden1"]
    for file in foreign:
        file.write_bytes(b"x")
    folder = house.spool.incoming / "lost+found"
    folder.mkdir()
    for path in (*orphans, *foreign, folder):
        age(path, 11)
    real_remove, real_names = house.spool.remove_old, house.spool.old_files

    def remove_old(name, older_than_s):
        if house.spool.path(name) == orphans[0]:
            raise OSError(errno.EACCES, "Permission denied")
        return real_remove(name, older_than_s)

    def old_files(area, shard, older_than_s):
        if shard == "01":
            raise OSError(errno.EIO, "Input/output error")
        return real_names(area, shard, older_than_s)

    monkeypatch.setattr(house.spool, "remove_old", remove_old)
    monkeypatch.setattr(house.spool, "old_files", old_files)
    assert house.retention().sweep() == 3
    assert [orphan.exists() for orphan in orphans] == [True, False, True, True, False, False]
    assert all(path.exists() for path in (*foreign, folder))


def test_an_object_whose_leftover_is_swept_at_that_moment_is_refused_and_not_lost(house, monkeypatch):
    """Between the file and the transaction: the only window there is."""
    received = house.receive("1.1", b"pixels")
    adopt = house.spool.adopt

    def adopt_and_lose(temporary, sha256):
        name = adopt(temporary, sha256)
        house.spool.remove(name)
        return name

    monkeypatch.setattr(house.spool, "adopt", adopt_and_lose)
    with pytest.raises(BusyError):
        house.filing.accept(received)
    assert house.uids() == set()
    monkeypatch.undo()
    assert house.filing.accept(house.receive("1.1", b"pixels")) is Intake.FILED
