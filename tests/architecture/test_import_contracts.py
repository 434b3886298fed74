"""The layers hold, and each contract bites: a forbidden import planted in a copy of the sources is caught."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")

PLANTS = [
    ("layers: config <- inference <- scp_node", "config/settings.py", "import inference.records"),
    ("layers: config <- inference <- scp_node", "inference/records.py", "import scp_node.records"),
    ("inference runs offline and in training", "inference/errors.py", "import sqlalchemy"),
    ("inference runs offline and in training", "inference/imaging/planted.py", "from pynetdicom import AE"),
    ("pixels, records and results are torch-free", "inference/imaging/planted.py", "import torch"),
    ("pixels, records and results are torch-free", "scp_node/results/planted.py", "from torchvision import models"),
    ("a model can never drop an association", "scp_node/scp/planted.py", "import inference.records"),
    ("a model can never drop an association", "scp_node/delivery/planted.py", "import highdicom"),
    ("scp, results and delivery meet in jobs only", "scp_node/scp/planted.py", "import scp_node.delivery"),
    ("only jobs knows the durable engine", "scp_node/cli/planted.py", "from dbos import DBOS"),
    ("the console reaches models through child processes only", "scp_node/console/planted.py", "import torch"),
    ("training is never imported at run time", "scp_node/jobs/planted.py", "import inference.training.fit"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINTER, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_contract_is_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(("contract", "file", "line"), PLANTS)
def test_a_forbidden_import_is_caught(tmp_path, contract, file, line):
    for package in ("config", "inference", "scp_node"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / file
    text = planted.read_text(encoding="utf-8") if planted.exists() else '"""Planted."""\n'
    planted.write_text(f"{text}\n{line}\n", encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [row for row in done.stdout.splitlines() if row.rstrip().endswith("BROKEN")]
    assert any(contract in row for row in broken), done.stdout
