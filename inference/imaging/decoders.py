"""The one decoder of each transfer syntax; what can be checked beforehand has been.

Where pydicom may choose, it falls through from a decoder that refuses a damaged stream to one that returns noise.
"""

import contextlib
import logging
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import convert_color_space, get_decoder
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
    (RLELossless, _OWN),
)
"""Each transfer syntax with its decoder: imagecodecs, or the plugin of pydicom; empty where nothing is compressed."""

_JPEG = frozenset({JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})


def available_transfer_syntaxes() -> tuple[str, ...]:
    """Return the transfer syntaxes of `TRANSFER_SYNTAXES` whose decoder is installed, uncompressed first."""
    return tuple(
        str(uid)
        for uid, decoder in TRANSFER_SYNTAXES
        if decoder in ("", _OWN) or decoder in get_decoder(UID(uid)).available_plugins
    )


def decode(dataset: Dataset, frame: bytes, transfer_syntax_uid: str, *, threads: int = 1) -> NDArray[Any]:
    """Decode the one frame of a data set whose transfer syntax is in `TRANSFER_SYNTAXES`.

    Parameters
    ----------
    frame
        Its fragments joined; empty for native Pixel Data.
    threads
        For JPEG 2000, the one that takes long and whose decoder can share it out.

    Returns
    -------
    (rows, columns) of the words as they are stored, or (rows, columns, 3) red, green, blue

    Raises
    ------
    CodestreamError
        The decoder found the frame damaged.
    Exception
        Anything else that a decoder of foreign bytes comes to raise.
    """
    uid = UID(transfer_syntax_uid)
    decoder = dict(TRANSFER_SYNTAXES)[uid]
    if decoder != _OWN:
        decoded, _ = get_decoder(uid).as_array(
            dataset,
            index=0,
            raw=dataset.SamplesPerPixel == 1,
            decoding_plugin=decoder,
            number_of_frames=1,
            # the caller's, for any High Bit
            correct_unused_bits=False,
            # native pixels stay where they were read to
            view_only=True,
        )
        return np.asarray(decoded)
    if uid == RLELossless:
        decoded = _decode_rle(dataset, frame)
    else:
        decoded = np.asarray(imagecodecs.jpeg8_decode(frame) if uid in _JPEG else _decode_jpeg2000(frame, threads))
    # JPEG 2000 undoes its own colour transforms; YBR_FULL is the data set's matter.
    if decoded.ndim > 2 and str(dataset.PhotometricInterpretation).startswith("YBR_FULL"):
        decoded = convert_color_space(decoded, "YBR_FULL", "RGB")
    return np.asarray(decoded.astype(f"{decoded.dtype.kind}{dataset.BitsAllocated // 8}", copy=False))


def _decode_rle(dataset: Dataset, frame: bytes) -> NDArray[Any]:
    """Put the bytes of each sample together, most significant first, from the segments of PS3.5 G.2."""
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel)
    size, pixels = int(dataset.BitsAllocated) // 8, rows * columns
    used = struct.unpack_from(f"<{samples * size}I", frame, 4)
    words = np.empty((pixels, samples, size), dtype=np.uint8)
    for number, (start, end) in enumerate(pairwise((*used, len(frame)))):
        # Zeros that pad a segment to even length may read as one more run.
        segment = np.frombuffer(imagecodecs.packbits_decode(frame[start:end]), dtype=np.uint8, count=pixels)
        words[:, number // size, size - 1 - number % size] = segment
    decoded = words.view(f"<u{size}").reshape(rows, columns, samples)
    return decoded[..., 0] if samples == 1 else decoded


def _decode_jpeg2000(frame: bytes, threads: int) -> NDArray[Any]:
    with _warnings_of_decoder() as report:
        # Threads of the decoder report one after the other, and all before it returns.
        decoded = imagecodecs.jpeg2k_decode(ask_for_termination_check(frame), verbose=2, numthreads=threads)
    read_termination_check("\n".join(report))
    return np.asarray(decoded)


@contextlib.contextmanager
def _warnings_of_decoder() -> Iterator[list[str]]:
    """Collect what imagecodecs logs, whatever the process has done to logging: it tells of damage in no other way."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, collector = logging.getLogger("imagecodecs"), Collector()
    before = (logger.level, logger.propagate, logger.disabled, logging.root.manager.disable)
    logger.addHandler(collector)
    logger.setLevel(logging.WARNING)
    logger.propagate = logger.disabled = False
    logging.disable(logging.NOTSET)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
        logger.level, logger.propagate, logger.disabled, disabled = before
        logging.disable(disabled)
