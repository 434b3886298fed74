"""Models that run in one process for all other children: with real models, the same verdicts, and nothing lost."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from structlog.testing import capture_logs

from config.analysis import AnalysisSettings
from config.settings import NodeSettings
from config.storage import SpoolSettings
from inference.cores import processes
from scp_node.console.explorer import Explorer
from scp_node.jobs.analysis_children import AnalysisChildren
from scp_node.jobs.child_errors import PoolStoppedError
from scp_node.jobs.summary import Analysed, NotEligible, from_json
from scp_node.spool.store import Spool

pytestmark = pytest.mark.integration

RG1, RG3 = (Path(get_testdata_file(name)) for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm"))
LIMIT_S = 240


class Children:
    """Children with these settings, and what they are asked."""

    def __init__(self, folder, checkpoints, **analysis):
        self.settings = NodeSettings(
            spool=SpoolSettings(folder=folder / "spool", minimum_free_bytes=0),
            analysis=AnalysisSettings(**({"checkpoints": checkpoints, "threads": 1, "device": "cpu"} | analysis)),
        )
        spool = Spool(self.settings.spool)
        spool.create()
        self._own = AnalysisChildren(
            "scp_node.jobs.analyse:open_analyser",
            self.settings,
            count=processes(self.settings.analysis),
            writable=(spool.incoming, spool.results),
        )
        self.models, self.batches, self.pool = self._own._models, self._own._batches, self._own.pool

    def __enter__(self):
        self._own.start()
        if not self._own.wait_ready(LIMIT_S):
            self.stop()
            raise AssertionError(self._own.broken)
        return self

    def __exit__(self, *exception):
        self.stop()

    def stop(self):
        """Takes seconds, however busy they are."""
        self._own.stop(0.5)

    def run(self, file, number=0):
        return from_json(self.pool.run({"file": str(file), "name": f"2.25.{number}", "folder": f"results/{number}"}))


def has_a_runtime(pid):
    mapped = Path(f"/proc/{pid}/maps").read_text()
    return "openvino" in mapped or "torch" in mapped


@pytest.fixture
def shared(tmp_path, random_checkpoints):
    with Children(tmp_path, random_checkpoints, batch_size=4, processes=3) as children:
        yield children


def verdicts(summary):
    assert isinstance(summary, Analysed), summary
    return [(one.model, one.probability, one.is_positive, one.has_evidence) for one in summary.predictions]


def test_one_process_says_what_each_child_says_itself(shared, tmp_path, random_checkpoints):
    with Children(tmp_path / "other", random_checkpoints, processes=1) as alone:
        assert alone.models is None
        expected = alone.run(RG1)
    found = shared.run(RG1)
    assert [one[0] for one in verdicts(found)] == ["resnet18", "efficientnet_b0", "densenet121"]
    for one, other in zip(verdicts(found), verdicts(expected), strict=True):
        assert one == (other[0], pytest.approx(other[1], abs=1e-5), *other[2:])
    assert [one.kind for one in found.results] == [one.kind for one in expected.results]
    # Who asks holds no model and nothing that runs one.
    [models] = shared.models.processes
    assert has_a_runtime(models)
    assert not any(has_a_runtime(pid) for pid in shared.pool.processes)
    assert isinstance(shared.run(RG3, 1), NotEligible)


@contextmanager
def one_asked_and_two_waiting(children, threads):
    """Requests for one radiograph; the models go on at the end."""
    [models] = children.models.processes
    os.kill(models, signal.SIGSTOP)
    try:
        requests = [threads.submit(children.run, RG1, number) for number in range(3)]
        deadline = time.monotonic() + LIMIT_S
        while len(children.batches._waiting) < 2:
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.01)
        yield requests
    finally:
        with suppress(ProcessLookupError):
            os.kill(models, signal.SIGCONT)


def test_those_that_wait_are_judged_together(shared):
    expected = verdicts(shared.run(RG1))
    with ThreadPoolExecutor() as threads, capture_logs() as logs:
        with one_asked_and_two_waiting(shared, threads) as requests:
            pass
        for request in requests:
            for one, other in zip(verdicts(request.result(LIMIT_S)), expected, strict=True):
                assert one == (other[0], pytest.approx(other[1], abs=1e-5), *other[2:])
    assert [one["radiographs"] for one in logs if one["event"] == "judged together"] == [2]


def test_the_death_of_the_models_costs_those_that_wait_nothing(shared):
    [models] = shared.models.processes
    readers = set(shared.pool.processes)
    with ThreadPoolExecutor() as threads:
        with one_asked_and_two_waiting(shared, threads) as requests:
            os.kill(models, signal.SIGKILL)
        # It had not begun; the radiograph that it dies of is found out in tests/unit/jobs/test_children_asking.py.
        assert all(verdicts(request.result(LIMIT_S)) for request in requests)
    assert set(shared.pool.processes) == readers
    assert shared.models.processes != (models,)


def test_the_end_does_not_wait_for_models_that_hang(shared):
    with ThreadPoolExecutor() as threads, one_asked_and_two_waiting(shared, threads) as requests:
        shared.stop()
        assert {type(request.exception(LIMIT_S)) for request in requests} == {PoolStoppedError}


def test_models_that_cannot_be_loaded_are_told(tmp_path, random_checkpoints):
    settings = {"device": "cuda", "runtime": "openvino", "batch_size": 4}
    with pytest.raises(AssertionError, match="runs on the CPU"), Children(tmp_path, random_checkpoints, **settings):
        pass


def test_the_explorer_works_the_same_way(tmp_path, random_checkpoints):
    analysis = AnalysisSettings(checkpoints=random_checkpoints, threads=1, device="cpu", batch_size=2)
    explorer = Explorer(NodeSettings(spool=SpoolSettings(folder=tmp_path / "spool"), analysis=analysis))
    try:
        found = explorer.analyse(RG1, "RG1")
        assert explorer.is_loaded
    finally:
        explorer.close()
    assert (found["outcome"], len(found["predictions"])) == ("analysed", 3), found


def test_the_end_does_not_wait_for_models_that_cannot_be_loaded(shared, monkeypatch):
    """They may never be; those who ask leave their radiographs to the next start, long before the limit."""
    monkeypatch.setattr(shared.models._loading, "_factory", "no_such_module:open_models")
    [models] = shared.models.processes
    with ThreadPoolExecutor() as threads, one_asked_and_two_waiting(shared, threads) as requests:
        os.kill(models, signal.SIGKILL)
        deadline = time.monotonic() + LIMIT_S
        while shared.models.broken is None:
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.01)
        stopper = threads.submit(shared._own.stop, LIMIT_S)
        assert {type(request.exception(LIMIT_S / 2)) for request in requests} == {PoolStoppedError}
        stopper.result(LIMIT_S / 2)
