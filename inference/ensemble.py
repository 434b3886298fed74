"""What all configured networks say of radiographs, many of them at a time where many wait."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from config.analysis import AnalysisSettings
from inference.cores import batch_size, threads_for_models
from inference.models.checkpoint import Manifest, default_folder, read_manifests
from inference.models.preprocess import InputSpec, normalise
from inference.records import RenderRule
from inference.runtime.catalog import RUNTIMES, Placement
from inference.runtime.compiled import default_cache

_log = logging.getLogger(__name__)

Inputs = tuple[NDArray[np.uint8], ...]
"""One radiograph as the networks take it: (rows, columns) uint8 display values for each of `asked_sizes`."""


@dataclass(frozen=True, slots=True)
class Output:
    """What one network says of one radiograph; neither is checked to be finite.

    Parameters
    ----------
    logit
        Not calibrated.
    signed_map
        (map rows, map columns) float32, see ``gradcam.explain``.
    """

    logit: float
    signed_map: NDArray[np.float32]

    @property
    def is_finite(self) -> bool:
        """Whether a verdict can be given."""
        return math.isfinite(self.logit) and bool(np.isfinite(self.signed_map).all())


class Ensemble(Protocol):
    """All configured networks, wherever they run."""

    def run(self, radiographs: Sequence[Inputs]) -> list[tuple[Output, ...]]:
        """Execute every network on every radiograph; for each radiograph one output per network, as configured."""


AskedSize = tuple[RenderRule, int, int]
"""A rendering of the radiograph, and the rows and columns that it is resized to."""


def asked_sizes(manifests: Sequence[Manifest]) -> tuple[AskedSize, ...]:
    """What the networks take, in the order of the first that asks for it; what several take is there once."""
    return tuple(dict.fromkeys(_asked_size(manifest) for manifest in manifests))


def _asked_size(manifest: Manifest) -> AskedSize:
    return manifest.rule, manifest.input.rows, manifest.input.columns


class LoadedEnsemble:
    """All configured networks in this process.

    Parameters
    ----------
    may_compile
        Whether models that are not compiled yet may be compiled, into the cache.

    Raises
    ------
    CheckpointError
        A network is missing, altered or does not fit.
    NotCompiledError
        One is to be compiled, and `may_compile` is false.
    DeviceError
        The configured device is not there, or computes something else than the CPU.
    """

    def __init__(self, settings: AnalysisSettings, *, may_compile: bool = True) -> None:
        folder = settings.checkpoints or default_folder()
        # All manifests first: a mistake in the last one is reported before the first network is loaded.
        manifests = read_manifests(folder, settings.models)
        placement = Placement(
            device=settings.device,
            threads=threads_for_models(settings),
            precision=settings.precision,
            batch_size=batch_size(settings),
            cache=settings.cache or default_cache(),
            may_compile=may_compile,
        )
        sizes = asked_sizes(manifests)
        self._networks = tuple(
            (
                sizes.index(_asked_size(manifest)),
                manifest.input,
                RUNTIMES[settings.runtime](folder / manifest.name, manifest, placement),
            )
            for manifest in manifests
        )
        _log.info("the models run with %s", ", ".join(dict.fromkeys(self.runtime_names)))

    @property
    def runtime_names(self) -> tuple[str, ...]:
        """What runs each network, in words."""
        return tuple(runtime.name for _, _, runtime in self._networks)

    def run(self, radiographs: Sequence[Inputs]) -> list[tuple[Output, ...]]:
        """Execute every network once on all radiographs; see `Ensemble`."""
        batches: dict[tuple[int, InputSpec], NDArray[np.float32]] = {}
        outputs: list[list[Output]] = [[] for _ in radiographs]
        for place, spec, runtime in self._networks:
            if (place, spec) not in batches:
                batches[place, spec] = np.stack([normalise(inputs[place], spec) for inputs in radiographs])
            for found, logit, signed_map in zip(outputs, *runtime.run(batches[place, spec]), strict=True):
                found.append(Output(float(logit), signed_map))
        return [tuple(found) for found in outputs]
