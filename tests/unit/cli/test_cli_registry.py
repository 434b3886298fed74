"""The registry of commands: help and light commands never load torch."""

import subprocess
import sys

import pytest

from scp_node.cli.main import COMMANDS, main

_PROBE = """
import sys
from scp_node.cli.main import main
try:
    code = main({arguments!r})
except SystemExit as error:
    code = error.code
heavy = sorted({{"torch", "torchvision", "highdicom", "dbos", "cv2"}} & set(sys.modules))
print("CODE", code, "HEAVY", heavy)
"""


def probe(*arguments: str) -> str:
    """Run main() in a fresh interpreter; its last line names exit code and heavy packages that were imported."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(arguments=list(arguments))], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def test_help_imports_nothing_heavy():
    assert probe("--help") == "CODE 0 HEAVY []"


def test_help_names_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert command.name in text
        assert command.summary in text
    assert "exit codes" in text


def test_unknown_command_is_one_sentence_and_code_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ecko"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "ecko" in error
    assert error.count("\n") == 1
