"""Fixtures that tests of several packages share."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(request) -> Path:
    """What nodes of the tests compile is kept between runs of the tests, not among the user's own files.

    What `make setup` has compiled is taken over: beside other tests it takes minutes for which a test would wait.
    """
    from inference.runtime.compiled import default_cache

    made, folder = default_cache(), Path(request.config.cache.mkdir("scp-node"))
    os.environ["XDG_CACHE_HOME"] = str(folder)
    cache = folder / "scp-node"
    for entry in made.iterdir() if made.is_dir() else ():
        if entry.is_dir() and entry.suffix != ".part" and not (cache / entry.name).exists():
            cache.mkdir(mode=0o700, exist_ok=True)
            copy = Path(tempfile.mkdtemp(dir=cache, suffix=".part"))
            shutil.copytree(entry, copy, dirs_exist_ok=True)
            try:
                copy.rename(cache / entry.name)
            except OSError:  # another worker's is there
                shutil.rmtree(copy)
    return cache


@pytest.fixture(scope="session", autouse=True)
def answers_are_for_who_asked() -> Iterator[None]:
    """Clients of the tests get their answers.

    pynetdicom lets the association's own thread take one now and then when the machine is busy
    (``scp_node.delivery.messages``): the client then waits in vain, for something that the node has long said.
    """
    from pynetdicom import AE

    from scp_node.delivery.messages import Messages

    def associate(entity, *positional, **named):
        association = original(entity, *positional, **named)
        if association.is_established:
            association.dimse = Messages(association)
        return association

    original = AE.associate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AE, "associate", associate)
        yield


@pytest.fixture
def spool(tmp_path):
    """A spool of this test's own."""
    from config.storage import SpoolSettings
    from scp_node.spool.store import Spool

    spool = Spool(SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0))
    spool.create()
    return spool


def lively_network(architecture, seed):
    """A network with seeded random weights whose logits depend on the picture and stay within a few units.

    Fresh weights with the initial batch statistics (mean 0, variance 1) let activations vanish or explode over the
    layers; statistics taken from a few pictures keep them where they are in a trained network.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build().eval()
        rng = np.random.default_rng(seed)
        pictures = torch.zeros(6, 1, 192, 192)
        for cells in (3, 9, 27, 192):  # structure of every size, as radiographs have it
            coarse = torch.from_numpy(rng.normal(0, 0.7, (6, 1, cells, cells)).astype(np.float32))
            pictures += torch.nn.functional.interpolate(coarse, size=(192, 192), mode="bicubic")

        # Only the statistics learn: no dropout, no skipped layers. Channels that these pictures hardly move would
        # explode on others, so a fifth of a layer's mean variance is added to each of its channels.
        def widen(norm, inputs):
            norm.eps = 0.2 * float(inputs[0].var(dim=(0, 2, 3)).mean())

        norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # plain average
            norm.train()
            norm.register_forward_pre_hook(widen)
        if norms:
            with torch.no_grad():
                network(pictures.expand(-1, 3, -1, -1))
        for norm in norms:
            norm.running_var += norm.eps
    return network.eval()


@pytest.fixture(scope="session")
def random_checkpoints(tmp_path_factory) -> Path:
    """A folder of checkpoints: every model of the catalog with random weights, always the same ones."""
    from inference.models.catalog import MODELS
    from inference.models.checkpoint import Calibration, Manifest, write_checkpoint
    from inference.models.preprocess import InputSpec
    from inference.records import RenderRule

    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, spec in enumerate(MODELS):
        manifest = Manifest(
            name=spec.name,
            title=spec.title,
            architecture=spec.architecture.name,
            version="0.0.1",
            input=InputSpec(),
            rule=RenderRule.AUTO,
            threshold=spec.default_threshold,
            calibration=Calibration(),
            training_data="none: random weights for tests",
            created=date(2026, 11, 23),
        )
        state = lively_network(spec.architecture, seed).state_dict()
        if seed == 0:
            # Far below its threshold, so that the models do not all agree.
            [*_, bias] = (key for key in state if key.endswith(".bias"))
            state[bias] = state[bias] - 3
        write_checkpoint(folder / spec.name, state, manifest, "float16")
    return folder


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Finds a port that nobody listens on, for programs that cannot be asked which one the system gave them."""
    from tests.faults import processes

    return processes.free_port


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory) -> Iterator[str]:
    """A real PostgreSQL of this test run's own; the URL of its maintenance database."""
    from tests.faults.postgres import Cluster, binaries
    from tests.faults.processes import free_port

    if binaries() is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    cluster = Cluster(tmp_path_factory.mktemp("postgresql") / "cluster", free_port())
    cluster.create()
    cluster.start()
    yield cluster.url
    cluster.program.process.send_signal(signal.SIGINT)  # now: not when the last client has gone
    cluster.program.wait(60)
