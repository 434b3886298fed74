"""Phantoms written to files and read back, as the node does it."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import Dataset

from inference.imaging.source import read_header, read_pixels
from inference.records import SourceHeader, SourceImage


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
