"""Reads a file as a radiograph: which format it is in, its attributes, and its stored values; judges nothing."""

import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_partial
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from inference.errors import CodestreamError, SourceError, UnsupportedPixelsError
from inference.imaging.attributes import integer, word
from inference.imaging.codestream import Proof, check
from inference.imaging.decoders import available_transfer_syntaxes, decode
from inference.imaging.picture import MAXIMUM_PIXELS, grey_of, read_picture
from inference.records import FileFormat, SourceHeader, SourceImage

_PIXEL_DATA, _FLOAT_PIXEL_DATA = 0x7FE00010, (0x7FE00008, 0x7FE00009)
_UNDEFINED_LENGTH = 0xFFFFFFFF
_MAXIMUM_INFLATED_BYTES = 1 << 28
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PADDING_BYTES = 16
"""Bytes after the last pixel that pass as padding; more means that Rows or Columns are wrong."""


def read_header(file: Path, name: str | None = None) -> SourceHeader:
    """Read a file up to its pixels.

    Parameters
    ----------
    file
        DICOM (PS3.10), PNG or JPEG, told apart by content and never by name.
    name
        For messages; the file's name by default.

    Raises
    ------
    SourceError
        Not one of these formats, unreadable, or a DICOM file without the UIDs of study, series and instance.
    """
    name = name or file.name
    try:
        with file.open("rb") as stream:
            start = stream.read(132)
    except OSError as error:
        raise SourceError(name, f"cannot be opened ({error.strerror or type(error).__name__})") from error
    # A preamble may look like anything (PS3.10 7.1): DICM decides first.
    if start[128:132] == b"DICM":
        dataset, pixel_tag = _read_dataset(file, name, with_pixels=False)
        for keyword in _REQUIRED:
            if not word(dataset, keyword):
                raise SourceError(name, f"{keyword} is missing: the data set is truncated or no composite object")
        return SourceHeader(
            name=name,
            file=file,
            file_format=FileFormat.DICOM,
            dataset=dataset,
            has_pixel_data=pixel_tag == _PIXEL_DATA,
        )
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return SourceHeader(name=name, file=file, file_format=FileFormat.PNG, dataset=None)
    if start.startswith(b"\xff\xd8\xff"):
        return SourceHeader(name=name, file=file, file_format=FileFormat.JPEG, dataset=None)
    raise SourceError(name, "is no DICOM (PS3.10), PNG or JPEG file")


def read_pixels(header: SourceHeader, *, threads: int = 1) -> SourceImage:
    """Decode the pixels of a file.

    Parameters
    ----------
    threads
        That a decoder may use; one that can is JPEG 2000's.

    Raises
    ------
    SourceError
        No Pixel Data, no decoder for the transfer syntax, header and pixels disagree, truncated or damaged.
    UnsupportedPixelsError
        Pixels that are no single grey frame: coloured, several frames, more than 16 bits.
    """
    if header.file_format is not FileFormat.DICOM:
        return read_picture(header)
    dataset, pixel_tag = _read_dataset(header.file, header.name, with_pixels=True)
    if pixel_tag != _PIXEL_DATA or not dataset.get("PixelData"):
        raise SourceError(header.name, "has no Pixel Data (7FE0,0010)")
    return _decode(header, dataset, threads)


def _read_dataset(file: Path, name: str, *, with_pixels: bool) -> tuple[FileDataset, int | None]:
    """Parse a DICOM file; also return the tag of its pixel data element, None without one."""
    found: list[int] = []

    def at_pixels(tag: Any, _vr: str | None, _length: int) -> bool:  # noqa: ANN401 - int or BaseTag
        is_pixels = int(tag) == _PIXEL_DATA or int(tag) in _FLOAT_PIXEL_DATA
        if is_pixels:
            found.append(int(tag))
        return is_pixels and not with_pixels

    try:
        with warnings.catch_warnings(), file.open("rb") as stream:
            # Their texts quote values, and a patient's data must not reach a log. What matters is checked here.
            warnings.simplefilter("ignore")
            dataset = _parse(stream, name, at_pixels)
            _check_whole(name, dataset)
            # Values are converted at first access: provoke now what a damaged or endless sequence would raise later.
            for _ in dataset.iterall():
                pass
    except SourceError:
        raise
    except Exception as error:  # pydicom raises nearly anything for foreign bytes; RecursionError, MemoryError included
        raise SourceError(name, f"cannot be parsed as DICOM ({type(error).__name__})") from error
    return dataset, found[0] if found else None


def _check_whole(name: str, dataset: Dataset) -> None:
    """Raise SourceError when an element has fewer bytes than it says: pydicom takes what is there (M9)."""
    for element in dataset.values():
        # Not converted yet: what has no length of its own (FFFFFFFF) was read up to its end.
        value = element.value if isinstance(element, RawDataElement) else None
        if isinstance(value, bytes) and len(value) < element.length < _UNDEFINED_LENGTH:
            raise SourceError(name, f"the data set is truncated within element {element.tag}")


def _parse(stream: BinaryIO, name: str, at_pixels: Any) -> FileDataset:  # noqa: ANN401 - pydicom's callback type
    preamble = stream.read(132)[:128]
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2))
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
        return read_partial(stream, stop_when=at_pixels)
    # pydicom inflates without a limit, and deflate makes a gigabyte of a megabyte.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(stream.read(), _MAXIMUM_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise SourceError(name, f"the deflated data set holds more than {_MAXIMUM_INFLATED_BYTES >> 20} MiB")
    if not inflater.eof:
        raise SourceError(name, "the deflated data set is truncated")
    dataset = read_dataset(BytesIO(inflated), False, True, stop_when=at_pixels)
    result = FileDataset(None, dataset, preamble, meta, is_implicit_VR=False, is_little_endian=True)
    result.set_original_encoding(False, True, dataset.original_character_set)
    return result


def _required(name: str, dataset: Dataset, keyword: str, tag: str, *, low: int, high: int) -> int:
    value = integer(dataset, keyword)
    if value is None or not low <= value <= high:
        raise SourceError(name, f"{keyword} {tag} is missing or not {low} to {high}")
    return value


def _decode(header: SourceHeader, dataset: FileDataset, threads: int) -> SourceImage:
    name = header.name
    rows = _required(name, dataset, "Rows", "(0028,0010)", low=1, high=65535)
    columns = _required(name, dataset, "Columns", "(0028,0011)", low=1, high=65535)
    allocated = _required(name, dataset, "BitsAllocated", "(0028,0100)", low=1, high=64)
    stored = _required(name, dataset, "BitsStored", "(0028,0101)", low=1, high=allocated)
    high_bit = integer(dataset, "HighBit")
    high_bit = stored - 1 if high_bit is None else high_bit
    samples = _required(name, dataset, "SamplesPerPixel", "(0028,0002)", low=1, high=4)
    is_signed = _required(name, dataset, "PixelRepresentation", "(0028,0103)", low=0, high=1) == 1
    photometric = word(dataset, "PhotometricInterpretation")
    if rows * columns > MAXIMUM_PIXELS:
        raise SourceError(name, f"{rows} x {columns} pixels are more than this node reads")
    if not stored - 1 <= high_bit < allocated:
        raise SourceError(name, f"High Bit (0028,0102) {high_bit} does not fit {stored} of {allocated} bits")
    if problem := unsupported_pixels(dataset):
        raise UnsupportedPixelsError(name, problem)
    uid = UID(dataset.file_meta.get("TransferSyntaxUID", ExplicitVRLittleEndian))
    if uid not in available_transfer_syntaxes():
        raise SourceError(name, f"no decoder for transfer syntax {uid.name if uid.is_valid else 'of an invalid UID'}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if uid.is_encapsulated:
                frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
                prove = check(frame, uid, rows=rows, columns=columns, samples=samples, bits_allocated=allocated)
                decoded = _proved(lambda: decode(dataset, frame, uid, threads=threads), prove)
            else:
                _check_length(name, dataset, rows * columns * samples * allocated // 8)
                decoded = decode(dataset, b"", uid)
    except CodestreamError as error:
        raise SourceError(name, str(error)) from error
    except SourceError:
        raise
    except Exception as error:  # decoders of foreign bytes raise nearly anything, MemoryError included
        raise SourceError(name, f"Pixel Data (7FE0,0010) cannot be decoded ({type(error).__name__})") from error
    if decoded.shape[:2] != (rows, columns):
        raise SourceError(name, f"decoding gave {decoded.shape[:2]} pixels, Rows x Columns is {rows} x {columns}")
    values = _stored_values(decoded, stored, high_bit, is_signed)
    if samples > 1:
        values = grey_of(name, values, 2**stored - 1)
    elif not photometric.startswith("MONOCHROME"):
        raise SourceError(name, "Photometric Interpretation (0028,0004) does not fit one sample per pixel")
    return SourceImage(header=header, stored_values=values, bits_stored=stored, is_signed=is_signed)


def _proved(decoded_frame: Callable[[], NDArray[Any]], prove: Proof) -> NDArray[Any]:
    """Decode, and have the samples looked at; where the decoder fails, the check knows better why."""
    try:
        decoded = decoded_frame()
    except Exception:
        prove(None)
        raise
    prove(decoded)
    return decoded


def unsupported_pixels(dataset: Dataset) -> str | None:
    """Return in one sentence why the Image Pixel module describes no single grey frame; None if it does or may do."""
    frames = integer(dataset, "NumberOfFrames")
    if frames is not None and frames > 1:
        return f"Number of Frames (0028,0008) is {frames}; one frame is judged"
    samples, photometric = integer(dataset, "SamplesPerPixel"), word(dataset, "PhotometricInterpretation")
    if samples == 1 and photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return "Photometric Interpretation (0028,0004) is neither MONOCHROME1 nor MONOCHROME2"
    if samples is not None and samples not in (1, 3):
        return f"Samples per Pixel (0028,0002) is {samples}"
    allocated = integer(dataset, "BitsAllocated")
    if allocated is not None and allocated not in (8, 16):
        return f"Bits Allocated (0028,0100) is {allocated}; 8 and 16 are judged"
    if samples == 3 and integer(dataset, "PixelRepresentation") == 1:
        return "Pixel Representation (0028,0103) is signed with three samples"
    return None


def _check_length(name: str, dataset: FileDataset, expected: int) -> None:
    """Compare the length of native Pixel Data with the header; 4:2:2 has two samples for three (PS3.3 C.7.6.3.1.2)."""
    if word(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        expected = expected // 3 * 2
    actual = len(dataset.PixelData)
    if not expected <= actual < expected + _PADDING_BYTES:
        raise SourceError(name, f"Pixel Data (7FE0,0010) has {actual} bytes, Rows, Columns and bits ask for {expected}")


def _stored_values(decoded: NDArray[Any], stored: int, high_bit: int, is_signed: bool) -> NDArray[Any]:
    """Cut the bits that count out of each decoded word: none above High Bit, none below, sign extended."""
    decoded = decoded.astype(decoded.dtype.newbyteorder("="), copy=False)
    size = decoded.dtype.itemsize
    left, right = 8 * size - high_bit - 1, 8 * size - stored
    pattern = decoded.view(f"u{size}")
    if right == 0 and not is_signed:
        return np.ascontiguousarray(pattern)
    shifted: NDArray[Any] = np.left_shift(pattern, left)
    words = shifted.view(f"i{size}") if is_signed else shifted
    np.right_shift(words, right, out=words)
    return np.asarray(words, dtype=np.int16) if is_signed else words
