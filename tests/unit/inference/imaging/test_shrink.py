"""Reduction for the eye: whole blocks, and close to the exact areas."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from inference.imaging.render import render
from inference.imaging.shrink import by_whole_factor, to_size
from inference.imaging.source import read_header, read_pixels
from inference.records import RenderRule


@pytest.fixture(scope="module")
def chest():
    header = read_header(Path(get_testdata_file("RG1_UNCR.dcm")))
    return render(read_pixels(header), RenderRule.AUTO).display_values


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_each_pixel_is_the_mean_of_a_block(chest, factor):
    reduced = by_whole_factor(chest, factor)
    rows, columns = chest.shape[0] // factor, chest.shape[1] // factor
    assert reduced.shape == (rows, columns)
    blocks = chest[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    assert np.abs(reduced - blocks.mean(axis=(1, 3))).max() <= 0.5


@pytest.mark.parametrize("shape", [(512, 512), (768, 723), (224, 224), (1000, 941), (1841, 1955), (60, 900)])
def test_a_size_is_close_to_the_exact_areas(chest, shape):
    reduced = to_size(chest, *shape)
    assert reduced.shape == shape
    exact = cv2.resize(chest, shape[::-1], interpolation=cv2.INTER_AREA).astype(int)
    difference = np.abs(reduced.astype(int) - exact)
    assert difference.mean() <= 1
    assert np.quantile(difference, 0.99) <= 5


def test_a_picture_grows_smoothly(chest):
    small = to_size(chest, 100, 90)
    grown = to_size(small, 200, 180).astype(int)
    assert grown.shape == (200, 180)
    assert np.abs(grown[::2, ::2] - small.astype(int)).max() < 80
    assert grown.min() >= small.min()
    assert grown.max() <= small.max()


def test_a_side_shorter_than_the_factor_becomes_one_pixel():
    assert by_whole_factor(np.full((2, 90), 7, np.uint8), 3).shape == (1, 30)
