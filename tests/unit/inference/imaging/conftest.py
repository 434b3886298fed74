"""Phantoms written to files and read back, as the node does it."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from config.analysis import Polarity
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.records import ChestImage, RenderRule, SourceHeader, SourceImage


@pytest.fixture
def store(tmp_path: Path) -> Callable[[Dataset], Path]:
    """Write a data set to a new file."""
    written = iter(range(1000))

    def write(dataset: Dataset) -> Path:
        file = tmp_path / f"{next(written)}.dcm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of the faults that a test plants
            dataset.save_as(file, enforce_file_format=True)
        return file

    return write


@pytest.fixture
def header_of(store: Callable[[Dataset], Path]) -> Callable[[Dataset], SourceHeader]:
    """Write and read the header."""
    return lambda dataset: read_header(store(dataset))


@pytest.fixture
def image_of(header_of: Callable[[Dataset], SourceHeader]) -> Callable[[Dataset], SourceImage]:
    """Write, read and decode."""
    return lambda dataset: read_pixels(header_of(dataset))


@pytest.fixture
def shown(image_of: Callable[[Dataset], SourceImage]) -> Callable[..., tuple[NDArray[np.int_], ChestImage]]:
    """Render a data set and return the display values, flat, with the record."""

    def show(
        dataset: Dataset, rule: RenderRule = RenderRule.AUTO, polarity: Polarity = Polarity.AUTO
    ) -> tuple[NDArray[np.int_], ChestImage]:
        result = render(image_of(dataset), rule, polarity)
        return result.display_values.ravel().astype(int), result

    return show
