"""Child processes: one that dies, hangs or fails costs its own request only."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scp_node.jobs import child_process
from scp_node.jobs.child_errors import ChildCrashError, ChildFailedError, ChildTimeLimitError, PoolStoppedError
from scp_node.jobs.child_loading import Loading
from scp_node.jobs.children import ChildPool


@pytest.fixture
def pool_of(monkeypatch):
    """Makes pools and stops them at the end."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    pools = []

    def make(target="simple", arguments=None, *, count=1, time_limit_s=120.0, **options):
        pool = ChildPool(f"child_targets:{target}", arguments or {}, count=count, time_limit_s=time_limit_s, **options)
        pools.append(pool)
        pool.start()
        return pool

    yield make
    for pool in pools:
        pool.stop(0.1)


def _until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_answers_many_requests_and_is_another_process(pool_of):
    pool = pool_of(arguments={"a": [1, "é"]})
    first = pool.run({"echo": "x\ny"})
    second = pool.run({"echo": 2})
    assert first["echo"] == "x\ny"
    assert first["arguments"] == {"a": [1, "é"]}
    assert first["pid"] == second["pid"] != os.getpid()


def test_what_its_own_modules_log_while_it_loads_is_told_and_nothing_later(pool_of, capfd):
    with capture_logs() as logs:
        pool_of("talkative").run({})
    assert [(one["log_level"], one["detail"]) for one in logs if one["event"] == "child says"] == [
        ("info", "runs with torch cpu"),
        ("warning", "slower than it could be"),
    ]
    assert "PATIENT" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("what", ["start", "load"])
def test_a_child_that_cannot_be_started_is_tried_again_and_the_others_go_on(pool_of, monkeypatch, what):
    """No descriptors, no room for a folder: the thread that starts children must live, or all of them die with it."""
    pool = pool_of(count=2)
    _until(lambda: len(pool.processes) == 2)
    kept, killed = pool.processes
    real, faults, goes_on = getattr(Loading, what), [], threading.Event()

    def failing(loading, *arguments):
        if not faults:
            faults.append(what)
            raise OSError(24, "Too many open files")
        # Until everybody has seen what it is like without.
        assert goes_on.wait(60)
        return real(loading, *arguments)

    monkeypatch.setattr(Loading, what, failing)
    os.kill(killed, signal.SIGKILL)
    _until(lambda: pool.broken is not None)
    assert "Too many open files" in pool.broken
    assert pool.run({})["pid"] == kept
    goes_on.set()
    _until(lambda: len(pool.processes) == 2)
    assert pool.broken is None


def test_a_child_that_is_frozen_and_takes_nothing_is_replaced(pool_of, monkeypatch):
    monkeypatch.setattr(child_process, "_SEND_S", 2.0)
    pool = pool_of()
    _until(lambda: pool.processes)
    [frozen] = pool.processes
    os.kill(frozen, signal.SIGSTOP)
    assert pool.run({"echo": "x" * 4_000_000})["pid"] != frozen


def test_nothing_is_left_of_a_child_that_could_not_be_started(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(child_process, "start_module", _no_more_processes)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(BlockingIOError):
        child_process.Child({})
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def _no_more_processes(*_arguments, **_options):
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_noise_on_standard_output_is_no_answer(pool_of, capfd):
    assert pool_of().run({"order": "print", "echo": 5})["echo"] == 5


@pytest.mark.parametrize(("order", "how"), [("crash", "SIGSEGV"), ("exit", "exit code 7")])
def test_a_crash_is_reported_and_the_next_request_is_answered_by_another_child(pool_of, order, how):
    pool = pool_of()
    before = pool.run({})["pid"]
    with pytest.raises(ChildCrashError, match=how):
        pool.run({"order": order})
    assert pool.run({})["pid"] != before


def test_a_crash_leaves_the_neighbour_alone(pool_of, tmp_path):
    pool = pool_of(count=2)
    _until(lambda: len(pool.processes) == 2)
    with ThreadPoolExecutor() as threads:
        started = tmp_path / "started"
        slow = threads.submit(pool.run, {"order": "sleep", "seconds": 1.0, "started": str(started), "echo": "whole"})
        _until(started.exists)
        with pytest.raises(ChildCrashError):
            pool.run({"order": "crash"})
        assert slow.result()["echo"] == "whole"


def test_a_kill_from_outside_in_the_middle_of_work_is_a_crash(pool_of, tmp_path):
    pool = pool_of()
    started = tmp_path / "started"
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(pool.run, {"order": "sleep", "seconds": 60, "started": str(started)})
        _until(started.exists)
        (pid,) = pool.busy_processes
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildCrashError, match="SIGKILL"):
            slow.result()


def test_a_child_that_dies_while_idle_costs_no_request(pool_of):
    pool = pool_of()
    pid = pool.run({})["pid"]
    os.kill(pid, signal.SIGKILL)
    assert pool.run({"echo": 1})["echo"] == 1


def test_the_time_limit_ends_the_child(pool_of, tmp_path):
    pool = pool_of(time_limit_s=1.5)
    _until(lambda: pool.processes)
    [pid] = pool.processes
    with pytest.raises(ChildTimeLimitError, match=r"1\.5 s"):
        pool.run({"order": "sleep", "seconds": 600, "started": str(tmp_path / "started")})
    assert not _is_running(pid)
    # Once more when this machine itself takes that long.
    for _ in range(10):
        with suppress(ChildTimeLimitError):
            assert pool.run({"echo": 3})["echo"] == 3
            break
    else:
        pytest.fail("nobody answers after it")


def test_an_exception_is_told_by_kind_and_place_and_never_by_its_message(pool_of):
    pool = pool_of()
    pid = pool.run({})["pid"]
    with pytest.raises(ChildFailedError) as caught:
        pool.run({"order": "raise"})
    assert caught.value.kind == "internal"
    assert "ValueError at child_targets.py" in caught.value.detail
    assert "PATIENT" not in caught.value.detail
    assert pool.run({})["pid"] == pid


def test_the_memory_limit_is_an_answer_not_a_crash(pool_of):
    pool = pool_of(memory_limit_bytes=64 * 2**20)
    with pytest.raises(ChildFailedError) as caught:
        pool.run({"order": "memory", "bytes": 512 * 2**20})
    assert caught.value.kind == "memory"
    assert pool.run({"echo": 1})["echo"] == 1


def test_a_child_that_cannot_load_says_why(pool_of):
    pool = pool_of("broken")
    assert not pool.wait_ready(60)
    assert "weights differ" in (pool.broken or "")


def test_loading_is_tried_again(pool_of, tmp_path):
    file = tmp_path / "now"
    pool = pool_of("broken_until", {"file": str(file)})
    assert not pool.wait_ready(60)
    file.touch()
    assert pool.run({"echo": 1})["echo"] == 1
    assert pool.broken is None


def test_a_child_killed_while_it_loads_says_nothing_about_the_models(pool_of, tmp_path):
    """`serve` ends when the models cannot be loaded: one kill must not look like that."""
    pool = pool_of("killed_while_loading", {"marks": str(tmp_path / "marks"), "times": 1})
    assert pool.wait_ready(60)
    assert pool.broken is None
    assert len((tmp_path / "marks").read_text()) == 2


def test_children_that_die_while_loading_again_and_again_say_that_it_cannot_be_done(pool_of, tmp_path):
    pool = pool_of("killed_while_loading", {"marks": str(tmp_path / "marks"), "times": 100})
    assert not pool.wait_ready(120)
    assert "SIGKILL" in (pool.broken or "")
    # Three say so; the next one is started 8 s later, and whoever looks may be held up.
    assert 3 <= len((tmp_path / "marks").read_text()) <= 4


def test_stopping_lets_work_end_and_turns_the_waiting_away(pool_of, tmp_path):
    pool = pool_of()
    started = tmp_path / "started"
    with ThreadPoolExecutor() as threads:
        order = {"order": "wait", "until": str(tmp_path / "over"), "started": str(started), "echo": "whole"}
        slow = threads.submit(pool.run, order)
        _until(started.exists)
        waiting = threads.submit(_outcome, pool)
        stopping = threads.submit(pool.stop, 60)
        assert waiting.result(60) is PoolStoppedError
        (tmp_path / "over").touch()
        assert slow.result(60)["echo"] == "whole"
        stopping.result(60)
    assert pool.processes == ()


def test_stopping_ends_work_that_takes_too_long_without_calling_it_a_crash(pool_of, tmp_path):
    pool = pool_of()
    started = tmp_path / "started"
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(_outcome, pool, {"order": "sleep", "seconds": 60, "started": str(started)})
        _until(started.exists)
        (pid,) = pool.busy_processes
        pool.stop(0.1)
        assert slow.result() is PoolStoppedError
    assert not _is_running(pid)


def _outcome(pool, request=None):
    try:
        return pool.run(request or {})
    except PoolStoppedError as stopped:
        return type(stopped)


def test_children_die_with_a_parent_that_is_killed(tmp_path):
    """Also in the middle of work, where the end of the socket would not be noticed."""
    program = (
        "import sys, threading\n"
        "from scp_node.jobs.children import ChildPool\n"
        "pool = ChildPool('child_targets:simple', {}, count=2, time_limit_s=60)\n"
        "pool.start()\n"
        "busy, started = pool.run({})['pid'], sys.argv[1]\n"
        "order = {'order': 'sleep', 'seconds': 50, 'started': started}\n"
        "threading.Thread(target=pool.run, args=(order,), daemon=True).start()\n"
        "import time, pathlib\n"
        "while not pathlib.Path(started).exists() or len(pool.processes) < 2: time.sleep(0.01)\n"
        "print('pids', *pool.processes, flush=True)\n"
        "time.sleep(50)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "started")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        line = next(line for line in parent.stdout if line.startswith("pids "))
        pids = [int(word) for word in line.split()[1:]]
        assert len(pids) == 2
        parent.kill()
    _until(lambda: not any(_is_running(pid) for pid in pids))


def test_folders_of_a_parent_that_was_killed_are_removed_by_the_next(pool_of, tmp_path, monkeypatch):
    """Those of a parent that lives stay."""
    program = (
        "from scp_node.jobs.children import ChildPool\n"
        "pool = ChildPool('child_targets:simple', {}, count=1, time_limit_s=60)\n"
        "pool.start()\n"
        "pool.run({})\n"
        "print('ready', flush=True)\n"
        "input()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": str(tmp_path)}

    def parent():
        started = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # The log is in between.
        assert "ready\n" in iter(started.stdout.readline, "")
        return started

    with parent() as killed:
        left_behind = set(tmp_path.glob("scp-node-child-*"))
        killed.kill()
    assert len(left_behind) == 1
    with parent() as alive:
        in_use = set(tmp_path.glob("scp-node-child-*"))
        assert len(in_use) == 1
        assert not in_use & left_behind
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        pool_of().run({})
        assert in_use < set(tmp_path.glob("scp-node-child-*"))
        alive.kill()


def test_the_wait_for_a_child_ends_when_another_request_is_done(pool_of):
    before = threading.active_count()
    pool = pool_of()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: pool.run({"echo": number})["echo"], range(24)))
    assert answers == list(range(24))
    assert threading.active_count() - before < 15
