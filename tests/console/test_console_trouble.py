"""What the pages say when something is not as it should be: no database, a damaged file, an error nobody foresaw."""

import itertools
import re

import httpx
import pydicom
import pytest
import sqlalchemy as sa

from config.load import load
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.console import charts, pages
from scp_node.console.server import Server
from scp_node.jobs import database, user_actions
from scp_node.jobs.migrations import migrate
from scp_node.jobs.records import PredictionRecord
from scp_node.jobs.statistics import Activity, Bucket, Latency
from scp_node.jobs.tables import result

HTML = {"accept": "text/html"}


@pytest.fixture
def settings(tmp_path):
    return NodeSettings(
        database=DatabaseSettings(url=f"sqlite:///{tmp_path}/node.sqlite"),
        spool=SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0),
    )


@pytest.fixture
def empty(settings):
    """The engine and a client of a console on a new database."""
    engine = database.open_engine(settings.database.url)
    migrate(engine)
    server = Server(settings, engine, port=0)
    server.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        yield engine, client
    server.stop(10)
    engine.dispose()


def test_every_page_says_that_the_database_is_away(tmp_path):
    settings = NodeSettings(
        database=DatabaseSettings(url="postgresql+psycopg://node:secret@127.0.0.1:9/node"),
        spool=SpoolSettings(folder=tmp_path),
    )
    engine = database.open_engine(settings.database.url)
    server = Server(settings, engine, port=0)
    server.start()
    paths = ["worklist", "operations", "findings", "instances/1", "activity", "api/v1/queues", "api/v1/findings"]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
            for path in paths:
                answer = client.get(f"/{path}", headers=HTML)
                assert answer.status_code == 503, path
                assert "the database" in answer.text, path
                assert "secret" not in answer.text
                assert answer.headers["content-type"].startswith("application/json" if "api" in path else "text/html")
    finally:
        server.stop(10)
        engine.dispose()


def test_an_error_that_nobody_foresaw_is_a_sentence_too(empty, monkeypatch):
    def broken(*_args, **_values):
        raise ValueError("name of a patient")

    monkeypatch.setattr("scp_node.console.operations_pages.models_of", broken)
    monkeypatch.setattr("scp_node.console.operations_api.models_of", broken)
    # After such an error the server closes the connection.
    alone = {"connection": "close"}
    page, answer = (empty[1].get(path, headers=HTML | alone) for path in ("/models", "/api/v1/models"))
    assert page.status_code == answer.status_code == 500
    assert "an error of the program" in page.text
    assert answer.json() == {"detail": "an error of the program: its log says more"}
    assert "patient" not in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("day", ["9999-12-31", "0001-01-01", "2026-02-30", "x"])
def test_any_day_can_be_asked_for(empty, day):
    assert empty[1].get("/worklist", params={"day": day}).status_code == 200


def test_the_record_says_when_there_is_more_of_it(empty):
    engine, client = empty
    more = "only the newest are shown"

    def act(times):
        for _ in range(times):
            user_actions.record(engine, user_name="anna", role="operator", address="192.0.2.1", action="echo")

    act(200)
    assert more not in client.get("/activity").text
    act(1)
    assert more in client.get("/activity").text


@pytest.fixture
def with_results(node):
    """Adds rows of results to the first instance that has some; they are gone afterwards."""
    engine = database.open_engine(load(node.config, {}).database.url)
    numbers = itertools.count(1)
    added = []

    def add(kind, **values):
        with database.write(engine) as connection:
            row = connection.execute(sa.select(result).where(result.c.kind == kind).limit(1)).one()._mapping
            uid = f"1.2.3.4.{next(numbers)}"
            connection.execute(sa.insert(result).values({**row, "sop_instance_uid": uid, "position": 90, **values}))
        added.append(uid)
        return row["instance_id"], uid

    yield add
    with database.write(engine) as connection:
        connection.execute(sa.delete(result).where(result.c.sop_instance_uid.in_(added)))
    engine.dispose()


def test_results_of_an_earlier_analysis_are_marked(node, with_results):
    marked = "superseded by a later analysis"
    number, uid = with_results("montage", is_superseded=True)
    with_results("measurement_report", is_superseded=True)
    page = node.client.get(f"/instances/{number}").text
    # The picture, what is said of it to who cannot see it, and the report.
    assert page.count(marked) == 3
    # A browser that keeps pictures for a while keeps none that another one has taken the number of.
    numbers = re.findall(rf'src="/instances/{number}/pictures/(\d+)\.png\?of=([0-9a-f]{{12}})', page)
    assert len(numbers) == page.count("<img src=") - page.count('<img src="/assets')
    assert page.count("&amp;small=true") == 3
    results = node.client.get(f"/api/v1/instances/{number}").json()["results"]
    assert {one["sop_instance_uid"] for one in results if one["is_superseded"]} > {uid}
    assert not any(one["is_superseded"] for one in results if not one["sop_instance_uid"].startswith("1.2.3.4."))


def test_a_damaged_result_is_not_shown_and_keeps_nothing_else_from_being_shown(node, with_results):
    # A file that is not what was written has another digest.
    number, uid = with_results("montage", sha256="0" * 64)
    with_results("measurement_report", sha256="0" * 64, is_superseded=True)
    results = node.client.get(f"/api/v1/instances/{number}").json()["results"]
    place = next(index for index, one in enumerate(results) if one["sop_instance_uid"] == uid)
    answer = node.client.get(f"/instances/{number}/pictures/{place}.png", headers=HTML)
    assert answer.status_code == 500
    assert "the stored file is damaged" in answer.text
    assert node.client.get(f"/api/v1/instances/{number}/results/{place}").status_code == 500
    page = node.client.get(f"/instances/{number}").text
    assert page.count("the stored file is damaged") == 1
    assert "Pneumonia" in page
    assert node.client.get(f"/instances/{number}/pictures/0.png").status_code == 200


def test_what_was_stored_before_a_request_broke_off_is_recorded(node, radiograph, tmp_path):
    dataset = pydicom.dcmread(radiograph)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid = pydicom.uid.generate_uid()
    dataset.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    begin = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
    answer = node.client.post(
        "/dicom-web/studies",
        content=begin + (tmp_path / "one.dcm").read_bytes() + b"\r\n" + begin + b"cut",
        headers={"content-type": 'multipart/related; type="application/dicom"; boundary=b'},
    )
    assert answer.status_code == 400
    node.wait_for(uid, "delivered")
    actions = node.client.get("/api/v1/user-actions").json()
    assert [one["after"] for one in actions if one["subject"] == uid and one["action"] == "store"] == ["stored"]


def test_charts_say_that_their_times_are_no_local_ones():
    buckets = tuple(
        Bucket(begins_at=60.0 * number, received=1, analysed=1, ended=0, given_up=0, analysis_s=1.0, turnaround_s=None)
        for number in range(12)
    )
    nothing = Latency(count=0, median_s=None, p95_s=None, maximum_s=None)
    data = Activity(span_s=720, buckets=buckets, analysis=nothing, turnaround=nothing)
    assert ">00:00 UTC<" in charts.activity(data, [("received", "received")], "Throughput")
    assert ">00:00 UTC<" in charts.latency(data, [("analysis_s", "Analysis")], "Latency")


@pytest.mark.parametrize(("probability", "is_positive"), [(0.12338, False), (0.12342, True), (0.9, True), (0.0, False)])
def test_no_digits_of_a_page_contradict_a_verdict(probability, is_positive):
    said = PredictionRecord(
        model="m", title="M", version="1", weights_sha256="0", preprocessing="", probability=probability,
        threshold=0.1234, is_threshold_overridden=True, is_positive=is_positive, has_evidence=True,
    )  # fmt: skip
    shown, threshold = pages.percents(said)
    assert threshold == "12.34 %"
    assert (float(shown[:-2]) >= 12.34) == is_positive
