"""What goes by itself, when, and that a kill in between leaves nothing for ever."""

import errno
import json
import os
import threading
import time

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from config.storage import SpoolSettings
from scp_node.errors import BusyError
from scp_node.jobs import database, tables
from scp_node.jobs.chores import Chore, Chores
from scp_node.jobs.housekeeping import open_housekeeping, truncate_log
from scp_node.jobs.intake import Filing
from scp_node.jobs.removing import Removal, Remover
from scp_node.jobs.retention import Retention
from scp_node.jobs.tables import conflict, delivery, instance, result, sent_uid, trace
from scp_node.records import Intake

DAY_S = 86400.0


class House:
    """A database and a spool with instances in any state, and a clock."""

    def __init__(self, engine, jobs, spool, receive):
        self.engine, self.jobs, self.spool, self.receive = engine, jobs, spool, receive
        self.now = time.time()
        self.schema = "dbos." if engine.dialect.name == "postgresql" else ""
        columns = ("workflow_uuid", "status", "completed_at")
        schema = "dbos" if self.schema else None
        self.jobs_table = sa.table("workflow_status", *map(sa.column, columns), schema=schema)
        self.filing = Filing(engine, jobs, spool, models=("m1",), destinations=("pacs",))

    def retention(self, **settings):
        settings = SpoolSettings(folder=self.spool.folder, retention_days=10, **settings)
        return Retention(self.engine, self.jobs, self.spool, settings, models=("m1",), clock=lambda: self.now)

    def add(self, uid, state, *, deliveries=(), content=None):
        """File an object and put it into a state, with one result on disk."""
        assert self.filing.accept(self.receive(uid, content or uid.encode())) is Intake.FILED
        with database.write(self.engine) as connection:
            row = connection.execute(sa.select(instance).where(instance.c.sop_instance_uid == uid)).one()
            folder = self.spool.results_folder(f"{uid}:{row.sha256}")
            file = self.spool.write_durably(f"{folder}/2.25.{row.id}.dcm", b"result")
            connection.execute(
                sa.update(instance).where(instance.c.id == row.id).values(state=state, updated_at=self.now)
            )
            connection.execute(
                sa.insert(result).values(
                    instance_id=row.id,
                    sop_instance_uid=f"2.25.{row.id}",
                    position=0,
                    sop_class_uid="1",
                    transfer_syntax_uid="1",
                    kind="single",
                    alternatives="a",
                    rank=0,
                    file=file,
                    sha256="0",
                    size_bytes=6,
                )
            )
            connection.execute(
                sa.insert(sent_uid).values(
                    sop_instance_uid=f"2.25.{row.id}", source_sop_instance_uid=uid, created_at=0, returned=0
                )
            )
            for number, what in enumerate(deliveries):
                connection.execute(
                    sa.insert(delivery).values(
                        instance_id=row.id,
                        destination=f"d{number}",
                        state=what,
                        attempts=1,
                        last_error="",
                        job_id=f"deliver:{row.id}:d{number}:1:1",
                        round=1,
                        updated_at=self.now,
                    )
                )
        self.end_job(row.job_id)
        return self.spool.path(row.file), self.spool.path(file)

    def end_job(self, job_id, status="SUCCESS"):
        with database.write(self.engine) as connection:
            connection.execute(
                sa.update(self.jobs_table).where(self.jobs_table.c.workflow_uuid == job_id),
                {"status": status, "completed_at": int(self.now * 1000)},
            )

    def uids(self):
        with self.engine.connect() as connection:
            return set(connection.execute(sa.select(instance.c.sop_instance_uid)).scalars())

    def workflows(self):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(self.jobs_table.c.workflow_uuid)).scalars().all()

    def count(self, table):
        with self.engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


@pytest.fixture
def house(engine, jobs, spool, receive):
    return House(engine, jobs, spool, receive)


@pytest.mark.databases
def test_only_what_is_final_everywhere_goes_and_only_after_its_days(house):
    done = house.add("1.1", "delivered", deliveries=("delivered", "delivered"))
    unfit = house.add("1.2", "not_eligible")
    dead = house.add("1.3", "dead_letter", deliveries=("refused", "delivered"))
    house.add("1.4", "delivering", deliveries=("waiting", "delivered"))
    house.add("1.5", "received")
    # The state says delivered, a delivery says otherwise: not even then.
    house.add("1.6", "delivered", deliveries=("waiting",))
    retention = house.retention()
    house.now += 10 * DAY_S - 60
    assert retention.remove_expired() == 0
    house.now += 120
    assert retention.remove_expired() == 2
    assert house.uids() == {"1.3", "1.4", "1.5", "1.6"}
    assert not any(file.exists() for file in (*done, *unfit))
    assert all(file.exists() for file in dead)
    assert house.count(result) == 4
    assert house.count(delivery) == 5
    # Kept: what is known of results that come back, and the trace.
    assert house.count(sent_uid) == 6
    with house.engine.connect() as connection:
        removed = connection.execute(sa.select(trace).where(trace.c.event == "removed").order_by(trace.c.id)).all()
    assert [row.sop_instance_uid for row in removed] == ["1.1", "1.2"]


def test_a_delivery_that_ended_later_than_its_instance_counts(house):
    house.add("1.1", "delivered", deliveries=("delivered",))
    with database.write(house.engine) as connection:
        connection.execute(sa.update(delivery).values(updated_at=house.now + 5 * DAY_S))
    house.now += 11 * DAY_S
    assert house.retention().remove_expired() == 0


def test_dead_letters_and_objects_set_aside_go_only_when_told_to(house):
    house.add("1.1", "dead_letter", deliveries=("refused",))
    assert house.filing.accept(house.receive("1.1", b"other bytes")) is Intake.CONFLICT
    house.now += 1000 * DAY_S
    assert house.retention().remove_expired() == 0
    assert house.retention(dead_letter_retention_days=900).remove_expired() == 2
    assert house.uids() == set()
    assert house.count(conflict) == 0
    assert [file for file in house.spool.folder.rglob("*") if file.is_file()] == []


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("step", ["files", "jobs", "row"])
def test_a_kill_between_any_two_steps_leaves_nothing_for_ever(house, step, monkeypatch):
    house.add("1.1", "delivered")
    house.now += 11 * DAY_S

    def killed(*_arguments, **_options):
        raise KilledError

    with monkeypatch.context() as patch:
        match step:
            case "files":
                patch.setattr(house.spool, "remove", killed)
            case "jobs":
                patch.setattr(house.jobs, "forget", killed)
            case _:
                patch.setattr("scp_node.jobs.removing.trace.record", killed)
        with pytest.raises(KilledError):
            house.retention().remove_expired()
    # While the mark stands the object is refused for the moment, whoever sends it.
    with pytest.raises(BusyError, match="being removed"):
        house.filing.accept(house.receive("1.1", b"1.1"))
    assert house.retention().remove_expired() == 1
    assert house.uids() == set()
    assert [file for file in house.spool.folder.rglob("*") if file.is_file() and file.suffix == ".dcm"] == []


def cannot_remove(house, monkeypatch, *files):
    """A disk that has gone bad under these files."""
    real, bad = house.spool.remove, {house.spool.path(file) for file in files}

    def remove(name):
        if house.spool.path(name) in bad:
            raise OSError(errno.EIO, "Input/output error")
        real(name)

    monkeypatch.setattr(house.spool, "remove", remove)


def test_files_that_cannot_be_removed_keep_nothing_else_and_are_left_to_the_sweep(house, monkeypatch):
    (bad, _), (_, bad_result), *fine = (house.add(f"1.{number}", "delivered") for number in range(1, 6))
    house.now += 11 * DAY_S
    bad_folder = bad_result.parent
    with monkeypatch.context() as patch:
        cannot_remove(house, patch, *(file.relative_to(house.spool.folder).as_posix() for file in (bad, bad_folder)))
        assert house.retention().remove_expired() == 5
    assert house.uids() == set()
    assert not any(file.exists() for files in fine for file in files)
    assert bad.exists()
    with house.engine.connect() as connection:
        details = connection.execute(
            sa.select(trace.c.detail).where(trace.c.event == "removed").order_by(trace.c.id)
        ).scalars()
        assert [json.loads(detail).get("files_left", 0) for detail in details] == [1, 1, 0, 0, 0]
    # Sent again it is a new instance, not refused for as long as the disk is bad.
    assert house.filing.accept(house.receive("1.2", b"1.2")) is Intake.FILED
    _age(bad, 11)
    house.retention().sweep()
    assert not bad.exists()


def test_an_operator_hears_of_a_file_that_cannot_be_removed(house, monkeypatch):
    house.add("1.1", "delivered")
    house.filing.accept(house.receive("1.1", b"other bytes"))
    with house.engine.connect() as connection:
        row = connection.execute(sa.select(instance)).one()
        aside = connection.execute(sa.select(conflict)).one()
    cannot_remove(house, monkeypatch, row.file, aside.file)
    remover = Remover(house.engine, house.jobs, house.spool, ("m1",))
    with database.write(house.engine) as connection:
        remover.mark(connection, [row.id], Removal.PURGE)
    with pytest.raises(OSError, match="Input/output"):
        remover.finish(only=row.id)
    with pytest.raises(OSError, match="Input/output"):
        remover.remove_conflict("1.1", aside.sha256, Removal.PURGE)
    assert house.uids() == {"1.1"}
    assert house.count(conflict) == 1


def test_an_object_set_aside_whose_file_cannot_be_removed_keeps_no_other(house, monkeypatch):
    house.add("1.1", "received")
    for content in (b"one", b"two", b"three"):
        house.filing.accept(house.receive("1.1", content))
    with house.engine.connect() as connection:
        first = connection.execute(sa.select(conflict.c.file)).scalars().first()
    cannot_remove(house, monkeypatch, first)
    house.now += 11 * DAY_S
    assert house.retention(dead_letter_retention_days=10).remove_expired() == 3
    assert house.count(conflict) == 0
    assert house.spool.path(first).exists()


@pytest.mark.databases
def test_the_same_object_sent_again_is_a_new_instance_with_a_job_of_its_own(house):
    house.add("1.1", "delivered")
    house.now += 11 * DAY_S
    assert house.retention().remove_expired() == 1
    assert house.workflows() == []
    assert house.filing.accept(house.receive("1.1", b"1.1")) is Intake.FILED
    assert len(house.workflows()) == 1
    with house.engine.connect() as connection:
        row = connection.execute(sa.select(instance)).one()
    assert (row.id, row.state) == (2, "received")
    assert house.spool.path(row.file).exists()


def test_what_a_job_still_works_on_is_left_for_another_time(house):
    house.add("1.1", "not_eligible")
    house.end_job(house.workflows()[0], "PENDING")
    house.now += 11 * DAY_S
    assert house.retention().remove_expired() == 0
    house.end_job(house.workflows()[0], "SUCCESS")
    assert house.retention().remove_expired() == 1


def test_a_file_that_a_conflict_names_too_outlives_the_instance(house):
    """First A, then B under its UID, set aside; A goes, B comes as an instance, and goes."""
    house.add("1.1", "delivered", content=b"A")
    house.filing.accept(house.receive("1.1", b"B"))
    house.now += 11 * DAY_S
    house.retention().remove_expired()
    file, _ = house.add("1.1", "delivered", content=b"B")
    house.now += 11 * DAY_S
    assert house.retention().remove_expired() == 1
    assert file.exists()
    remover = Remover(house.engine, house.jobs, house.spool, ("m1",))
    with house.engine.connect() as connection:
        aside = connection.execute(sa.select(conflict)).one()
    assert remover.remove_conflict("1.1", aside.sha256, Removal.PURGE)
    assert not file.exists()
    assert not remover.remove_conflict("1.1", aside.sha256, Removal.PURGE)


@pytest.mark.databases
def test_finished_jobs_are_forgotten_after_a_day_and_others_are_not(house):
    for number, status in enumerate(["SUCCESS", "ERROR", "CANCELLED", "ENQUEUED", "PENDING", "DELAYED"]):
        uid = f"1.{number}"
        house.filing.accept(house.receive(uid, uid.encode()))
        job_id = next(job for job in house.workflows() if f":{uid}:" in job)
        if status != "ENQUEUED":
            house.end_job(job_id, status)
        if status in ("PENDING", "DELAYED"):
            with database.write(house.engine) as connection:
                connection.execute(
                    sa.update(house.jobs_table)
                    .where(house.jobs_table.c.workflow_uuid == job_id)
                    .values(completed_at=None)
                )
    assert house.retention().forget_jobs() == 0
    house.now += 2 * DAY_S
    assert house.retention().forget_jobs() == 3
    assert sorted(job.split(":")[2] for job in house.workflows()) == ["1.3", "1.4", "1.5"]
    with house.engine.connect() as connection:
        for table in ("workflow_input", "workflow_output", "operation_outputs"):
            left = connection.exec_driver_sql(f"SELECT count(*) FROM {house.schema}{table}").scalar_one()  # noqa: S608 - three constants
            assert left <= 3, table


def _age(path, days):
    past = time.time() - days * DAY_S
    os.utime(path, (past, past))


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
        _age(file, 2)
    _age(lost, 11)
    _age(unknown, 9)
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
        _age(path, 11)
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


@pytest.mark.databases
def test_one_process_at_a_time_does_a_chore_and_its_turn_counts_for_all(engine):
    begun, leave, runs = threading.Event(), threading.Event(), []

    def slow():
        runs.append(1)
        begun.set()
        leave.wait(60)
        return 7

    chore = Chore(name="slow", every_s=3600, run=slow)
    one, two = (Chores(engine, [chore], stop=threading.Event()) for _ in range(2))
    thread = threading.Thread(target=one.run_due)
    thread.start()
    assert begun.wait(60)
    assert two.run_due() == {}
    leave.set()
    thread.join()
    assert two.run_due() == {}
    assert runs == [1]
    with database.write(engine) as connection:
        connection.execute(sa.update(tables.chore).values(ended_at=0.0))
    assert two.run_due() == {"slow": 7}


def test_a_chore_that_fails_keeps_no_other_from_its_turn_and_a_dead_holder_nobody_for_ever(engine):
    def fail():
        raise ZeroDivisionError

    chores = [Chore(name="bad", every_s=3600, run=fail), Chore(name="good", every_s=3600, run=lambda: 1)]
    made = Chores(engine, chores, stop=threading.Event())
    assert made.run_due() == {"good": 1}
    with database.write(engine) as connection:
        values = {"holder": "dead", "ended_at": 0.0, "held_until": time.time() + 60}
        connection.execute(sa.update(tables.chore).values(**values))
    assert made.run_due() == {}
    with database.write(engine) as connection:
        connection.execute(sa.update(tables.chore).values(held_until=time.time() - 1))
    assert made.run_due() == {"good": 1}


@pytest.mark.databases
def test_a_clock_that_was_ahead_keeps_a_chore_from_its_turn_for_minutes_and_not_for_a_year(engine):
    made = Chores(engine, [Chore(name="one", every_s=60, run=lambda: 1)], stop=threading.Event())

    def set_back(**values):
        with database.write(engine) as connection:
            connection.execute(sa.update(tables.chore).values(**values))
        return made.run_due()

    year_on = time.time() + 365 * DAY_S
    assert made.run_due() == {"one": 1}
    assert set_back(ended_at=year_on) == {"one": 1}
    assert set_back(ended_at=0.0, holder="dead", held_until=year_on) == {"one": 1}
    # Another machine's turn may end while this one asks, and its clock differ: that is no reason to run again.
    assert set_back(ended_at=time.time() + 5) == {}
    assert set_back(ended_at=0.0, holder="other", held_until=time.time() + 905) == {}


def test_the_chores_of_a_node_run_and_stop(engine, jobs, spool, tmp_path):
    from config.settings import NodeSettings

    settings = NodeSettings(spool=SpoolSettings(folder=spool.folder, minimum_free_bytes=0))
    chores = open_housekeeping(engine, jobs, spool, settings)
    assert set(chores.run_due()) == {"retention", "seal", "forget", "checkpoint", "sweep"}
    chores.start()
    chores.stop()


def test_a_write_ahead_log_that_has_grown_is_emptied(engine, monkeypatch):
    with database.write(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE x (a TEXT)")
        for _ in range(50):
            connection.exec_driver_sql("INSERT INTO x VALUES (?)", ("y" * 4000,))
    assert truncate_log(engine) == 0
    monkeypatch.setattr("scp_node.jobs.housekeeping._LARGEST_LOG_BYTES", 1000)
    assert truncate_log(engine) > 100_000
    assert os.path.getsize(f"{engine.url.database}-wal") == 0  # noqa: PTH202
