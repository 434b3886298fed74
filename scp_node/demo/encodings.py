"""Data sets in other transfer syntaxes, for tests and the demo: the same picture in every encoding that can be made."""

import copy
import io
import shutil
import subprocess  # DCMTK's JPEG encoder, see _encode_with_dcmtk
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, FileDataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
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

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
# Transfer syntax -> options of pydicom's encoder
_COMPRESS_OPTIONS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        RLELossless: {"encoding_plugin": "pydicom"},
        JPEGLSLossless: {"encoding_plugin": "pyjpegls"},
        JPEGLSNearLossless: {"encoding_plugin": "pyjpegls", "jls_error": 2},
    }
)
# Options of OpenJPEG; the lossy level is a signal-to-noise ratio in dB
_JPEG2000_OPTIONS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {JPEG2000Lossless: {"reversible": True}, JPEG2000: {"reversible": False, "level": 55}}
)
# Options of OpenJPH, whose progression order is RPCL in any case; the lossy level is a quantization step.
_HTJ2K_OPTIONS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        HTJ2KLossless: {"reversible": True},
        HTJ2KLosslessRPCL: {"reversible": True, "tlm": True, "tilepart": 1},
        HTJ2K: {"reversible": False, "level": 1e-3},
    }
)
_DCMTK_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        JPEGExtended12Bit: ("+ee", "+q", "95", "+sr"),
        JPEGLossless: ("+el", "+sv", "4"),
        JPEGLosslessSV1: ("+e1",),
    }
)
# Lossy Image Compression Method (0028,2114) defined terms, PS3.3 C.7.6.1.1.5.1
_LOSSY_METHODS: Mapping[str, str] = MappingProxyType(
    {
        JPEGBaseline8Bit: "ISO_10918_1",
        JPEGExtended12Bit: "ISO_10918_1",
        JPEGLSNearLossless: "ISO_14495_1",
        JPEG2000: "ISO_15444_1",
        HTJ2K: "ISO_15444_15",
    }
)


def encodable_transfer_syntaxes() -> tuple[str, ...]:
    """Return the transfer syntaxes that `encode` can make here; those of DCMTK only where `dcmcjpeg` is installed."""
    dcmtk = tuple(_DCMTK_OPTIONS) if shutil.which("dcmcjpeg") else ()
    return (*map(str, _NATIVE), *_COMPRESS_OPTIONS, *_JPEG2000_OPTIONS, *_HTJ2K_OPTIONS, str(JPEGBaseline8Bit), *dcmtk)


def encode(dataset: FileDataset, transfer_syntax_uid: str) -> FileDataset:
    """Return a copy in another transfer syntax, ready for ``save_as(enforce_file_format=True)``; UIDs stay.

    Raises
    ------
    ValueError
        There is no encoder for this syntax, or it cannot take these pixels (JPEG Baseline holds 8 bits only).
    """
    if transfer_syntax_uid not in encodable_transfer_syntaxes():
        raise ValueError(f"no encoder for transfer syntax {transfer_syntax_uid} is installed")
    result = copy.deepcopy(dataset)
    if result.file_meta.TransferSyntaxUID.is_compressed and not result.file_meta.TransferSyntaxUID.is_deflated:
        result.decompress(generate_instance_uid=False)
    elif result.file_meta.TransferSyntaxUID == ExplicitVRBigEndian:
        _swap_words(result)
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    native_length = len(result.PixelData)
    if transfer_syntax_uid in _NATIVE:
        if transfer_syntax_uid == ExplicitVRBigEndian:
            _swap_words(result)
        result.file_meta.TransferSyntaxUID = transfer_syntax_uid
        # pydicom refuses to write another byte order than the one that it believes it read.
        uid_now = result.file_meta.TransferSyntaxUID
        result.set_original_encoding(uid_now.is_implicit_VR, uid_now.is_little_endian, dataset.original_character_set)
        return result
    if transfer_syntax_uid == JPEGBaseline8Bit:
        _encode_with_pillow(result)
    elif transfer_syntax_uid in _JPEG2000_OPTIONS:
        _encode_with_openjpeg(result, transfer_syntax_uid)
    elif transfer_syntax_uid in _HTJ2K_OPTIONS:
        _encode_with_openjph(result, transfer_syntax_uid)
    elif transfer_syntax_uid in _DCMTK_OPTIONS:
        result = _encode_with_dcmtk(result, transfer_syntax_uid)
    else:
        result.compress(transfer_syntax_uid, generate_instance_uid=False, **_COMPRESS_OPTIONS[transfer_syntax_uid])
    if method := _LOSSY_METHODS.get(transfer_syntax_uid):
        result.LossyImageCompression = "01"
        result.LossyImageCompressionRatio = f"{native_length / len(result.PixelData):.2f}"
        result.LossyImageCompressionMethod = method
    return result


def _swap_words(dataset: Dataset) -> None:
    """Swap the bytes of every 16-bit word of VR OW: pydicom writes these values as they are (PS3.5 7.3)."""
    for element in dataset.iterall():
        if element.VR == "OW" and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, dtype="<u2").byteswap().tobytes()


def _native_values(dataset: FileDataset) -> NDArray[Any]:
    """Return what is in native Pixel Data: (rows, columns) or (rows, columns, samples)."""
    shape = (dataset.Rows, dataset.Columns) + ((3,) if dataset.SamplesPerPixel == 3 else ())
    kind = f"<{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}"
    return np.frombuffer(dataset.PixelData, dtype=kind, count=int(np.prod(shape))).reshape(shape)


def _put_frame(dataset: FileDataset, frame: bytes, transfer_syntax_uid: str) -> None:
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid


def _encode_with_pillow(dataset: FileDataset) -> None:
    if dataset.BitsStored != 8:
        raise ValueError(f"JPEG Baseline holds 8 bits, not {dataset.BitsStored}")
    stream = io.BytesIO()
    colour = {"subsampling": "4:2:2"} if dataset.SamplesPerPixel == 3 else {}
    Image.fromarray(_native_values(dataset)).save(stream, format="JPEG", quality=92, **colour)
    _put_frame(dataset, stream.getvalue(), JPEGBaseline8Bit)
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation = "YBR_FULL_422"


def _encode_with_openjpeg(dataset: FileDataset, transfer_syntax_uid: str) -> None:
    options = _JPEG2000_OPTIONS[transfer_syntax_uid]
    frame = imagecodecs.jpeg2k_encode(
        np.ascontiguousarray(_native_values(dataset)),
        codecformat="j2k",
        bitspersample=dataset.BitsStored,
        mct=dataset.SamplesPerPixel == 3,
        numthreads=1,
        **options,
    )
    _put_frame(dataset, bytes(frame), transfer_syntax_uid)
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation = "YBR_RCT" if options["reversible"] else "YBR_ICT"


def _encode_with_openjph(dataset: FileDataset, transfer_syntax_uid: str) -> None:
    options = _HTJ2K_OPTIONS[transfer_syntax_uid]
    values, bits = _native_values(dataset), dataset.BitsStored
    spare = dataset.BitsAllocated - bits
    # The binding takes the depth from the type of the array. Values are moved to where a codestream of fewer bits has
    # them - coefficients are about the middle of the range, quantization steps a share of it - and its depth, Ssiz of
    # ITU-T T.800 A.5.1, is written over.
    if not options["reversible"]:
        values = values << spare
    elif not dataset.PixelRepresentation:
        values = values + values.dtype.type((1 << dataset.BitsAllocated - 1) - (1 << bits - 1))
    frame = bytearray(
        imagecodecs.htj2k_encode(np.ascontiguousarray(values), rgb=dataset.SamplesPerPixel == 3, **options)
    )
    for component in range(dataset.SamplesPerPixel):
        frame[42 + 3 * component] -= spare
    _put_frame(dataset, bytes(frame), transfer_syntax_uid)
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation = "YBR_RCT" if options["reversible"] else "YBR_ICT"


def _encode_with_dcmtk(dataset: FileDataset, transfer_syntax_uid: str) -> FileDataset:
    """Return what DCMTK's ``dcmcjpeg`` makes of it, UIDs and type as before: no Python library encodes these."""
    tool = shutil.which("dcmcjpeg")
    if tool is None:
        raise ValueError("dcmcjpeg is not installed")
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "in.dcm", Path(folder) / "out.dcm"
        dataset.save_as(before, enforce_file_format=True)
        options = ("+un", *_DCMTK_OPTIONS[transfer_syntax_uid])
        subprocess.run([tool, *options, str(before), str(after)], check=True, capture_output=True)  # noqa: S603 - fixed tool and options, files made here
        compressed = dcmread(after)
    result = copy.deepcopy(dataset)
    for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation"):
        setattr(result, keyword, getattr(compressed, keyword))
    result.PixelData = compressed.PixelData
    result["PixelData"].VR = "OB"
    result["PixelData"].is_undefined_length = True
    result.file_meta.TransferSyntaxUID = transfer_syntax_uid
    return result
