"""From a file to an Analysis: read, check eligibility, render, run every model; writes nothing, knows no network."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config.analysis import AnalysisSettings
from inference.cores import threads_for_pictures
from inference.ensemble import Ensemble, LoadedEnsemble, Output, asked_sizes
from inference.errors import InferenceError, UnsupportedPixelsError
from inference.imaging.eligibility import check, check_quality, notes
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.models.checkpoint import Manifest, architecture_of, default_folder, read_manifests
from inference.models.gradcam import saliency
from inference.models.preprocess import resize
from inference.records import Analysis, Ineligibility, Prediction, Reason, RenderRule, SourceHeader, SourceImage


class Model:
    """One model with its operating point.

    Parameters
    ----------
    site_threshold
        The site's own operating point; None: the one that came with the weights.
    """

    def __init__(self, manifest: Manifest, site_threshold: float | None = None) -> None:
        self.manifest = manifest
        self._target_layer = architecture_of(manifest).target_layer
        self._site_threshold = site_threshold

    def judge(self, output: Output) -> Prediction:
        """Make a verdict of what the network says.

        Raises
        ------
        InferenceError
            Logit or map is not finite: no verdict can be given.
        """
        if not output.is_finite:
            raise InferenceError(f"{self.manifest.name}: the network gave numbers that are not finite")
        return Prediction(
            model=self.manifest.name,
            title=self.manifest.title,
            version=self.manifest.version,
            weights_sha256=self.manifest.weights_sha256,
            target_layer=self._target_layer,
            preprocessing=self.manifest.preprocessing,
            calibration=self.manifest.calibration.identifier,
            probability=self.manifest.calibration.probability(output.logit),
            threshold=self.manifest.threshold if self._site_threshold is None else self._site_threshold,
            is_threshold_overridden=self._site_threshold is not None,
            saliency=saliency(output.signed_map),
        )


class Engine:
    """Judges radiographs with all configured models.

    Parameters
    ----------
    ensemble
        What runs the networks; None: they are loaded here.
    clock
        Seconds since any moment; measures durations.

    Raises
    ------
    CheckpointError
        A configured model is missing, altered or does not fit; nothing is analysed with the others.
    DeviceError
        As `LoadedEnsemble` does.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        ensemble: Ensemble | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._settings = settings
        self._threads = threads_for_pictures(settings)
        self._clock = clock
        manifests = read_manifests(settings.checkpoints or default_folder(), settings.models)
        self._models = tuple(Model(manifest, settings.thresholds.get(manifest.name)) for manifest in manifests)
        self._sizes = asked_sizes(manifests)
        self._ensemble = LoadedEnsemble(settings) if ensemble is None else ensemble

    @property
    def models(self) -> tuple[Manifest, ...]:
        """The models, in the order of the configuration."""
        return tuple(model.manifest for model in self._models)

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
        inputs = tuple(resize(pictures[rule], rows, columns) for rule, rows, columns in self._sizes)
        [outputs] = self._ensemble.run([inputs])
        return tuple(model.judge(output) for model, output in zip(self._models, outputs, strict=True))

    def _analyse(self, header: SourceHeader, began: float) -> Analysis | Ineligibility:
        if (refusal := check(header, self._settings.eligibility)) is not None:
            return refusal
        try:
            source = read_pixels(header, threads=self._threads)
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
