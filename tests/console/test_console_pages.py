"""Each page in a real browser, against a running node with a real radiograph."""

import csv
import io
import re
import zipfile
from pathlib import Path

import pydicom
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from config.console import Role

PAGES = ("/explorer", "/worklist", "/operations", "/findings", "/models", "/configuration", "/activity", "/instances/1")

expect.set_options(timeout=45_000)

pytestmark = pytest.mark.timeout(1200)
"""A busy machine loads the models slowly."""


def pixels(page, model):
    """A digest of what a panel shows."""
    return page.evaluate(
        """async (model) => {
            const canvas = document.querySelector(`#panels canvas[data-model="${model}"]`);
            const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const digest = await crypto.subtle.digest("SHA-256", all);
            return Array.from(new Uint8Array(digest)).join();
        }""",
        model,
    )


def drop(page, node, *files):
    page.goto(f"{node.address}/explorer")
    page.set_input_files("#files", [str(file) for file in files])
    page.locator("#panels canvas[data-drawn]").first.wait_for(timeout=300_000)


def test_three_models_are_compared_and_the_slider_needs_no_request(explored):
    page = explored
    expect(page.locator("#panels figure")).to_have_count(4)
    expect(page.locator("#panels .probability")).to_have_count(3)
    expect(page.locator("#facts")).to_contain_text("Explicit VR Little Endian")
    expect(page.locator("#facts")).to_contain_text("MONOCHROME1")
    expect(page.locator("#facts")).to_contain_text("15000 / 30000")
    requests = []

    def asked(request):
        requests.append(request.url)

    page.on("request", asked)
    before, original = pixels(page, "resnet18"), pixels(page, "")
    page.locator("#alpha").fill("80")
    page.locator('#panels canvas[data-drawn="jet 0.8"]').first.wait_for()
    stronger = pixels(page, "resnet18")
    assert stronger != before
    assert pixels(page, "") == original
    page.locator("#colormap").select_option("cividis")
    page.locator('#panels canvas[data-drawn="cividis 0.8"]').first.wait_for()
    assert pixels(page, "resnet18") != stronger
    page.locator("#alpha").fill("0")
    page.locator('#panels canvas[data-drawn="cividis 0"]').first.wait_for()
    assert pixels(page, "resnet18") == original
    page.get_by_role("button", name="DenseNet121", exact=True).first.click()
    expect(page.locator("#panels figure")).to_have_count(2)
    page.keyboard.press("0")
    expect(page.locator("#panels figure")).to_have_count(4)
    assert requests == []
    page.remove_listener("request", asked)
    _no_serious_fault(page, "explorer with a radiograph")


def test_a_batch_has_a_table_a_csv_and_a_sentence_for_each_file(page, node, radiograph, tmp_path):
    hostile = tmp_path / "=1+1.txt"
    hostile.write_text("not a picture")
    archive = tmp_path / "more.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(pydicom.data.get_testdata_file("CT_small.dcm"), "folder/ct.dcm")
        packed.write(hostile, "folder/@x.png")
    drop(page, node, radiograph, hostile, archive)
    expect(page.locator("#list li")).to_have_count(4)
    expect(page.locator("#list .state", has_text="not judged")).to_have_count(3)
    page.locator("#list li", has_text="ct.dcm").get_by_role("button").click()
    expect(page.locator("#verdictless")).to_contain_text("a kind of object that is no radiograph")
    page.locator("#list li", has_text="=1+1.txt").get_by_role("button").click()
    expect(page.locator("#verdictless")).to_contain_text("Cannot be read as a radiograph")
    page.locator("#table").click()
    expect(page.locator("#batch-body tr")).to_have_count(4)
    with page.expect_download() as waiting:
        page.locator("#csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8-sig"))))
    assert [row["file"] for row in rows] == ["RG1_UNCR.dcm", "'=1+1.txt", "ct.dcm", "'@x.png"]
    assert [row["outcome"] for row in rows] == ["analysed", "unreadable", "not_eligible", "unreadable"]
    assert 0 < float(rows[0]["resnet18_probability"]) < 1
    assert rows[2]["reason"] == "unsupported_class"


def test_results_come_as_dicom(explored):
    page = explored
    page.get_by_role("tab", name="Downloads").click()
    with page.expect_download() as waiting:
        page.locator("#objects").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        kinds = {name: archive.read(name) for name in archive.namelist()}
    classes = {
        pydicom.dcmread(io.BytesIO(content)).SOPClassUID.name
        for name, content in kinds.items()
        if name.endswith(".dcm")
    }
    assert "Secondary Capture Image Storage" in classes
    assert any("SR" in one for one in classes)
    assert sum(name.endswith(".png") for name in kinds) == 4


def test_a_dead_letter_is_retried_from_the_operations_page(page, node, damaged):
    uid = pydicom.dcmread(damaged).SOPInstanceUID
    number = node.wait_for(uid, "dead_letter")

    def retries():
        return [
            one for one in node.client.get(f"/api/v1/instances/{number}/history").json() if one["event"] == "retried"
        ]

    before = len(retries())
    page.goto(f"{node.address}/operations")
    with page.expect_response(re.compile(r"/retry$")) as answer:
        page.locator(f"#dead-{number}").get_by_role("button", name="Retry").click()
    assert answer.value.status == 200
    assert len(retries()) == before + 1
    node.wait_for(uid, "dead_letter")
    actions = node.client.get("/api/v1/user-actions").json()
    assert {"action": "retry", "subject": uid, "before": "dead_letter", "user_name": "local"}.items() <= next(
        one for one in actions if one["action"] == "retry"
    ).items()


def test_a_page_follows_an_instance_that_was_taken_up_again(page, node, damaged):
    number = node.wait_for(pydicom.dcmread(damaged).SOPInstanceUID, "dead_letter")
    page.goto(f"{node.address}/instances/{number}")
    chip = page.locator(".head .chip")
    expect(chip).to_have_text("given up")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("Taken up again.")).to_be_visible()
    # Nobody touches the page: it says by itself how that ended.
    expect(page.get_by_text("Taken up again.")).to_have_count(0)
    expect(chip).to_have_text("given up")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    assert page.locator("[data-refresh]").count() == 0


def test_a_day_can_be_typed(page, node):
    """The browser tells of each digit of the year: 0002, 0020, 0202."""
    page.goto(f"{node.address}/worklist")
    asked = []
    page.on("framenavigated", lambda frame: asked.append(frame.url))
    page.locator("#day").focus()
    with page.expect_navigation():
        page.keyboard.type("12312025", delay=200)
    expect(page.locator("#lines")).to_contain_text("Nothing matches")
    assert [re.sub(r".*/worklist", "", one) for one in asked] == ["?day=2025-12-31"]


def test_an_instance_is_found_and_shows_pictures_report_and_history(page, node, radiograph):
    uid = str(pydicom.dcmread(radiograph).SOPInstanceUID)
    page.goto(f"{node.address}/worklist")
    page.get_by_label("SOP Instance UID").fill(uid[:30])
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=uid).click()
    for picture in page.locator(".pictures img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => image.naturalWidth") > 200
    expect(page.locator(".pictures img")).to_have_count(4)
    expect(page.locator(".report").first).to_contain_text("Pneumonia")
    expect(page.locator(".history")).to_contain_text("analysed")
    expect(page.get_by_text("archive").first).to_be_visible()
    page.get_by_role("link", name="Open in the explorer").click()
    expect(page.locator("#panels .probability")).to_have_count(3)


def test_a_destination_answers_an_echo(page, node):
    page.goto(f"{node.address}/operations")
    page.get_by_role("button", name="Echo").click()
    expect(page.locator("#echo-archive")).to_contain_text("answers")


def test_a_long_title_of_a_model_leaves_room_for_what_is_said_of_it(page, node):
    """The facts of an instance are named beside their values; a name of 64 characters took the whole width."""
    page.goto(f"{node.address}/operations")
    facts = page.locator(".facts").first
    facts.locator("dt").first.evaluate(
        "name => { name.textContent = 'Ensemble of the University Hospital '.repeat(4) }"
    )
    shares = facts.evaluate("list => [...list.querySelectorAll('dd')].map(one => one.offsetWidth / list.offsetWidth)")
    assert min(shares) >= 0.4


def test_korean_light_and_narrow(page, node):
    page.goto(f"{node.address}/worklist")
    page.get_by_role("button", name="한국어").click()
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    expect(page.get_by_role("heading", level=1)).to_have_text("작업 목록")
    page.locator("[data-theme-to=light]").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.set_viewport_size({"width": 390, "height": 800})
    for path in PAGES:
        page.goto(f"{node.address}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_no_page_has_a_serious_accessibility_fault(page, node, theme):
    page.context.add_cookies([{"name": "scp-node-theme", "value": theme, "url": node.address}])
    for path in PAGES:
        page.goto(f"{node.address}{path}")
        # What a page is made of has no theme.
        _no_serious_fault(page, path, only_colours=theme == "light")


def _no_serious_fault(page, name, *, only_colours=False):
    # The page's own policy forbids scripts that are put into it: axe comes through the debugging interface.
    options = {"runOnly": {"type": "rule", "values": ["color-contrast"]}} if only_colours else None
    found = Axe().run(page, options=options).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == [], name


@pytest.mark.parametrize("role", list(Role))
def test_each_role_sees_and_does_what_it_may(page, guarded, node, damaged, role):
    number = node.wait_for(pydicom.dcmread(damaged).SOPInstanceUID, "dead_letter")
    page.goto(f"{guarded}/instances/{number}")
    expect(page).to_have_url(re.compile(r"/login\?next=/instances/"))
    page.get_by_label("Name").fill(role.value)
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile(rf"/instances/{number}$"))
    [cookie] = [one for one in page.context.cookies() if one["name"] == "scp-node"]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    retry = page.get_by_role("button", name="Retry")
    if role is Role.VIEWER:
        expect(retry).to_have_count(0)
    else:
        retry.click()
        expect(page.locator(".message-good")).to_have_text("Taken up again.")
        node.wait_for(pydicom.dcmread(damaged).SOPInstanceUID, "dead_letter")
    answer = page.goto(f"{guarded}/configuration")
    assert answer.status == (200 if role is Role.ADMINISTRATOR else 403)
    assert "$argon2id" not in page.content()
    page.get_by_role("button", name=f"Log out {role.value}").click()
    expect(page).to_have_url(re.compile("/login$"))
    assert page.goto(f"{guarded}/worklist").url.startswith(f"{guarded}/login")
