"""What goes by itself, when, and that a kill in between leaves nothing for ever."""

import errno
import json

import pytest
import sqlalchemy as sa
from household import DAY_S, age

from scp_node.errors import BusyError
from scp_node.jobs import database
from scp_node.jobs.removing import Removal, Remover
from scp_node.jobs.tables import conflict, delivery, instance, result, sent_uid, trace
from scp_node.records import Intake


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
    age(bad, 11)
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
        with house.engine.begin() as connection:
            for table, columns, values in (
                ("workflow_output", "", ""),
                ("operation_outputs", ", function_id, function_name", ", 0, 'step'"),
            ):
                connection.execute(
                    sa.text(
                        f"INSERT INTO {house.schema}{table} (workflow_uuid, retention_timestamp{columns})"  # noqa: S608 - as below
                        f" VALUES (:id, 0{values})"
                    ),
                    {"id": job_id},
                )
    assert house.retention().forget_jobs() == 0
    house.now += 2 * DAY_S
    assert house.retention().forget_jobs() == 3
    assert sorted(job.split(":")[2] for job in house.workflows()) == ["1.3", "1.4", "1.5"]
    with house.engine.connect() as connection:
        for table in ("workflow_input", "workflow_output", "operation_outputs"):
            left = connection.exec_driver_sql(f"SELECT count(*) FROM {house.schema}{table}").scalar_one()  # noqa: S608 - three constants
            assert left == 3, table
