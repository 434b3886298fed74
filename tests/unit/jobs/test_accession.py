"""An Accession Number finds its instances, and stands nowhere in the database."""

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.jobs.accession import KEY_FILE, Pseudonyms, is_pseudonym
from scp_node.jobs.intake import Filing
from scp_node.jobs.reading import Reader
from scp_node.jobs.records import InstanceFilter
from scp_node.jobs.tables import instance


def test_one_number_has_one_pseudonym_wherever_it_is_asked_for(tmp_path):
    first, second = Pseudonyms(tmp_path), Pseudonyms(tmp_path)
    pseudonym = first.of("A-4711")
    assert is_pseudonym(pseudonym)
    assert second.of(" a-4711 \0") == pseudonym
    assert second.of("A-4712") != pseudonym
    assert second.of("  ") is None
    # Decomposed or not, it looks the same to who types it.
    assert first.of("\u1100\u1161") == first.of("가")
    assert is_pseudonym(first.of("\udcff"))


def test_nobody_knows_a_pseudonym_without_the_key(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert Pseudonyms(tmp_path / "one").of("A-4711") != Pseudonyms(tmp_path / "other").of("A-4711")
    assert stat.S_IMODE((tmp_path / "one" / KEY_FILE).stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "one").iterdir()] == [KEY_FILE]


def test_processes_that_make_the_key_at_once_make_one(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: Pseudonyms(tmp_path).of("A-4711"), range(32)))) == 1
    assert [file.name for file in tmp_path.iterdir()] == [KEY_FILE]


@pytest.mark.databases
def test_instances_of_a_number_are_found_and_the_number_is_not(engine, jobs, spool, receive):
    filing = Filing(engine, jobs, spool, models=("m1",), destinations=())
    for number, accession_number in enumerate(("A-4711", "A-4712", "", "a-4711 ")):
        filing.accept(receive(f"1.2.{number}", b"%d" % number, accession_number=accession_number))
    settings = NodeSettings(
        spool=SpoolSettings(folder=spool.folder, minimum_free_bytes=0),
        database=DatabaseSettings(url=engine.url.render_as_string(hide_password=False)),
    )
    pseudonym = Pseudonyms(spool.folder).of("A-4711")
    with Reader(settings) as reader:
        found = reader.page(InstanceFilter(accession_pseudonym=pseudonym), limit=1)
        older = reader.page(InstanceFilter(accession_pseudonym=pseudonym), limit=1, after=found.next_after)
        nothing = reader.page(InstanceFilter(accession_pseudonym="A-4711"))
    assert [one.sop_instance_uid for one in (*found.records, *older.records)] == ["1.2.3", "1.2.0"]
    assert nothing.records == ()
    with engine.connect() as connection:
        assert "4711" not in str(connection.execute(sa.select(instance)).all())


def test_a_key_that_cannot_be_read_keeps_no_radiograph_out(engine, jobs, spool, receive):
    (spool.folder / KEY_FILE).write_bytes(b"short")
    Filing(engine, jobs, spool, models=("m1",), destinations=()).accept(receive("1.2.3", accession_number="A-4711"))
    with engine.connect() as connection:
        assert connection.execute(sa.select(instance.c.accession_pseudonym)).scalars().all() == [None]


def test_the_number_of_a_received_object_is_not_printed(receive):
    assert "A-4711" not in repr(receive(accession_number="A-4711"))


def test_the_search_goes_by_index(engine):
    query = "SELECT * FROM instance WHERE accession_pseudonym = 'x' AND id < 9 ORDER BY id DESC LIMIT 50"
    with engine.connect() as connection:
        plan = " ".join(row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
    assert "instance_by_accession" in plan
    assert "TEMP B-TREE" not in plan
