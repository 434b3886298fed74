"""What is written down of people and patients: the audit trail of log-ins and acts; searches that leave no trace."""

import base64
import re
import time
from pathlib import Path

import httpx
import pydicom
import pytest
from lxml import etree

from config.load import load
from scp_node.audit.auditor import open_trail
from scp_node.demo.phantoms import cr

pytestmark = pytest.mark.timeout(1200)
"""A busy machine loads the models slowly."""

LIMIT_S = 300
SCHEMA = Path(__file__).parents[1] / "unit" / "audit" / "audit_message.rng"
PASSWORD = "a long enough password"  # noqa: S105 - of no user but these tests
ACCESSION_NUMBER = "QZX-4711"


@pytest.fixture(scope="module")
def examination(node, tmp_path_factory):
    """The number of an instance that has an Accession Number."""
    file = tmp_path_factory.mktemp("examination") / "cr.dcm"
    dataset = cr(seed=8)
    dataset.AccessionNumber = ACCESSION_NUMBER
    dataset.save_as(file, enforce_file_format=True)
    assert node.store(file).status_code == 200
    return node.wait_for(dataset.SOPInstanceUID, "delivered", "not_eligible")


def listed(page):
    return [int(one) for one in re.findall(r'id="line-(\d+)"', page)]


def test_the_worklist_is_searched_by_accession_number(node, examination):
    answer = node.client.post("/worklist", data={"accession_number": f" {ACCESSION_NUMBER.lower()} "})
    assert answer.status_code == 303
    address = answer.headers["location"]
    assert "4711" not in address
    page = node.client.get(address).text
    assert listed(page) == [examination]
    # It goes on with other filters, and the number is in no page of a list.
    assert "4711" not in page
    pseudonym = httpx.URL(address).params["accession"]
    both = node.client.post("/worklist", data={"accession": pseudonym, "uid": "9.9", "state": ""})
    assert httpx.URL(both.headers["location"]).params == httpx.QueryParams(uid="9.9", accession=pseudonym)
    assert listed(node.client.get(both.headers["location"]).text) == []
    assert listed(node.client.get("/worklist", params={"accession": ACCESSION_NUMBER}).text) == []
    none = node.client.post("/worklist", data={"accession_number": "QZX-4712"})
    assert listed(node.client.get(none.headers["location"]).text) == []
    # Who may see the instance may see its number.
    assert ACCESSION_NUMBER in node.client.get(f"/instances/{examination}").text


def test_programs_search_by_accession_number_in_the_body(node, examination):
    asked = {"accession_number": ACCESSION_NUMBER}
    found = node.client.post("/api/v1/instances/search", json=asked).json()["entries"]
    assert [one["instance"]["id"] for one in found] == [examination]
    assert node.client.get(f"/api/v1/instances/{examination}").json()["accession_number"] == ACCESSION_NUMBER
    other = node.client.post("/api/v1/instances/search", json={**asked, "state": "dead_letter"})
    assert other.json()["entries"] == []
    # What is wrong with a request is told without what was in it.
    wrong = node.client.post("/api/v1/instances/search", json={"accession_number": ACCESSION_NUMBER * 20})
    assert wrong.status_code == 422
    assert "4711" not in wrong.text


def test_a_search_comes_from_the_sessions_own_page(guarded, examination):
    with httpx.Client(base_url=guarded, timeout=240) as client:
        client.post("/login", data={"name": "viewer", "password": PASSWORD})
        [token] = re.findall(r'data-csrf="([^"]+)"', client.get("/worklist").text)
        form = {"accession_number": ACCESSION_NUMBER}
        assert client.post("/worklist", data=form).headers["location"] == "/worklist"
        found = client.post("/worklist", data={**form, "csrf": token}).headers["location"]
        assert listed(client.get(found).text) == [examination]


class Audited:
    """One message of the trail as a collector reads it."""

    def __init__(self, text):
        self.root = etree.fromstring(text)
        event = self.root.find("EventIdentification")
        self.event = event.find("EventID").get("csd-code")
        self.kinds = [one.get("csd-code") for one in event.findall("EventTypeCode")]
        self.outcome = event.get("EventOutcomeIndicator")
        self.words = event.findtext("EventOutcomeDescription") or ""
        asked = [one for one in self.root.findall("ActiveParticipant") if one.get("UserIsRequestor") == "true"]
        self.people = [(one.get("UserID"), one.get("NetworkAccessPointID")) for one in asked]
        self.objects = [one.get("UID") for one in self.root.iter("Instance")]


def wait_for(node, *conditions):
    """The messages that meet each condition, once each is met."""
    settings = load(node.config, {})
    deadline = time.monotonic() + LIMIT_S
    while True:
        messages = [Audited(entry.message) for entry in open_trail(settings).entries()]
        found = [[message for message in messages if condition(message)] for condition in conditions]
        if all(found):
            schema = etree.RelaxNG(etree.parse(SCHEMA))
            assert [one.root for several in found for one in several if not schema.validate(one.root)] == []
            return found
        assert time.monotonic() < deadline, [etree.tostring(message.root) for message in messages]
        time.sleep(0.2)


def test_log_ins_and_log_outs_are_audited(guarded, node):
    with httpx.Client(base_url=guarded, timeout=240) as client:
        client.post("/login", data={"name": "operator", "password": "wrong"})
        client.post("/login", data={"name": "Hong^Gildong", "password": "wrong"})
        client.post("/login", data={"name": "operator", "password": PASSWORD})
        [token] = re.findall(r'data-csrf="([^"]+)"', client.get("/worklist").text)
        client.post("/logout", data={"csrf": token})
    refused, unknown, logged_in, logged_out = wait_for(
        node,
        lambda one: one.event == "110114" and one.outcome == "4" and one.people == [("operator", "127.0.0.1")],
        lambda one: one.event == "110114" and one.outcome == "4" and one.people == [("?", "127.0.0.1")],
        lambda one: one.kinds == ["110122"] and one.outcome == "0" and one.people == [("operator", "127.0.0.1")],
        lambda one: one.kinds == ["110123"] and one.people == [("operator", "127.0.0.1")],
    )
    assert refused[0].words == "refused: wrong name or password"
    assert refused[0].kinds == unknown[0].kinds == ["110122"]
    assert {one.event for one in (*logged_in, *logged_out)} == {"110114"}


def test_a_program_is_told_of_once_and_not_with_each_request(guarded, node):
    def basic(password):
        return {"authorization": "Basic " + base64.b64encode(f"administrator:{password}".encode()).decode()}

    def told():
        return [one for one in node.client.get("/api/v1/user-actions", params={"limit": 500}).json()
                if one["action"] == "log_in" and one["user_name"] == "administrator"]  # fmt: skip

    with httpx.Client(base_url=guarded, timeout=240) as client:
        assert client.get("/metrics", headers=basic(PASSWORD)).status_code == 200
        before = told()
        for _ in range(3):
            assert client.get("/metrics", headers=basic(PASSWORD)).status_code == 200
        assert told() == before
        assert before[0]["after"] == ""
        assert client.get("/metrics", headers=basic("wrong")).status_code == 401
        assert told()[0]["after"] == "refused: wrong name or password"
        # What is right clears what was wrong.
        client.post("/login", data={"name": "administrator", "password": PASSWORD})


def test_acts_refusals_and_downloads_are_audited(guarded, node, radiograph, damaged):
    good, bad = pydicom.dcmread(radiograph).SOPInstanceUID, pydicom.dcmread(damaged).SOPInstanceUID
    delivered, dead = node.wait_for(good, "delivered"), node.wait_for(bad, "dead_letter")
    result = node.client.get(f"/api/v1/instances/{delivered}").json()["results"][0]["sop_instance_uid"]
    with httpx.Client(base_url=guarded, timeout=240, auth=("operator", PASSWORD)) as client:
        assert client.post(f"/api/v1/instances/{dead}/retry").status_code == 200
        assert client.post(f"/api/v1/instances/{delivered}/cancel").status_code == 409
        assert client.get(f"/api/v1/instances/{delivered}/results/0").status_code == 200
        assert client.get(f"/api/v1/instances/{delivered}/source").status_code == 200
        assert client.post(f"/api/v1/instances/{delivered}/retry", auth=("viewer", PASSWORD)).status_code == 403
    who, viewer = ("operator", "127.0.0.1"), ("viewer", "127.0.0.1")
    retried, refused, taken, source, restricted = wait_for(
        node,
        lambda one: "taken up again" in one.words and one.people == [who],
        lambda one: one.words.startswith("cancel: refused") and one.people == [who],
        # Other tests take the same objects from this node, as somebody else.
        lambda one: one.event == "110106" and one.objects == [result] and one.people == [who],
        lambda one: one.event == "110106" and one.objects == [good] and one.people == [who],
        lambda one: one.kinds == ["110132"] and one.people == [viewer],
    )
    assert [(one.event, one.outcome, one.objects) for one in retried[-1:]] == [("110103", "0", [bad])]
    assert (refused[0].event, refused[0].outcome, refused[0].objects) == ("110103", "4", [good])
    assert taken[0].outcome == source[0].outcome == "0"
    assert (restricted[0].event, restricted[0].outcome) == ("110113", "8")
    node.wait_for(bad, "dead_letter")


def test_who_stored_by_stow_is_audited(guarded, node, tmp_path):
    dataset = cr(seed=9)
    dataset.save_as(tmp_path / "cr.dcm", enforce_file_format=True)
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + (tmp_path / "cr.dcm").read_bytes() + b"\r\n--b--\r\n"
    headers = {"content-type": 'multipart/related; type="application/dicom"; boundary=b'}
    with httpx.Client(base_url=guarded, timeout=240, auth=("operator", PASSWORD)) as client:
        assert client.post("/dicom-web/studies", content=body, headers=headers).status_code == 200
    [[message]] = wait_for(node, lambda one: one.event == "110104" and one.objects == [dataset.SOPInstanceUID])
    assert message.people == [("STOW-RS", "127.0.0.1"), ("operator", "127.0.0.1")]
