"""What a command imports before it does anything: what it must not, and how many modules."""

import subprocess
import sys

import pytest

_COUNT = """
import sys
from scp_node.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("modules", len(sys.modules), *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
_HEAVY = {"torch", "torchvision", "openvino", "cv2", "highdicom", "imagecodecs", "matplotlib", "PIL", "dbos"}


def imported(folder, *command):
    done = subprocess.run(
        [sys.executable, "-c", _COUNT, *command], cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )
    _, count, *packages = done.stderr.strip().splitlines()[-1].split()
    return int(count), set(packages)


@pytest.mark.parametrize(
    ("command", "measured", "without"),
    [
        (("--help",), 253, _HEAVY | {"numpy", "pydicom", "pynetdicom", "sqlalchemy"}),
        (("config", "show"), 255, _HEAVY | {"numpy", "pydicom", "pynetdicom", "sqlalchemy"}),
        (("echo", "--port", "9"), 407, _HEAVY | {"sqlalchemy"}),
        (("jobs", "list"), 457, _HEAVY | {"numpy", "pydicom", "pynetdicom"}),
    ],
)
def test_commands_import_what_they_need(tmp_path, command, measured, without):
    """Modules of one in ten more are allowed: Python and libraries add some with their releases."""
    if command[0] == "jobs":
        from scp_node.jobs import database
        from scp_node.jobs.migrations import migrate

        (tmp_path / "scp-node-data").mkdir()
        engine = database.open_engine(f"sqlite:///{tmp_path / 'scp-node-data' / 'node.sqlite'}")
        migrate(engine)
        engine.dispose()
    count, packages = imported(tmp_path, *command)
    assert not packages & without
    assert count <= 1.1 * measured
