"""Pictures of every stored value once, for tests of the display pipeline."""

import numpy as np

from scp_node.demo import phantoms

X = np.arange(4096.0)
"""The stored values of a ramp of 12 bits."""


def ramp(bits=12, signed=False):
    """Every stored value once, as (64, n)."""
    low = -(1 << bits - 1) if signed else 0
    dtype = np.int16 if signed else (np.uint8 if bits == 8 else np.uint16)
    return np.arange(low, low + (1 << bits)).astype(dtype).reshape(64 if bits > 8 else 16, -1)


def image(values=None, bits=12, photometric="MONOCHROME2", **attributes):
    """A radiograph of these values, a ramp unless told otherwise, without a window unless one is given."""
    values = ramp(bits) if values is None else values
    window = {"WindowCenter": None, "WindowWidth": None} if "WindowCenter" not in attributes else {}
    return phantoms.cr(values, bits_stored=bits, photometric_interpretation=photometric, **window, **attributes)


def near(values, expected, tolerance=1):
    """Both are the same display values, but for so many grey levels."""
    expected = np.clip(np.asarray(expected), 0, 255)
    np.testing.assert_array_less(np.abs(values - expected), tolerance + 0.501)
