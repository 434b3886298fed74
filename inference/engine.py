"""From a file to an Analysis: read, check eligibility, render, run every model; writes nothing, knows no network."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config.analysis import AnalysisSettings
from inference.cores import threads_per_process
from inference.errors import InferenceError, UnsupportedPixelsError
from inference.imaging.eligibility import check, check_quality, notes
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.models.checkpoint import Manifest, architecture_of, default_folder, read_manifests
from inference.models.gradcam import saliency
from inference.models.preprocess import InputSpec, to_model_input
from inference.records import Analysis, Ineligibility, Prediction, Reason, RenderRule, SourceHeader, SourceImage
from inference.runtime.catalog import RUNTIMES, Placement, Runtime


def default_cache() -> Path:
    """The user's cache folder as the XDG Base Directory Specification has it, for a user without home the system's."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home
        base = Path(tempfile.gettempdir()) / f"scp-node-{os.getuid()}"
    return base / "scp-node"


class LoadedModel:
    """One model ready to run, with its operating point.

    Parameters
    ----------
    site_threshold
        The site's own operating point; None: the one that came with the weights.
    """

    def __init__(self, manifest: Manifest, runtime: Runtime, site_threshold: float | None = None) -> None:
        self.manifest = manifest
        self._runtime = runtime
        self.runtime_name = runtime.name
        self._target_layer = architecture_of(manifest).target_layer
        self._site_threshold = site_threshold

    def predict(self, batch: NDArray[np.float32]) -> tuple[Prediction, ...]:
        """Judge radiographs.

        Parameters
        ----------
        batch
            (n, 3, rows, columns) float32, each image as ``preprocess.to_model_input`` makes it from display values of
            the manifest's rule.

        Returns
        -------
        One Prediction per image.

        Raises
        ------
        InferenceError
            A logit or a map is not finite: no verdict can be given.
        """
        logits, maps = self._runtime.run(batch)
        if not (np.isfinite(logits).all() and np.isfinite(maps).all()):
            raise InferenceError(f"{self.manifest.name}: the network gave numbers that are not finite")
        return tuple(
            Prediction(
                model=self.manifest.name,
                title=self.manifest.title,
                version=self.manifest.version,
                weights_sha256=self.manifest.weights_sha256,
                target_layer=self._target_layer,
                preprocessing=self.manifest.preprocessing,
                probability=self.manifest.calibration.probability(float(logit)),
                threshold=self.manifest.threshold if self._site_threshold is None else self._site_threshold,
                is_threshold_overridden=self._site_threshold is not None,
                saliency=saliency(signed_map),
            )
            for logit, signed_map in zip(logits, maps, strict=True)
        )


class Engine:
    """All configured models, loaded once.

    Parameters
    ----------
    runtime
        Key of ``catalog.RUNTIMES``; None: the configured one.
    clock
        Seconds since any moment; measures durations.
    may_compile
        Whether models that are not compiled yet may be compiled, into the cache.

    Raises
    ------
    CheckpointError
        A configured model is missing, altered or does not fit; nothing is analysed with the others.
    NotCompiledError
        One is to be compiled, and `may_compile` is false.
    DeviceError
        The configured device is not there.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        runtime: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
        *,
        may_compile: bool = True,
    ) -> None:
        self._settings = settings
        self._clock = clock
        folder = settings.checkpoints or default_folder()
        placement = Placement(
            device=settings.device,
            threads=threads_per_process(settings),
            precision=settings.precision,
            cache=settings.cache or default_cache(),
            may_compile=may_compile,
        )
        # All manifests first: a mistake in the last one is reported before the first network is loaded.
        self._models = tuple(
            LoadedModel(
                manifest,
                RUNTIMES[runtime or settings.runtime](folder / manifest.name, manifest, placement),
                settings.thresholds.get(manifest.name),
            )
            for manifest in read_manifests(folder, settings.models)
        )

    @property
    def models(self) -> tuple[Manifest, ...]:
        """The models, in the order of the configuration."""
        return tuple(model.manifest for model in self._models)

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """The models themselves, for batches."""
        return self._models

    def analyse(self, file: Path, name: str | None = None) -> Analysis | Ineligibility:
        """Read and judge one radiograph.

        Parameters
        ----------
        name
            For messages; None: the file's name.

        Raises
        ------
        SourceError
            The file cannot be read as a radiograph.
        InferenceError
            A model gave no usable numbers.
        """
        began = self._clock()
        return self._analyse(read_header(file, name), began)

    def analyse_header(self, header: SourceHeader) -> Analysis | Ineligibility:
        """Judge a radiograph whose header the caller has read already; raises as ``analyse``."""
        return self._analyse(header, self._clock())

    def analyse_image(self, source: SourceImage) -> Analysis | Ineligibility:
        """Judge a radiograph that is decoded already and whose header was found eligible; raises as ``analyse``."""
        return self._judge(source, self._clock())

    def predict(self, pictures: dict[RenderRule, NDArray[np.uint8]]) -> tuple[Prediction, ...]:
        """Run every model on one rendered radiograph.

        Parameters
        ----------
        pictures
            (rows, columns) uint8 display values for each rule that a model asks for.

        Returns
        -------
        One Prediction per model, in the order of the configuration.
        """
        # Models that take the same input share it: reducing 9 million pixels costs as much as a small network.
        inputs: dict[tuple[RenderRule, InputSpec], NDArray[np.float32]] = {}
        predictions: list[Prediction] = []
        for model in self._models:
            key = (model.manifest.rule, model.manifest.input)
            if key not in inputs:
                inputs[key] = to_model_input(pictures[model.manifest.rule], model.manifest.input)[None]
            predictions += model.predict(inputs[key])
        return tuple(predictions)

    def _analyse(self, header: SourceHeader, began: float) -> Analysis | Ineligibility:
        if (refusal := check(header, self._settings.eligibility)) is not None:
            return refusal
        try:
            source = read_pixels(header)
        except UnsupportedPixelsError as error:
            return Ineligibility(reason=Reason.UNSUPPORTED_PIXELS, detail=error.detail)
        return self._judge(source, began)

    def _judge(self, source: SourceImage, began: float) -> Analysis | Ineligibility:
        settings = self._settings
        # What is shown is always the display pipeline's picture, whatever a model takes.
        shown = render(source, RenderRule.AUTO, settings.polarity)
        if settings.eligibility.require_quality and (refusal := check_quality(shown)) is not None:
            return refusal
        images = {RenderRule.AUTO: shown}
        for model in self._models:
            if (rule := model.manifest.rule) not in images:
                images[rule] = render(source, rule, settings.polarity)
        remarks = [*notes(source.header, settings.eligibility)]
        remarks += [remark for image in images.values() for remark in image.notes]
        predictions = self.predict({rule: image.display_values for rule, image in images.items()})
        return Analysis(
            header=source.header,
            image=replace(shown, notes=tuple(dict.fromkeys(remarks))),
            predictions=predictions,
            duration_s=self._clock() - began,
        )
