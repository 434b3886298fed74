"""Synthetic chest-like radiographs as complete DICOM objects, for tests and the demo; no patient is behind them.

The pictures resemble a chest closely enough to have lungs, ribs, heart and diaphragm in the right places; they are no
test of a model's accuracy. Everything is computed from its arguments: the same call gives the same bytes.
"""

import copy
import io
import shutil
import subprocess  # DCMTK's JPEG encoder, see _encode_with_dcmtk
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, FileDataset, FileMetaDataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

IMPLEMENTATION_CLASS_UID = "2.25.319837456283347623874237642837462"
_NAMESPACE = uuid.UUID("9f8b6d2e-3c41-5b7a-8f15-6a2d4c9e0b71")

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
# Transfer syntax -> options of pydicom's encoder
_COMPRESS_OPTIONS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        RLELossless: {"encoding_plugin": "pydicom"},
        JPEGLSLossless: {"encoding_plugin": "pyjpegls"},
        JPEGLSNearLossless: {"encoding_plugin": "pyjpegls", "jls_error": 2},
        JPEG2000Lossless: {"encoding_plugin": "pylibjpeg"},
        JPEG2000: {"encoding_plugin": "pylibjpeg", "j2k_cr": [5]},
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
    }
)


def uid(*parts: object) -> str:
    """Return the UID that belongs to these parts: UUID-derived (PS3.5 B.2), the same for the same parts."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(map(str, parts))).int}"


def chest_array(rows: int, columns: int, bits: int = 12, seed: int = 0, opacity: float = 0.0) -> NDArray[np.uint16]:
    """Draw a chest-like picture.

    Parameters
    ----------
    bits
        The values fill most of 0 to 2**bits - 1.
    seed
        Varies anatomy a little, and the noise.
    opacity
        0 to 1: strength of a patch in the right lower lung field (left in the picture), like a consolidation.

    Returns
    -------
    (rows, columns) uint16, MONOCHROME2 sense: high values are white, bone and heart are high, lungs and air low
    """
    random = np.random.default_rng(seed)
    shift_x, shift_y, wide, heart = random.uniform(-1, 1, 4) * (0.015, 0.02, 0.02, 0.02)
    y = np.linspace(0, 1, rows, dtype=np.float32)[:, None] - np.float32(shift_y)
    x = np.linspace(0, 1, columns, dtype=np.float32)[None, :] - np.float32(shift_x)

    def inside(cx: float, cy: float, rx: float, ry: float, softness: float) -> NDArray[np.float32]:
        radius = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        return np.asarray(1 / (1 + np.exp(np.clip((radius - 1) / softness, -30, 30))), dtype=np.float32)

    # Neck, then shoulders and trunk, widening downwards; outside is direct exposure, almost black.
    half_width = 0.14 + 0.34 / (1 + np.exp(-(y - 0.1) * 40))
    body = 1 / (1 + np.exp(np.clip((np.abs(x - 0.5) - half_width) * 60, -30, 30)))
    picture = 0.03 + 0.57 * body
    left = inside(0.29, 0.45, 0.165 + wide, 0.37, 0.10)
    right = inside(0.71, 0.44, 0.160 + wide, 0.36, 0.10)
    # The diaphragm cuts the lungs off below, the right dome higher than the left one.
    left = left / (1 + np.exp(np.clip((y - 0.72 - 1.2 * (x - 0.29) ** 2) * 70, -30, 30)))
    right = right / (1 + np.exp(np.clip((y - 0.76 - 1.2 * (x - 0.71) ** 2) * 70, -30, 30)))
    lungs = np.clip(left + right, 0, 1)
    picture = picture - 0.40 * lungs
    shadow = inside(0.57 + heart, 0.62, 0.135, 0.15, 0.12) * body
    picture = picture * (1 - shadow) + 0.70 * shadow
    picture += 0.14 * np.exp(-(((x - 0.5) / 0.045) ** 2)) * body * (1 + 0.12 * np.sin(y * 75))
    for side, centre in ((-1, 0.29), (1, 0.71)):
        arc = y - 0.30 * ((x - centre) * side - 0.04) ** 2 * 4 - 0.22 * (x - centre) * side
        ribs = np.clip(np.sin(arc * 62), 0, 1) ** 2
        picture += 0.10 * ribs * np.where(side < 0, left, right)
        vessels = np.sin(x * 83 + 3 * np.sin(y * 19)) * np.sin(y * 71 + 2 * np.sin(x * 23))
        hilum = np.exp(-(((x - 0.5 - side * 0.11) / 0.07) ** 2) - ((y - 0.45) / 0.12) ** 2)
        picture += (0.05 * vessels + 0.05) * hilum * body
        clavicle = np.exp(-(((y - 0.17 - 0.16 * np.abs(x - 0.5)) / 0.016) ** 2))
        picture += 0.10 * clavicle * ((x - 0.5) * side > 0.03) * (np.abs(x - 0.5) < 0.33) * body
    if opacity:
        blob = np.exp(-(((x - 0.28) / 0.085) ** 2) - ((y - 0.58) / 0.085) ** 2)
        picture += 0.32 * opacity * blob * left
    # Film-like noise of two grain sizes: neighbouring pixels of a radiograph are correlated.
    coarse = random.normal(0, 1, (rows // 4 + 1, columns // 4 + 1)).astype(np.float32)
    picture += 0.008 * np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)[:rows, :columns]
    picture += 0.006 * random.normal(0, 1, (rows, columns)).astype(np.float32)
    values = np.clip(picture, 0, 1) * (2**bits - 1)
    return np.asarray(np.rint(values), dtype=np.uint16)


def code(value: str, scheme: str, meaning: str) -> Sequence:
    """Return a code sequence of one item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def put_pixels(
    dataset: Dataset, stored_values: NDArray[Any], *, bits_stored: int, photometric_interpretation: str
) -> None:
    """Set the Image Pixel module (PS3.3 C.7.6.3) for one grey frame or one RGB frame, uncompressed little endian.

    Parameters
    ----------
    stored_values
        (rows, columns) or (rows, columns, 3) of an integer type; a signed type makes Pixel Representation 1.
    """
    signed = stored_values.dtype.kind == "i"
    allocated = 8 if bits_stored <= 8 else 16
    dataset.SamplesPerPixel = 1 if stored_values.ndim == 2 else stored_values.shape[2]
    dataset.PhotometricInterpretation = photometric_interpretation
    if dataset.SamplesPerPixel > 1:
        dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = stored_values.shape[:2]
    dataset.BitsAllocated = allocated
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(signed)
    data = stored_values.astype(f"<{'i' if signed else 'u'}{allocated // 8}").tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"


def _base(sop_class_uid: str, modality: str, identity: str) -> FileDataset:
    """Return the modules that every IOD here has: Patient, General Study, Series, Equipment, Image, SOP Common."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = uid(identity, "instance")
    dataset = FileDataset(None, Dataset(), preamble=b"\0" * 128, file_meta=meta)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = uid(identity, "study")
    dataset.SeriesInstanceUID = uid(identity, "series")
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20260301"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101500"
    dataset.AccessionNumber = "A" + uid(identity, "accession")[-8:]
    dataset.Modality = modality
    dataset.Manufacturer = "Phantom Works"
    dataset.ManufacturerModelName = "Synthetic Chest"
    dataset.SoftwareVersions = "1"
    dataset.DeviceSerialNumber = "1"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Chest"
    dataset.PatientName = "Phantom^Chest"
    dataset.PatientID = "P" + uid(identity, "patient")[-8:]
    dataset.PatientBirthDate = "19620714"
    dataset.PatientSex = "O"
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    return dataset


def _finish(dataset: FileDataset, attributes: Mapping[str, Any]) -> FileDataset:
    """Set the caller's attributes by keyword; None removes one. File Meta follows the SOP UIDs."""
    for keyword, value in attributes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _pixels(
    stored_values: NDArray[Any] | None,
    *,
    rows: int,
    columns: int,
    bits: int,
    photometric: str,
    seed: int,
    opacity: float,
) -> NDArray[Any]:
    if stored_values is not None:
        return stored_values
    picture = chest_array(rows, columns, bits, seed, opacity)
    return picture if photometric != "MONOCHROME1" else np.asarray(2**bits - 1 - picture.astype(np.int32), np.uint16)


def cr(
    stored_values: NDArray[Any] | None = None,
    *,
    rows: int = 512,
    columns: int = 448,
    bits_stored: int = 12,
    photometric_interpretation: str = "MONOCHROME1",
    seed: int = 0,
    opacity: float = 0.0,
    identity: str | None = None,
    **attributes: Any,  # noqa: ANN401 - a value of any VR
) -> FileDataset:
    """Return a Computed Radiography image (PS3.3 A.2).

    Parameters
    ----------
    stored_values
        (rows, columns) of an integer type instead of the drawn chest.
    identity
        UIDs and patient identifiers derive from it; by default from the kind and the seed.
    attributes
        By DICOM keyword, set last; None removes the attribute.
    """
    dataset = _base(ComputedRadiographyImageStorage, "CR", identity or f"cr-{seed}")
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = [0.8, 0.8]
    dataset.BurnedInAnnotation = "NO"
    dataset.KVP = "125"
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits_stored - 1), 2**bits_stored
    pixels = _pixels(
        stored_values,
        rows=rows,
        columns=columns,
        bits=bits_stored,
        photometric=photometric_interpretation,
        seed=seed,
        opacity=opacity,
    )
    put_pixels(dataset, pixels, bits_stored=bits_stored, photometric_interpretation=photometric_interpretation)
    return _finish(dataset, attributes)


def _dx(sop_class_uid: str, intent: str, identity: str) -> FileDataset:
    """Return what both DX IODs share: DX Series, Anatomy, Image, Detector, Positioning (PS3.3 C.8.11)."""
    dataset = _base(sop_class_uid, "DX", identity)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.PresentationIntentType = intent
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = code("51185008", "SCT", "Chest")
    dataset.ViewPosition = "PA"
    dataset.ViewCodeSequence = code("272479007", "SCT", "postero-anterior")
    dataset.PatientOrientation = ["L", "F"]
    dataset.PatientOrientationCodeSequence = code("10904000", "SCT", "erect")
    dataset.PositionerType = ""
    dataset.DetectorType = "DIRECT"
    dataset.ImagerPixelSpacing = [0.8, 0.8]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    dataset.AcquisitionContextSequence = Sequence()
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.KVP = "125"
    return dataset


def dx(
    stored_values: NDArray[Any] | None = None,
    *,
    rows: int = 576,
    columns: int = 512,
    bits_stored: int = 14,
    photometric_interpretation: str = "MONOCHROME2",
    seed: int = 0,
    opacity: float = 0.0,
    identity: str | None = None,
    **attributes: Any,  # noqa: ANN401 - a value of any VR
) -> FileDataset:
    """Return a Digital X-Ray image for presentation (PS3.3 A.26) with two windows; parameters as for `cr`."""
    dataset = _dx(DigitalXRayImageStorageForPresentation, "FOR PRESENTATION", identity or f"dx-{seed}")
    if photometric_interpretation == "MONOCHROME1":
        dataset.PresentationLUTShape = "INVERSE"
    full = 2**bits_stored
    dataset.WindowCenter, dataset.WindowWidth = [full // 2, full * 2 // 5], [full, full * 3 // 5]
    dataset.WindowCenterWidthExplanation = ["NORMAL", "HARDER"]
    pixels = _pixels(
        stored_values,
        rows=rows,
        columns=columns,
        bits=bits_stored,
        photometric=photometric_interpretation,
        seed=seed,
        opacity=opacity,
    )
    put_pixels(dataset, pixels, bits_stored=bits_stored, photometric_interpretation=photometric_interpretation)
    return _finish(dataset, attributes)


def dx_for_processing(
    stored_values: NDArray[Any] | None = None,
    *,
    rows: int = 576,
    columns: int = 512,
    bits_stored: int = 14,
    seed: int = 0,
    opacity: float = 0.0,
    identity: str | None = None,
    **attributes: Any,  # noqa: ANN401 - a value of any VR
) -> FileDataset:
    """Return raw detector data (PS3.3 A.26, for processing): linear in dose, high values are air; no VOI."""
    dataset = _dx(DigitalXRayImageStorageForProcessing, "FOR PROCESSING", identity or f"dx-for-processing-{seed}")
    # PS3.3 C.8.11.3.1.2: linear, and higher values mean more X-ray intensity.
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LIN", 1
    if stored_values is None:
        picture = chest_array(rows, columns, 16, seed, opacity) / 65535.0
        stored_values = np.asarray(np.rint(0.98 * (2**bits_stored - 1) * np.exp(-4.0 * picture)), np.uint16)
    put_pixels(dataset, stored_values, bits_stored=bits_stored, photometric_interpretation="MONOCHROME1")
    dataset.PresentationLUTShape = "INVERSE"
    return _finish(dataset, attributes)


def secondary_capture(
    stored_values: NDArray[Any] | None = None,
    *,
    rows: int = 512,
    columns: int = 512,
    bits_stored: int = 8,
    photometric_interpretation: str = "MONOCHROME2",
    modality: str = "CR",
    seed: int = 0,
    opacity: float = 0.0,
    identity: str | None = None,
    **attributes: Any,  # noqa: ANN401 - a value of any VR
) -> FileDataset:
    """Return a Secondary Capture image (PS3.3 A.8) as digitised or de-identified radiographs come; parameters as `cr`.

    `stored_values` may be (rows, columns, 3) with Photometric Interpretation RGB.
    """
    dataset = _base(SecondaryCaptureImageStorage, modality, identity or f"sc-{seed}")
    dataset.ConversionType = "WSD"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    pixels = _pixels(
        stored_values,
        rows=rows,
        columns=columns,
        bits=bits_stored,
        photometric=photometric_interpretation,
        seed=seed,
        opacity=opacity,
    )
    put_pixels(dataset, pixels, bits_stored=bits_stored, photometric_interpretation=photometric_interpretation)
    return _finish(dataset, attributes)


def _rsna() -> FileDataset:
    """Like the RSNA challenge's files: SC class, Modality CR, JPEG Baseline, an invalid age, no spacing."""
    dataset = secondary_capture(
        rows=1024,
        columns=1024,
        seed=1,
        opacity=0.8,
        identity="rsna",
        PatientOrientation=None,
        SeriesDescription="view: PA",
        PatientName="8d1c8a5e-0000-4000-8000-00000000rsna",
        PatientID="8d1c8a5e-0000-4000-8000-00000000rsna",
        PatientBirthDate="",
        PatientSex="F",
        AccessionNumber="",
        StudyDescription=None,
        StudyID="",
        StudyDate="19010101",
        StudyTime="000000.00",
        SeriesDate=None,
        SeriesTime=None,
        AcquisitionDate=None,
        AcquisitionTime=None,
        ContentDate=None,
        ContentTime=None,
        Manufacturer=None,
        ManufacturerModelName=None,
        SoftwareVersions=None,
        DeviceSerialNumber=None,
    )
    dataset = encode(dataset, JPEGBaseline8Bit)
    # AS must be 062Y. A raw element keeps the fault as a file would have it, without a warning on assignment.
    element = copy.deepcopy(dataset["PatientSex"])
    element.tag, element.VR = 0x00101010, "AS"
    element._value = "62"
    dataset.add(element)
    return dataset


def _named(identity: str, character_set: str | list[str], name: bytes) -> FileDataset:
    """Return the CR with a name in these bytes, as the character set encodes it."""
    dataset = cr(identity=identity, seed=2)
    dataset.SpecificCharacterSet = character_set
    stream = io.BytesIO()
    dataset.PatientName = "PLACEHOLDER"
    dataset.save_as(stream, enforce_file_format=True)
    # Reading back from bytes keeps the name exactly as it stands, which assigning a str would not promise.
    padded = name + b" " * (len(name) % 2)
    data = stream.getvalue()
    old = b"\x10\x00\x10\x00PN\x0c\x00PLACEHOLDER "
    if data.count(old) != 1:
        raise ValueError("the placeholder name is not in the encoded object exactly once")
    return dcmread(io.BytesIO(data.replace(old, b"\x10\x00\x10\x00PN" + len(padded).to_bytes(2, "little") + padded)))


def _cr_bare() -> FileDataset:
    """A CR that identifies nothing: even Type 2 attributes are absent, as faulty gateways send it."""
    absent: dict[str, Any] = dict.fromkeys(
        (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "StudyID",
            "SeriesNumber",
            "InstanceNumber",
            "BodyPartExamined",
            "ViewPosition",
            "PatientOrientation",
            "SpecificCharacterSet",
            "StudyDescription",
            "SeriesDate",
            "SeriesTime",
            "AcquisitionDate",
            "AcquisitionTime",
            "ContentDate",
            "ContentTime",
        )
    )
    return cr(identity="cr-bare", seed=3, **absent)


SOURCES: Mapping[str, Callable[[], FileDataset]] = MappingProxyType(
    {
        "rsna": _rsna,
        "cr": cr,
        "dx": dx,
        "cr_ko": lambda: _named(
            "cr-ko",
            ["", "ISO 2022 IR 149"],
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ),
        "cr_ja": lambda: _named(
            "cr-ja",
            ["", "ISO 2022 IR 87"],
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ),
        "cr_u8": lambda: _named("cr-u8", "ISO_IR 192", "Wang^XiaoDong=王^小東=".encode()),
        "cr_bare": _cr_bare,
    }
)
"""Seven sources that cover what arrives in practice; each call builds a new object."""


def encodable_transfer_syntaxes() -> tuple[str, ...]:
    """Return the transfer syntaxes that `encode` can make here; those of DCMTK only where `dcmcjpeg` is installed."""
    dcmtk = tuple(_DCMTK_OPTIONS) if shutil.which("dcmcjpeg") else ()
    return (*map(str, _NATIVE), *_COMPRESS_OPTIONS, str(JPEGBaseline8Bit), *dcmtk)


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


def _encode_with_pillow(dataset: FileDataset) -> None:
    if dataset.BitsStored != 8:
        raise ValueError(f"JPEG Baseline holds 8 bits, not {dataset.BitsStored}")
    shape = (dataset.Rows, dataset.Columns) + ((3,) if dataset.SamplesPerPixel == 3 else ())
    pixels = np.frombuffer(dataset.PixelData, dtype=np.uint8)[: int(np.prod(shape))].reshape(shape)
    stream = io.BytesIO()
    colour = {"subsampling": "4:2:2"} if dataset.SamplesPerPixel == 3 else {}
    Image.fromarray(pixels).save(stream, format="JPEG", quality=92, **colour)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    if dataset.SamplesPerPixel == 3:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit


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
