"""Rules of the sources that no linter knows; each rule is also shown a violation, so that it cannot rot."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(file for package in ("config", "inference", "scp_node") for file in (ROOT / package).rglob("*.py"))

MAXIMUM_LINES = 400

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MAY_UNPICKLE = {
    "inference/training/fit.py": "resumes a training run from its own folder, tensors only (weights_only)",
    "inference/models/importing.py": "`scp-node models import FILE`, tensors only (weights_only), never while serving",
}
"""File -> why it may read a pickle: only files that a person names on the command line, never at run time."""

STATUS_LITERAL = re.compile(
    r"0x(010[5-7]|011[0-9a]|012[0-4]|021[0-3]|a[79][0-9a-f]{2}|b[0-9a-f]{3}|c[0-9a-f]{3}|fe00|ff0[01])",
    re.IGNORECASE,
)
"""PS3.7 Annex C and PS3.4 Table B.2-1. Success, 0x0000, is a group and a mask too: see RETURNED_SUCCESS."""

RETURNED_SUCCESS = re.compile(r"(\breturn|[sS]tatus\S* *(?:==|!=|=)) *0x0000\b")


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def unpickling(source: str) -> Iterator[str]:
    """Imports and calls that can run code hidden in data."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("torch.load", "eval", "exec", "yaml.load"):
                yield called
            yield from (
                "allow_pickle" for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) != "False"
            )
        yield from (name for name in names if name.partition(".")[0] in UNPICKLERS or name == "torch.load")


def status_literals(source: str) -> Iterator[str]:
    """Hexadecimal numbers that are DIMSE statuses."""
    yield from (match.group() for match in RETURNED_SUCCESS.finditer(source))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NUMBER and STATUS_LITERAL.fullmatch(token.string):
            yield f"{token.string} in line {token.start[0]}"


def test_init_files_are_empty():
    """An import there would drag torch into everything, and no import linter sees it."""
    assert [
        relative(file) for file in SOURCES if file.name == "__init__.py" and file.read_text(encoding="utf-8").strip()
    ] == []


def test_no_module_is_called_after_nothing():
    names = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert [relative(file) for file in SOURCES if names & {file.stem, *file.relative_to(ROOT).parts[:-1]}] == []


def test_no_module_is_too_long():
    lengths = {relative(file): len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert {file for file, lines in lengths.items() if lines > MAXIMUM_LINES} == set()


def test_every_module_says_what_it_is_for():
    silent = [
        relative(file)
        for file in SOURCES
        if file.name != "__init__.py" and not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_nothing_unpickles():
    found = {relative(file): sorted(set(unpickling(file.read_text(encoding="utf-8")))) for file in SOURCES}
    assert {file for file, names in found.items() if names} == set(MAY_UNPICKLE)


def test_what_may_unpickle_takes_tensors_only():
    for file in MAY_UNPICKLE:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import joblib.numpy_pickle",
        "from pickle import loads",
        "from torch import load",
        "torch.load(file)",
        "np.load(file, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_unpickling_would_be_seen(source):
    assert list(unpickling(source))


def test_dimse_statuses_are_written_in_statuses_modules_only():
    found = {
        relative(file): list(status_literals(file.read_text(encoding="utf-8")))
        for file in SOURCES
        if file.name != "statuses.py"
    }
    assert {file: literals for file, literals in found.items() if literals} == {}


@pytest.mark.parametrize("literal", ["0xA700", "0xa9ff", "0xC210", "0xB007", "0x0122", "0xFF00"])
def test_a_status_literal_would_be_seen(literal):
    assert list(status_literals(f"x = {literal}\n"))


@pytest.mark.parametrize(
    "line", ["return 0x0000", "rsp.Status = 0x0000", "status == 0x0000", "answer.Status != 0x0000"]
)
def test_success_as_a_literal_would_be_seen(line):
    assert list(status_literals(f"def f():\n    {line}\n"))


def test_tags_are_no_statuses():
    assert not list(status_literals("a = (0x0028, 0x0010, 0x7FE0, 0x2050, 0x0018)\n"))
