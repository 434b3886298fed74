"""Nothing of a patient leaves in logs, metrics, names, the database or the audit trail: every text is a canary.

A node runs at DEBUG, as a user without privileges, and gets radiographs in which each text element holds a word that
occurs nowhere else; then broken, contradictory and refused ones; then people and programs ask it about them.
"""

import json
import os
import pwd
from pathlib import Path

import pydicom
import pytest
from canaries import AGE, CANARY, DATE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    # pydicom says so of each of the values that are wrong on purpose.
    pytest.mark.filterwarnings("ignore:Invalid value:UserWarning"),
    pytest.mark.filterwarnings("ignore:The value length:UserWarning"),
]

ROOT = Path(__file__).parents[2]
SHAPES = {"dates": DATE, "ages": AGE, "words": CANARY}


def assert_no_canary(name, content):
    for what, canary in SHAPES.items():
        at = content.find(canary.encode())
        assert at < 0, f"{what} in {name}: {content[max(0, at - 200) : at + 100]!r}"


def test_the_canaries_are_there_to_be_found(told):
    """In what is meant to hold them: stored objects and results."""
    running, _, pacs = told
    spool = running.folder / "data" / "spool"
    assert any(CANARY.encode() in file.read_bytes() for file in spool.rglob("objects/**/*.dcm"))
    assert any(CANARY in str(pydicom.dcmread(item.file).PatientName) for item in pacs.objects)
    log = running.log.read_text(encoding="utf-8")
    assert '"level": "debug"' in log
    states = {one["state"] for one in running_instances(running)}
    assert states >= {"not_eligible", "dead_letter"}


def running_instances(running):
    lines = [json.loads(line) for line in running.said.splitlines() if line.startswith(b"{")]
    return [line for line in lines if {"sop_instance_uid", "state"} <= line.keys()]


def test_an_accession_number_finds_its_instance_and_is_in_no_address(told):
    running, _, _ = told
    uids, address = running.found
    assert uids == ["2.25.91"]
    assert address.startswith("/worklist?accession=")
    assert_no_canary("address", address.encode())


def test_logs_and_standard_error_are_clean(told):
    running, _, _ = told
    assert_no_canary("log", running.log.read_bytes())


def test_what_commands_say_is_clean(told):
    running, _, _ = told
    assert b"2.25.91" in running.said
    assert_no_canary("commands", running.said)


def test_metrics_are_clean(told):
    _, metrics, _ = told
    assert b"# HELP" in metrics
    assert_no_canary("metrics", metrics)


def test_the_audit_trail_is_clean(told):
    running, _, _ = told
    trail = running.folder / "data" / "audit" / "audit.jsonl"
    content = trail.read_bytes()
    assert b"110104" in content
    assert_no_canary("audit trail", content)


def test_the_database_is_clean(told):
    running, _, _ = told
    files = list((running.folder / "data").glob("node.sqlite*"))
    assert files
    for file in files:
        assert_no_canary(file.name, file.read_bytes())


def test_file_names_are_clean_and_temporary_folders_empty(told):
    running, _, _ = told
    names = "\n".join(str(path.relative_to(running.folder)) for path in running.folder.rglob("*"))
    assert_no_canary("file names", names.encode())
    assert list((running.folder / "data" / "spool" / "incoming").iterdir()) == []
    assert not [path for path in (running.folder / "tmp").rglob("*") if path.is_file()]


def test_whatever_the_node_makes_is_private(told):
    running, _, _ = told
    for path in (running.folder / "data").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path}: {path.stat().st_mode:o}"


def test_it_ran_without_privileges_and_wrote_nothing_into_its_code(told):
    running, _, _ = told
    if running.user == 0:
        pytest.skip("no Python of this version that another user can run")
    assert pwd.getpwuid(running.user).pw_name
    owned = (running.folder / "data" / "node.sqlite").stat().st_uid
    assert owned == running.user
    # Where the tests' own user runs it, the files are its own in any case.
    if running.user != os.getuid():
        for package in ("config", "inference", "scp_node"):
            assert not [path for path in (ROOT / package).rglob("*") if path.stat().st_uid == running.user]
