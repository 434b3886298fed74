"""A node does not start on a spool and a database that do not belong together."""

import shutil

import pytest
import sqlalchemy as sa

from config.storage import SpoolSettings
from scp_node.errors import StartError
from scp_node.jobs import database
from scp_node.jobs.intake import Filing
from scp_node.jobs.migrations import migrate
from scp_node.jobs.spool_identity import FILE, settle
from scp_node.jobs.tables import spool_identity
from scp_node.spool.store import Spool

pytestmark = pytest.mark.databases


@pytest.fixture
def filed(engine, jobs, spool, receive):
    """A node that has something."""
    settle(engine, spool)
    Filing(engine, jobs, spool, models=("m1",), destinations=()).accept(receive("1.2.3", b"pixels"))
    return spool


def empty_database(folder):
    engine = database.open_engine(f"sqlite:///{folder / 'other.sqlite'}")
    migrate(engine)
    return engine


def stored(spool):
    return sorted(file.name for file in spool.folder.rglob("objects/**/*.dcm"))


def test_a_new_spool_and_a_new_database_belong_together_from_then_on(engine, tmp_path):
    spool = Spool(SpoolSettings(folder=tmp_path / "new"))
    settle(engine, spool)
    said = (spool.folder / FILE).read_text()
    settle(engine, spool)
    assert (spool.folder / FILE).read_text() == said
    with engine.connect() as connection:
        assert connection.execute(sa.select(spool_identity.c.value)).scalars().all() == [said.strip()]
    assert (spool.folder / FILE).stat().st_mode & 0o777 == 0o600
    assert [file.name for file in spool.folder.iterdir() if file.name.startswith(".")] == []


def test_a_disk_that_is_not_mounted_is_no_empty_spool(engine, filed, tmp_path):
    there = tmp_path / "unmounted"
    filed.folder.rename(there)
    with pytest.raises(StartError, match="Is the disk mounted"):
        settle(engine, filed)
    # Nothing is made where nothing is to be.
    assert not filed.folder.exists() or not any(filed.folder.iterdir())
    shutil.rmtree(filed.folder, ignore_errors=True)
    there.rename(filed.folder)
    settle(engine, filed)


def test_a_spool_that_is_lost_can_be_given_up(engine, filed, tmp_path):
    filed.folder.rename(tmp_path / "lost")
    with pytest.raises(StartError) as refusal:
        settle(engine, filed)
    filed.folder.mkdir(exist_ok=True)
    (filed.folder / FILE).write_text(str(refusal.value).rpartition("the line ")[2] + "\n")
    settle(engine, filed)
    assert stored(filed) == []


def test_a_database_that_is_named_wrongly_leaves_the_spool_alone(filed, tmp_path):
    other = empty_database(tmp_path)
    before = stored(filed)
    with pytest.raises(StartError, match="holds files of another database"):
        settle(other, filed)
    # As a spool of a version before this one, which has no such file.
    (filed.folder / FILE).unlink()
    with pytest.raises(StartError, match=r"Is database\.url right"):
        settle(other, filed)
    assert stored(filed) == before
    other.dispose()


def test_two_nodes_do_not_mix_their_spools(engine, filed, tmp_path):
    other, spool = empty_database(tmp_path), Spool(SpoolSettings(folder=tmp_path / "second"))
    settle(other, spool)
    with pytest.raises(StartError, match="belongs to another database"):
        settle(other, filed)
    other.dispose()


def test_an_upgrade_takes_what_is_there(engine, filed):
    """Database and spool of a version that wrote no such file."""
    (filed.folder / FILE).unlink()
    with database.write(engine) as connection:
        connection.execute(sa.delete(spool_identity))
    settle(engine, filed)
    settle(engine, filed)
    assert (filed.folder / FILE).exists()


def test_a_database_of_before_the_upgrade_is_restored(engine, filed):
    with database.write(engine) as connection:
        connection.execute(sa.delete(spool_identity))
    settle(engine, filed)
    with engine.connect() as connection:
        [value] = connection.execute(sa.select(spool_identity.c.value)).scalars().all()
    assert (filed.folder / FILE).read_text().strip() == value


def test_a_first_start_that_was_killed_in_the_middle_goes_on(engine, tmp_path):
    spool = Spool(SpoolSettings(folder=tmp_path / "new"))
    settle(engine, spool)
    (spool.folder / FILE).unlink()
    settle(engine, spool)
    assert (spool.folder / FILE).exists()
