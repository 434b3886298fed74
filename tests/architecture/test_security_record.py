"""What ``docs/security.md`` claims to be shown by a test is: the files and tests that it names exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECORD = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SOURCES = sorted(file for package in ("config", "inference", "scp_node") for file in (ROOT / package).rglob("*.py"))
FINDINGS = {f"M{number}" for number in range(1, 13)}
REQUIREMENTS = {
    *(f"SEC-{number:02}" for number in range(1, 14)),
    *(f"SEC-{number}" for number in (*range(20, 29), *range(30, 49), *range(50, 53), *range(60, 64), *range(70, 77))),
    *(f"SEC-{number}" for number in range(80, 84)),
}
CLIENTS = {"ftplib", "http.client", "httpx", "huggingface_hub", "requests", "torch.hub", "urllib.request"}


def rows(start):
    """Cells of the table rows whose first cell begins so."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in RECORD.splitlines() if start in line[:8]]


def named_files(cell):
    """Paths that a cell names; a bare file name lies beside the one before it."""
    folder = Path("tests")
    for name in re.findall(r"`([^`]+)`", cell):
        if name.startswith("tests/"):
            path = Path(name)
            folder = path if name.endswith("/") else path.parent
            yield path
        elif re.fullmatch(r"test_\w+\.py", name):
            yield folder / name


def test_every_finding_and_requirement_has_its_row():
    assert {row[0] for row in rows("| M")} == FINDINGS
    covered = set()
    for row in rows("| SEC-"):
        for part in row[0].split(", "):
            first, _, last = part.partition(" to ")
            numbers = range(int(first[4:]), int((last or first)[4:]) + 1)
            covered |= {f"SEC-{number:02}" for number in numbers}
    assert covered == REQUIREMENTS


@pytest.mark.parametrize("row", rows("| SEC-"), ids=lambda row: row[0])
def test_the_files_of_a_requirement_exist(row):
    missing = [str(path) for path in named_files(row[-1]) if not (ROOT / path).exists()]
    assert missing == []
    assert re.search(r"`|\]\(|SECURITY.md", row[-1]), "nothing shows it"


@pytest.mark.parametrize("row", rows("| M"), ids=lambda row: row[0])
def test_the_tests_of_a_finding_exist(row):
    (file,) = named_files(row[-1])
    functions = {
        node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`(test_m\w+)`", row[-1]))
    assert named
    assert named <= functions
    number = row[0].lower()
    assert {name for name in functions if name.startswith(f"test_{number}_")} == named


def imported(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names))


def test_nothing_at_run_time_can_download():
    """SEC-63: no module knows a client of the web."""
    found = {str(file): CLIENTS & set(imported(file.read_text(encoding="utf-8"))) for file in SOURCES}
    assert {file: clients for file, clients in found.items() if clients} == {}


@pytest.mark.parametrize("source", ["import requests", "from urllib import request", "import torch.hub"])
def test_a_client_of_the_web_would_be_seen(source):
    assert CLIENTS & set(imported(source))
