"""What a child process can do that was taken over by what it decodes: real children try it (SEC-26)."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from config.analysis import AnalysisSettings
from scp_node.jobs.analysis_children import writable_by_children
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError
from scp_node.jobs.children import ChildPool

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="confinement is for Linux"
)

DEEDS = {
    "a socket",
    "a datagram",
    "a local socket",
    "a socket from another thread",
    "a program",
    "a program instead",
    "a process",
    "a new file",
    "writing over",
    "cutting off",
    "removing",
    "a signal to the parent",
}
"""What any process of this user can do here."""


def has_landlock():
    program = "import sys\nfrom scp_node.security.confinement import confine\nsys.exit(bool(confine([])))"
    return subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def pool_of(monkeypatch, tmp_path):
    """Makes a pool of one child that knows a folder of its own and one of others."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").write_text("whole")
    pools = []

    def make(target="intruder", *, is_confined=True):
        arguments = {"inside": str(inside), "outside": str(outside), "cache": str(outside)}
        writable = (inside,) if is_confined else None
        pool = ChildPool(f"child_targets:{target}", arguments, count=1, time_limit_s=60, writable=writable)
        pools.append(pool)
        pool.start()
        return pool

    yield make
    for pool in pools:
        pool.stop(0.1)


def test_a_child_that_is_not_confined_can_do_it(pool_of, tmp_path):
    """Or the next test would show nothing."""
    (tmp_path / "outside" / "moved").mkdir()  # so that the file stays where it is
    assert set(pool_of(is_confined=False).run({})["done"]) >= DEEDS


def test_a_child_that_is_not_confined_reports_what_it_may_not(pool_of, tmp_path):
    (tmp_path / "outside" / "new").mkdir()
    with pytest.raises(ChildFailedError, match="IsADirectoryError"):
        pool_of(is_confined=False).run({"order": "forbidden write"})


def test_a_confined_child_can_do_nothing_of_it(pool_of, tmp_path):
    if not has_landlock():
        pytest.skip("this kernel has no Landlock")
    pool = pool_of()
    answer = pool.run({})
    assert answer["done"] == []
    assert (tmp_path / "outside" / "file").read_text() == "whole"
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]
    # and what it is for, it can
    assert (tmp_path / "inside" / "folder" / "file").read_text() == "whole"
    assert answer["threads"] == [0, 1, 2, 3]
    assert answer["core"] == [0, 0]
    # PyTorch asks for a temporary file as it is imported.
    assert Path(answer["temporary"]).exists()
    pool.stop(5)
    assert not Path(answer["temporary"]).parent.exists()


def test_a_write_that_is_not_permitted_costs_the_child(pool_of):
    """Its folder may have been mounted anew: the child that follows can write there."""
    if not has_landlock():
        pytest.skip("this kernel has no Landlock")
    with pytest.raises(ChildCrashError, match="exit code 77"):
        pool_of().run({"order": "forbidden write"})


def test_models_are_compiled_by_a_child_that_is_not_confined(pool_of, tmp_path):
    pool = pool_of("unprepared")
    assert pool.wait_ready(60)
    (pid,) = pool.processes
    assert pid != int((tmp_path / "outside" / "compiled").read_text())
    assert pool.broken is None


def test_without_landlock_the_rest_holds_and_what_is_missing_is_named():
    """As in containers whose runtime knows no Landlock: a filter refuses its system calls."""
    program = """
import ctypes, errno, os, socket
from dataclasses import replace
from scp_node.security import confinement
machine = confinement._MACHINES[os.uname().machine]
kernel = ctypes.CDLL(None)
kernel.prctl(38, 1, 0, 0, 0)
confinement._MACHINES[os.uname().machine] = replace(machine, refused=(444,))
assert confinement._confine_calls(kernel) == ""
confinement._MACHINES[os.uname().machine] = machine
print(confinement.confine([]))
try:
    socket.socket()
except PermissionError:
    print("no socket")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["('Landlock (Linux 5.19 or newer, switched on)',)", "no socket"], done.stderr


def test_the_setting_and_cuda_decide():
    folder = Path("/spool")
    assert writable_by_children(AnalysisSettings(device="cpu"), folder) == (folder,)
    assert writable_by_children(AnalysisSettings(device="cpu", confine_children=False), folder) is None
    assert writable_by_children(AnalysisSettings(device="cuda"), folder) is None
    assert writable_by_children(AnalysisSettings(device="cuda"), folder, run_models=False) == (folder,)
