"""What a radiograph's pixels cost: memory by pixel, and CPU time as a share of a plain pass over the same pixels."""

import time
import tracemalloc
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from inference.imaging import huffman, jpeg
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.models.preprocess import InputSpec, to_model_input
from inference.records import RenderRule
from scp_node.demo import encodings
from scp_node.results.overlay import blend

TIME = 4
"""Headroom of ratios of CPU time. Whether memory is fresh from the system or used again doubles what a plain pass
costs, and a neighbour on the same core changes each side differently."""


@pytest.fixture(scope="module")
def file():
    """A chest radiograph of 15 bits in 16, 1955 x 1841, uncompressed."""
    return Path(get_testdata_file("RG1_UNCR.dcm"))


@pytest.fixture(scope="module")
def source(file):
    return read_pixels(read_header(file))


def peak_bytes(work):
    """The most memory at one time, beyond what was there."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def cpu_s(work):
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def cpu_ratio(work, unit):
    """CPU time of `work` over that of `unit`, the best of three each, taken in turns."""
    cv2.setNumThreads(1)
    times = [(cpu_s(unit), cpu_s(work)) for _ in range(3)]
    return min(second for _, second in times) / min(first for first, _ in times)


def one_pass(source):
    """What a plain pass costs here: sorting out which of the pixels are above their mean, in floating point."""
    values = source.stored_values
    return lambda: np.count_nonzero(values.astype(np.float32) > 1000)


def test_reading_keeps_the_pixels_twice(file, within):
    """As they are in the file, and as the values that count; it was four times."""
    pixels = read_pixels(read_header(file)).stored_values
    within(lambda: peak_bytes(lambda: read_pixels(read_header(file))) / pixels.nbytes, measured=2.01)


def test_rendering_needs_one_byte_for_each_pixel(source, within):
    """The table of all stored values is beside it, whatever the size of the picture."""
    work = lambda: render(source, RenderRule.AUTO)  # noqa: E731
    within(lambda: peak_bytes(work) / source.stored_values.size, measured=1.31)


def test_rendering_is_a_look_up(source, within):
    work = lambda: render(source, RenderRule.AUTO)  # noqa: E731
    within(lambda: cpu_ratio(work, one_pass(source)), measured=1.4, headroom=TIME)


def test_a_model_input_costs_what_rendering_does(source, within):
    picture = render(source, RenderRule.AUTO).display_values
    within(
        lambda: cpu_ratio(lambda: to_model_input(picture, InputSpec()), one_pass(source)), measured=1.6, headroom=TIME
    )


def test_an_overlay_is_a_look_up(source, within):
    picture = render(source, RenderRule.AUTO).display_values
    saliency = np.random.default_rng(1).random((7, 7)).astype(np.float32)
    work = lambda: blend(picture, saliency, "jet", 0.4)  # noqa: E731
    within(lambda: peak_bytes(work) / picture.size, measured=9.0)
    within(lambda: cpu_ratio(work, one_pass(source)), measured=2.1, headroom=TIME)


def test_lossless_jpeg_is_proved_without_a_walk(file, within):
    """The walk from code to code takes six times as long."""
    if "1.2.840.10008.1.2.4.70" not in encodings.encodable_transfer_syntaxes():
        pytest.skip("dcmcjpeg of DCMTK is not installed")
    frame = get_frame(encodings.encode(dcmread(file), "1.2.840.10008.1.2.4.70").PixelData, 0, number_of_frames=1)
    decode = lambda: imagecodecs.jpeg8_decode(frame)  # noqa: E731
    samples = decode()
    within(
        lambda: cpu_ratio(lambda: huffman.check_scans(list(jpeg.segments(frame)), samples), decode),
        measured=1.4,
        headroom=TIME,
    )
