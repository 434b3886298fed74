"""Some seconds of each fuzzer with a fixed seed; `make fuzz MINUTES=n` goes on for longer."""

import re
import sys

import pytest

from tests.fuzz.__main__ import TARGETS, fuzz

pytest.importorskip("atheris", reason="atheris has no wheel for this Python or system")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", TARGETS)
def test_ten_seconds_find_nothing(target, tmp_path):
    done = fuzz(target, tmp_path, 10, "-seed=1")
    found = [file.name for file in tmp_path.iterdir() if file.is_file()]
    assert done.returncode == 0, done.stdout[-4000:]
    assert found == []
    executed = re.search(r"stat::number_of_executed_units: +(\d+)", done.stdout)
    assert executed is not None
    # Every seed at least: a target that dies at once would find nothing either.
    assert int(executed.group(1)) >= len(list((tmp_path / target).glob("seed-*"))), sys.version
