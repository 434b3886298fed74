"""The console on PostgreSQL says what it says on SQLite: the same rows, every query of its pages and of its API."""

import itertools
import json
import time
from contextlib import contextmanager

import httpx
import pytest
import sqlalchemy as sa

from benchmarks.console import fill
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.console.server import Server
from scp_node.jobs import database, tables, trace, user_actions
from scp_node.jobs.accession import Pseudonyms
from scp_node.jobs.migrations import migrate
from scp_node.jobs.tables import breaker, delivery, instance, lease, prediction

INSTANCES = 300
_names = itertools.count(1)


@contextmanager
def console(url, spool):
    settings = NodeSettings(database=DatabaseSettings(url=url), spool=SpoolSettings(folder=spool, minimum_free_bytes=0))
    engine = database.open_engine(url)
    migrate(engine)
    server = Server(settings, engine, port=0)
    server.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=120) as client:
            yield engine, client
    finally:
        server.stop(10)
        engine.dispose()


def prepare(engine, spool):
    """What the pages of a busy node are made of."""
    fill(engine, INSTANCES)
    now = time.time()
    with database.write(engine) as connection:
        of = sa.update(instance)
        connection.execute(of.where(instance.c.id == 7).values(accession_pseudonym=Pseudonyms(spool).of("A-1")))
        connection.execute(of.where(instance.c.id == 8).values(state="received", updated_at=now - 9999))
        connection.execute(
            sa.update(delivery)
            .where(delivery.c.instance_id == 9)
            .values(state="waiting", last_error="refused", next_attempt_at=now + 60)
        )
        connection.execute(
            sa.insert(breaker).values(
                destination="pacs", state="open", since=now - 60, failures=3, last_error="away", last_error_at=now - 60,
                probes=1, next_probe_at=now + 5, epoch=1, is_resuming=False,
            )
        )  # fmt: skip
        connection.execute(sa.insert(lease).values(executor_id="one", started_at=now, beat_at=now + 3600))
        trace.record(
            connection, trace.Event.RECEIVED, "1.2.3.7", instance_id=7, sop_class_uid="1.2.840.10008.5.1.4.1.1.1"
        )
    user_actions.record(engine, user_name="anna", role="operator", address="192.0.2.1", action="echo", subject="pacs")


@pytest.fixture(scope="module")
def both(tmp_path_factory, postgresql):
    """Two consoles on the same rows: a client of the one on SQLite, and one of the one on PostgreSQL."""
    folder = tmp_path_factory.mktemp("databases")
    spool = folder / "spool"
    spool.mkdir()
    name = f"console_{next(_names)}"
    maintenance = sa.create_engine(
        sa.make_url(postgresql).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with maintenance.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    maintenance.dispose()
    url = sa.make_url(postgresql).set(database=name).render_as_string(hide_password=False)
    with console(f"sqlite:///{folder}/node.sqlite", spool) as (engine, one), console(url, spool) as (server, other):
        prepare(engine, spool)
        copied = (instance, prediction, delivery, breaker, lease, tables.trace, user_actions.user_action)
        with engine.connect() as reading, database.write(server) as writing:
            for table in copied:
                rows = [dict(row._mapping) for row in reading.execute(sa.select(table))]
                writing.execute(sa.insert(table), rows)
        yield one, other


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/instances?limit=500",
        "/api/v1/instances?state=dead_letter",
        "/api/v1/instances?finding=positive",
        "/api/v1/instances?finding=negative",
        "/api/v1/instances?finding=disagreement&limit=10&after=200",
        "/api/v1/instances?sender=MODALITY3&uid=1.2.3.1",
        "/api/v1/instances?received_from=2020-01-01T00:00:00Z&received_before=2100-01-01T00:00:00Z&limit=3",
        "/api/v1/instances/7",
        "/api/v1/instances/7/history",
        "/api/v1/instances/9999",
        "/api/v1/destinations",
        "/api/v1/activity?hours=24&buckets=24",
        "/api/v1/activity?hours=744&buckets=31",
        "/api/v1/findings?days=30",
        "/api/v1/storage",
        "/api/v1/user-actions",
    ],
)
def test_both_databases_answer_the_same(both, path):
    one, other = both
    before, on_postgresql, after = one.get(path), other.get(path), one.get(path)
    assert on_postgresql.status_code == before.status_code
    # A stretch of time may have begun in between.
    assert comparable(on_postgresql.json()) in [comparable(one.json()) for one in (before, after)]


def comparable(said):
    """Without what the disk says, and means to as many digits as two ways of adding up have in common."""
    match said:
        case dict():
            return {name: comparable(value) for name, value in said.items() if name != "free_bytes"}
        case list():
            return [comparable(one) for one in said]
        case float():
            return round(said, 6)
    return said


def test_both_find_an_accession_number_and_what_waits(both):
    for client in both:
        found = client.post("/api/v1/instances/search", json={"accession_number": "a-1"}).json()["entries"]
        assert [entry["instance"]["id"] for entry in found] == [7]
        queues = client.get("/api/v1/queues").json()
        assert queues["instances"]["received"] == 1
        assert queues["deliveries"]["pacs"]["waiting"] == 1
        assert queues["oldest_waiting_s"] > 600
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        [work] = [check for check in ready.json()["checks"] if check["name"] == "work"]
        assert work["detail"].startswith("1 waited more than 600 s")
        assert 'scp_node_instances{state="received"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "page",
    [
        *("/worklist", "/worklist?finding=disagreement&sender=MODALITY1&day=2026-11-23", "/instances/7"),
        *("/operations", "/operations?span=day", "/findings?days=90", "/activity", "/configuration"),
    ],
)
def test_every_page_is_made_on_both(both, page):
    assert [client.get(page).status_code for client in both] == [200, 200]


@pytest.mark.parametrize("sent", ["\0", "\ud800", "'\";--", "%_\\", "1" * 64, "九"])
def test_what_no_database_takes_is_no_server_error(both, sent):
    encoded = sent.encode("utf-8", "surrogatepass")
    quoted = "".join(f"%{byte:02x}" for byte in encoded)
    for client in both:
        for path in (
            f"/api/v1/instances?uid={quoted}", f"/api/v1/instances?sender={quoted[:48]}", f"/worklist?uid={quoted}",
            f"/worklist?sender={quoted}&state={quoted}&finding={quoted}&day={quoted}&accession={quoted}",
        ):  # fmt: skip
            assert client.get(path).status_code < 500, path
        body = json.dumps({"accession_number": sent})
        answer = client.post("/api/v1/instances/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code < 500
        assert client.post("/worklist", content=b"accession_number=" + quoted.encode() + b"&uid=" + quoted.encode(),
                           headers={"content-type": "application/x-www-form-urlencoded"}).status_code < 500  # fmt: skip
