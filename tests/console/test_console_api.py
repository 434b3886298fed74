"""The API, STOW-RS, health and metrics, against a running node."""

import json
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from scp_node.console import texts
from scp_node.console.analyze_api import to_csv

CONSOLE = Path(texts.__file__).parent

pytestmark = pytest.mark.timeout(1200)
"""A busy machine loads the models slowly."""


def test_the_node_is_alive_and_ready(node):
    assert node.client.get("/health/live").json() == {"status": "alive"}
    # A worker that this machine holds up may just have missed a beat.
    deadline = time.monotonic() + 60
    while (answer := node.client.get("/health/ready")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)
    assert {check["name"] for check in answer.json()["checks"]} == {"database", "worker", "work", "disk"}


def test_metrics_count_what_happened_and_name_no_patient(node, radiograph):
    lines = (
        r'scp_node_events_total\{event="received"\} ([2-9]|\d\d)',
        r'scp_node_instances\{state="delivered"\} [1-9]',
        r'scp_node_not_judged\{reason="unreadable",state="dead_letter"\} [1-9]',
        r'scp_node_destination_up\{destination="archive"\} 1.0',
        r'scp_node_ready\{check="worker"\} 1.0',
        r"scp_node_disk_free_bytes \d",
        r'scp_node_analysis_seconds_bucket\{le="\+Inf"\}',
    )
    # Events are counted when they have settled: a node that has just started has none.
    deadline = time.monotonic() + 60
    text = ""
    while missing := [line for line in lines if not re.search(line, text)]:
        assert time.monotonic() < deadline, (missing, text)
        time.sleep(0.2)
        text = node.client.get("/metrics").text
    dataset = pydicom.dcmread(radiograph)
    for value in (dataset.PatientID, dataset.SOPInstanceUID, dataset.StudyInstanceUID, str(dataset.PatientName)):
        assert not value or str(value) not in text


def test_metrics_count_what_was_refused_by_reason(node, tmp_path):
    """By the receiver and by STOW-RS; names that somebody made up are in no label."""
    from pynetdicom import AE

    stranger = AE("HONG^GILDONG")
    stranger.add_requested_context("1.2.840.10008.1.1")
    assert stranger.associate("127.0.0.1", node.receiver_port, ae_title="SOMEBODY").is_rejected
    (tmp_path / "rubbish").write_bytes(b"no DICOM")
    node.store(tmp_path / "rubbish")
    wanted = [
        r'scp_node_refused_total\{reason="called_ae_title",what="association_rejected"\} [1-9]',
        r'scp_node_refused_total\{reason="c000",what="c_store"\} [1-9]',
    ]
    deadline = time.monotonic() + 300
    while not all(re.search(line, text := node.client.get("/metrics").text) for line in wanted):
        assert time.monotonic() < deadline, text
        time.sleep(0.2)
    assert "HONG" not in text


def test_files_are_judged_and_nothing_is_kept(node, radiograph):
    before = node.client.get("/api/v1/queues").json()
    files = [("file", ("chest.dcm", radiograph.read_bytes())), ("file", ("x.png", b"\x89PNG\r\n\x1a\nrubbish"))]
    results = node.client.post("/api/v1/analyze", files=files).json()["results"]
    assert [one["outcome"] for one in results] == ["analysed", "unreadable"]
    assert results[0]["information"]["sop_class"] == "Computed Radiography Image Storage"
    assert [one["model"] for one in results[0]["predictions"]] == ["resnet18", "efficientnet_b0", "densenet121"]
    assert results[0]["picture"] is None
    assert node.client.get("/api/v1/queues").json()["instances"] == before["instances"]


def test_the_explorer_says_what_the_node_says(node, radiograph):
    """The same radiograph, judged as a received instance and as a dropped file."""
    uid = pydicom.dcmread(radiograph).SOPInstanceUID
    number = node.wait_for(uid, "delivered")
    filed = node.client.get(f"/api/v1/instances/{number}").json()["predictions"]
    dropped = node.client.post("/api/v1/analyze", files={"file": ("c.dcm", radiograph.read_bytes())}).json()
    said = [one["probability"] for one in dropped["results"][0]["predictions"]]
    assert said == pytest.approx([one["probability"] for one in filed], abs=1e-4)


def test_stow_goes_the_way_of_c_store(node, tmp_path):
    from scp_node.demo.phantoms import cr

    file = tmp_path / "cr.dcm"
    cr(seed=5).save_as(file, enforce_file_format=True)
    dataset = pydicom.dcmread(file)
    client = DICOMwebClient(url=f"{node.address}/dicom-web")
    client.store_instances([dataset])
    number = node.wait_for(dataset.SOPInstanceUID, "delivered", "not_eligible")
    detail = node.client.get(f"/api/v1/instances/{number}").json()
    assert detail["instance"]["calling_ae_title"] == "STOW-RS"
    history = [one["event"] for one in node.client.get(f"/api/v1/instances/{number}/history").json()]
    assert history[0] == "received"
    # The same again is no second instance, and says so in the history.
    client.store_instances([dataset])
    for uid in (dataset.SOPInstanceUID, dataset.StudyInstanceUID):
        [entry] = node.client.get("/api/v1/instances", params={"uid": uid}).json()["entries"]
        assert entry["instance"] | {"id": number, "study_instance_uid": dataset.StudyInstanceUID} == entry["instance"]


def test_stow_says_which_objects_it_does_not_take(node, tmp_path):
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"no DICOM")
    answer = node.store(rubbish)
    assert answer.status_code == 409
    assert answer.headers["content-type"].startswith("application/dicom+json")
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]
    ct = node.store(Path(pydicom.data.get_testdata_file("CT_small.dcm")))
    assert ct.status_code == 409
    assert ct.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0x0122]
    other = node.client.post("/dicom-web/studies", content=b"", headers={"content-type": "application/json"})
    assert other.status_code == 415


def test_a_spreadsheet_runs_no_formula():
    result = {
        "name": '=HYPERLINK("http://x")', "outcome": "unreadable", "reason": "unreadable", "detail": "@SUM(1)",
        "predictions": [], "duration_s": 0.0,
    }  # fmt: skip
    line = to_csv([result]).splitlines()[1]
    assert line.startswith("\"'=HYPERLINK")
    assert "'@SUM" in line


def test_every_text_has_a_translation():
    words = texts.translations("ko")
    missing = []
    for file in (CONSOLE / "templates").glob("*.html"):
        source = file.read_text(encoding="utf-8")
        said = re.findall(r'_\(\s*"((?:[^"\\]|\\.)*)"', source) + re.findall(r"_\(\s*'((?:[^'\\]|\\.)*)'", source)
        missing += [(file.name, text) for text in said if text not in words]
    assert missing == []
    assert all(value.strip() for value in words.values())


def test_the_page_uses_the_colours_of_the_pictures():
    import base64

    from scp_node.results import overlay

    packed = json.loads((CONSOLE / "assets" / "colormaps.json").read_text(encoding="utf-8"))
    assert set(packed) == set(overlay.COLORMAPS)
    black = np.zeros((1, 1), np.uint8)
    for name, text in packed.items():
        table = np.frombuffer(base64.b64decode(text), np.uint8).reshape(256, 3)
        for level in (64, 128, 255):
            drawn = overlay.blend(black, np.full((1, 1), level / 255, np.float32), name, 1.0)[0, 0]
            expected = table[level].astype(int) * round(256 * level / 255) // 256
            assert np.abs(drawn.astype(int) - expected).max() <= 2, (name, level)


def test_no_request_of_the_documented_api_ends_in_a_server_error(node):
    """Schemathesis makes requests from the OpenAPI document; uploads and echoes have tests of their own."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{node.address}/api/v1/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if "analyze" in operation.path or operation.path.startswith("/dicom-web"):
            continue

        @given(case=operation.as_strategy())
        @settings(
            max_examples=6, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def attempt(case):
            answer = case.call(timeout=240)
            allowed = (503,) if case.operation.path == "/health/ready" else ()
            assert answer.status_code < 500 or answer.status_code in allowed, (case.operation.path, answer.text)

        attempt()
        tried += 1
    assert tried > 15


def test_a_console_without_a_node_says_what_is_missing(tmp_path):
    from config.settings import NodeSettings
    from config.storage import DatabaseSettings, SpoolSettings
    from scp_node.console.server import Server
    from scp_node.jobs import database

    settings = NodeSettings(
        database=DatabaseSettings(url=f"sqlite:///{tmp_path}/none.sqlite"), spool=SpoolSettings(folder=tmp_path)
    )
    engine = database.open_engine(settings.database.url)
    server = Server(settings, engine, port=0)
    server.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
            ready = client.get("/health/ready")
            assert ready.status_code == 503
            assert "start the node once" in ready.text
            worklist = client.get("/worklist", headers={"accept": "text/html"})
            assert worklist.status_code == 503
            assert "start the node once" in worklist.text
            assert client.get("/api/v1/instances").status_code == 503
            assert 'scp_node_ready{check="database"} 0.0' in client.get("/metrics").text
    finally:
        server.stop(10)
        engine.dispose()


def test_what_the_node_says_is_said_in_korean_too():
    say = texts.speaker("ko")
    assert say("3 alive") == "3개 작동 중"
    # One sentence in another.
    assert say("no attribute names a known view: accepted") == "알려진 촬영 방향을 나타내는 속성이 없음: 허용함"
    assert say("refused: needs the role operator") == "거부됨: 운영자 역할이 필요함"
    assert say("something else {}") == "something else {}"
    assert texts.speaker("en")("3 alive") == "3 alive"


def test_no_sentence_is_translated_that_nobody_says():
    """A sentence that is changed in the program must be changed in the translation."""
    root = CONSOLE.parents[1]
    files = [
        *(root / "inference" / "imaging").glob("*.py"),
        *(root / "scp_node").rglob("*.py"),
        *(root / "config").glob("*.py"),
    ]
    # Literals that go on in the next line are one.
    said = re.sub(r'"\s+f?"', "", " ".join(file.read_text(encoding="utf-8") for file in files))
    said += " Not Found "  # Starlette's
    sentences = json.loads((CONSOLE / "sentences_ko.json").read_text(encoding="utf-8"))
    for english, korean in sentences.items():
        assert english.count("{}") == korean.count("{}"), english
        for piece in english.split("{}"):
            assert piece.strip(" :;()") in said, english
