"""The one decoder of each transfer syntax, as a plugin of pydicom where pydicom has none; checks nothing beforehand.

Where pydicom may choose, it falls through from a decoder that refuses a damaged stream to one that returns noise.
"""

import contextlib
import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from inference.imaging.jpeg2000 import ask_for_termination_check, read_termination_check

_OWN = "imagecodecs"

TRANSFER_SYNTAXES: tuple[tuple[str, str], ...] = (
    (ExplicitVRLittleEndian, ""),
    (ImplicitVRLittleEndian, ""),
    (ExplicitVRBigEndian, ""),
    (DeflatedExplicitVRLittleEndian, ""),
    (JPEGBaseline8Bit, "pillow"),
    (JPEGExtended12Bit, _OWN),
    (JPEGLossless, _OWN),
    (JPEGLosslessSV1, _OWN),
    (JPEGLSLossless, "pyjpegls"),
    (JPEGLSNearLossless, "pyjpegls"),
    (JPEG2000Lossless, _OWN),
    (JPEG2000, _OWN),
    (HTJ2KLossless, _OWN),
    (HTJ2KLosslessRPCL, _OWN),
    (HTJ2K, _OWN),
    (RLELossless, "pydicom"),
)
"""Each transfer syntax with the plugin of pydicom that decodes it; empty where nothing is compressed."""

_JPEG = frozenset({JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})

# The two names that pydicom asks of a module of plugins
DECODER_DEPENDENCIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {uid: ("numpy", "imagecodecs") for uid, plugin in TRANSFER_SYNTAXES if plugin == _OWN}
)


def is_available(_uid: str) -> bool:
    """Tell pydicom that what this module needs is installed: it could not be imported otherwise."""
    return True


def available_transfer_syntaxes() -> tuple[str, ...]:
    """Return the transfer syntaxes of `TRANSFER_SYNTAXES` whose decoder is installed, uncompressed first."""
    return tuple(
        str(uid) for uid, plugin in TRANSFER_SYNTAXES if not plugin or plugin in get_decoder(UID(uid)).available_plugins
    )


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytearray:
    """Decode a frame for pydicom; called by it only.

    Raises
    ------
    CodestreamError
        The decoder found the frame damaged.
    """
    decoded = _decode_jpeg(frame) if runner.transfer_syntax in _JPEG else _decode_jpeg2000(frame)
    runner.set_option("bits_allocated", 8 * decoded.dtype.itemsize)
    if decoded.ndim > 2:
        runner.set_option("planar_configuration", 0)
        if str(runner.photometric_interpretation) in ("YBR_ICT", "YBR_RCT"):  # the decoder has undone these
            runner.set_option("photometric_interpretation", "RGB")
    return bytearray(decoded.astype(decoded.dtype.newbyteorder("<"), copy=False).tobytes())


def _decode_jpeg(frame: bytes) -> NDArray[Any]:
    return np.asarray(imagecodecs.jpeg8_decode(frame))


def _decode_jpeg2000(frame: bytes) -> NDArray[Any]:
    report = io.StringIO()
    # Its warnings go to standard error and nowhere else. One thread: they must come from this one.
    with contextlib.redirect_stderr(report):
        decoded = imagecodecs.jpeg2k_decode(ask_for_termination_check(frame), verbose=2, numthreads=1)
    read_termination_check(report.getvalue())
    return np.asarray(decoded)


def _register() -> None:
    for uid, plugin in TRANSFER_SYNTAXES:
        if plugin == _OWN and _OWN not in get_decoder(UID(uid)).available_plugins:
            get_decoder(UID(uid)).add_plugin(_OWN, (__name__, decode_frame.__name__))


_register()
