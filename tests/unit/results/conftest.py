"""An analysis made by hand of a phantom on disk: results need no model."""

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from pydicom import FileDataset, dcmread

from inference.records import (
    Analysis,
    ChestImage,
    FileFormat,
    Prediction,
    RenderRule,
    SourceHeader,
    Window,
    WindowSource,
)
from scp_node.demo import phantoms


def blob(size: int, row: float, column: float) -> np.ndarray:
    """A map with one warm place; rows and columns in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    warm = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 0.08)
    warm[warm < 0.05] = 0
    return (warm / warm.max()).astype(np.float32)


RESNET = Prediction(
    model="resnet18",
    title="ResNet18",
    version="1.0.0",
    weights_sha256="a" * 64,
    target_layer="layer4",
    preprocessing="auto;224x224;mean=0.5;std=0.25",
    calibration="platt;slope=1.0;intercept=-1.5",
    probability=0.873421,
    threshold=0.25,
    saliency=blob(7, 0.6, 0.25),
)
EFFICIENTNET = dataclasses.replace(
    RESNET,
    model="efficientnet_b0",
    title="EfficientNet-B0",
    weights_sha256="b" * 64,
    target_layer="features",
    probability=0.0432,
    threshold=0.15,
    saliency=np.zeros((7, 7), np.float32),
)
DENSENET = dataclasses.replace(
    RESNET,
    model="densenet121",
    title="DenseNet121",
    weights_sha256="c" * 64,
    target_layer="features",
    probability=0.31,
    threshold=0.18,
    saliency=blob(7, 0.5, 0.75),
    is_threshold_overridden=True,
)


@pytest.fixture(scope="session")
def predictions() -> tuple[Prediction, ...]:
    """Positive; negative without evidence; positive at a threshold of the site."""
    return (RESNET, EFFICIENTNET, DENSENET)


@pytest.fixture
def made_at() -> datetime:
    return datetime(2026, 3, 1, 12, 30, 15, tzinfo=timezone(timedelta(hours=9)))


@pytest.fixture
def analysis_of(tmp_path: Path, predictions: tuple[Prediction, ...]) -> Callable[..., Analysis]:
    """Write a source to disk and make an analysis of it; a file, a data set, or None for a PNG."""

    def make(source: FileDataset | Path | None, **changes: object) -> Analysis:
        file = tmp_path / "source.dcm"
        if isinstance(source, Path):
            file = source
        elif source is not None:
            source.save_as(file, enforce_file_format=True)
        dataset = None if source is None else dcmread(file, stop_before_pixels=True)
        header = SourceHeader(
            name="x-ray.png" if dataset is None else str(dataset.get("SOPInstanceUID", "?")),
            file=file,
            file_format=FileFormat.PNG if dataset is None else FileFormat.DICOM,
            dataset=dataset,
        )
        rows, columns = (640, 560) if dataset is None else (dataset.Rows, dataset.Columns)
        image = ChestImage(
            display_values=phantoms.chest_array(rows, columns, bits=8).astype(np.uint8),
            rule=RenderRule.AUTO,
            window=Window(source=WindowSource.WINDOW_ATTRIBUTES, center=2048.0, width=4096.0, function="LINEAR"),
            is_inverted=False,
        )
        analysis = Analysis(header=header, image=image, predictions=predictions, duration_s=0.5)
        return dataclasses.replace(analysis, **changes)

    return make


@pytest.fixture
def analysis(analysis_of: Callable[..., Analysis]) -> Analysis:
    """Of the CR phantom."""
    return analysis_of(phantoms.cr())
