"""What the explorer's page makes of answers; they are made up here, so no model is needed."""

import json

import pytest
from playwright.sync_api import expect

from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.console.server import Server
from scp_node.jobs import database

expect.set_options(timeout=45_000)

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A console without a node."""
    folder = tmp_path_factory.mktemp("explorer")
    settings = NodeSettings(
        database=DatabaseSettings(url=f"sqlite:///{folder}/none.sqlite"), spool=SpoolSettings(folder=folder)
    )
    engine = database.open_engine(settings.database.url)
    server = Server(settings, engine, port=0)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop(10)
    engine.dispose()


def judging(name, number, *, is_entry=False):
    return {"event": "judging", "name": name, "number": number, "is_entry": is_entry}


def judged(name, probability=0.5, threshold=0.1):
    model = {
        "model": "resnet18", "title": "ResNet18", "version": "1", "preprocessing": "", "weights_sha256": "0",
        "probability": probability, "threshold": threshold, "is_threshold_overridden": False,
        "is_positive": probability >= threshold, "has_evidence": True, "saliency": None,
    }  # fmt: skip
    return {
        "event": "judged", "name": name, "outcome": "analysed", "reason": None, "detail": "", "window": None,
        "information": {"format": "PNG", "size_bytes": 1}, "notes": [], "predictions": [model], "picture": None,
        "duration_s": 0.1,
    }  # fmt: skip


def dropped(page, address, answers):
    """The page with files that were dropped: by their names, what the node answers."""
    page.goto(f"{address}/explorer")

    def answer(route):
        name = next(one for one in answers if f'filename="{one}"' in (route.request.post_data or ""))
        lines = "".join(json.dumps(one) + "\n" for one in answers[name])
        route.fulfill(status=200, content_type="application/x-ndjson", body=lines)

    page.route("**/api/v1/analyze*", answer)
    page.set_input_files("#files", [{"name": name, "mimeType": "", "buffer": b"x"} for name in answers])


def percents(text):
    return float(text.replace("%", "").split()[-1])


@pytest.mark.parametrize("probability", [0.12338, 0.12342])
def test_no_digits_contradict_a_verdict(page, address, probability):
    dropped(page, address, {"a.png": [judging("a.png", 1), judged("a.png", probability, 0.1234), {"event": "end"}]})
    panel = page.locator("#panels figure")
    said = percents(panel.locator(".probability").inner_text())
    threshold = percents(panel.get_by_text("Threshold 1").inner_text())
    assert (said >= threshold) == (probability >= 0.1234)
    assert panel.locator(".verdict").inner_text() == (
        "at or above threshold" if said >= threshold else "below threshold"
    )


def test_results_of_a_file_with_a_long_name_can_be_downloaded(page, address):
    """The node shortens names for people; only what came out of a ZIP file has no file of its own."""
    name = f"{'x' * 150}.png"
    dropped(page, address, {name: [judging(f"{'x' * 100}…", 1), judged(f"{'x' * 100}…"), {"event": "end"}]})
    page.get_by_role("tab", name="Downloads").click()
    expect(page.locator("#objects")).to_be_enabled()
    page.set_input_files("#files", [])


def test_of_a_zip_files_entries_nothing_can_be_downloaded(page, address):
    dropped(page, address, {"a.zip": [judging("a.png", 1, is_entry=True), judged("a.png"), {"event": "end"}]})
    page.get_by_role("tab", name="Downloads").click()
    expect(page.get_by_text("Drop the file itself")).to_be_visible()
    expect(page.locator("#objects")).to_be_disabled()


def test_who_looks_at_one_file_goes_on_looking_at_it(page, address):
    entries = [event for n in (1, 2, 3) for event in (judging(f"{n}.png", n, is_entry=True), judged(f"{n}.png"))]
    page.goto(f"{address}/explorer")
    waiting = []

    def hold(route):
        waiting.append(route)

    page.route("**/api/v1/analyze*", hold)
    page.set_input_files("#files", [{"name": name, "mimeType": "", "buffer": b"x"} for name in ("a.zip", "b.png")])
    page.locator("#list button", has_text="b.png").click()
    expect(page.locator("#list [aria-current]")).to_contain_text("b.png")
    lines = "".join(json.dumps(one) + "\n" for one in [*entries, {"event": "end"}])
    waiting[0].fulfill(status=200, content_type="application/x-ndjson", body=lines)
    expect(page.locator("#list li")).to_have_count(4)
    expect(page.locator("#list [aria-current]")).to_contain_text("b.png")
    assert page.locator("#list .file").all_inner_texts() == ["1.png", "2.png", "3.png", "b.png"]


def test_an_answer_that_breaks_off_takes_nothing_from_what_was_judged(page, address):
    first, second = judging("1.png", 1, is_entry=True), judging("2.png", 2, is_entry=True)
    dropped(page, address, {"a.zip": [first, judged("1.png"), second]})
    states = page.locator("#list .state")
    expect(states.nth(0)).to_contain_text("1 of 1 models")
    expect(states.nth(1)).to_have_text("not judged")
    page.locator("#list button", has_text="2.png").click()
    expect(page.locator("#verdictless")).to_contain_text("The console does not answer.")


def test_an_answer_that_breaks_off_between_two_files_is_no_end(page, address):
    dropped(page, address, {"a.zip": [judging("1.png", 1, is_entry=True), judged("1.png")]})
    expect(page.locator("#trouble")).to_have_text("a.zip: The console does not answer.")


def test_what_the_node_does_not_take_is_said_with_its_status(page, address):
    result = judged("a.dcm") | {"information": {"format": "DICOM", "size_bytes": 1}}
    failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0x0122]}}]}}
    page.route("**/dicom-web/studies", lambda route: route.fulfill(status=409, body=json.dumps(failed)))
    dropped(page, address, {"a.dcm": [judging("a.dcm", 1), result, {"event": "end"}]})
    page.get_by_role("tab", name="Downloads").click()
    page.get_by_role("button", name="Send this file into the node").click()
    expect(page.locator("#downloads-note")).to_have_text("The node has not taken it: status 0122.")


def test_a_dropped_folder_is_no_file_that_the_console_does_not_answer(page, address):
    page.goto(f"{address}/explorer")
    page.evaluate(
        """() => {
            const folder = { kind: "file", webkitGetAsEntry: () => ({ isDirectory: true }), getAsFile: () => null };
            const dropped = new Event("drop", { cancelable: true });
            dropped.dataTransfer = { items: [folder], files: [new File([], "folder")] };
            document.dispatchEvent(dropped);
        }"""
    )
    expect(page.locator("#trouble")).to_contain_text("Folders are not taken")
    expect(page.locator("#explorer")).to_be_hidden()
