"""Synthetic chest-like radiographs as complete DICOM objects, for tests and the demo; no patient is behind them.

The pictures resemble a chest closely enough to have lungs, ribs, heart and diaphragm in the right places; they are no
test of a model's accuracy. Everything is computed from its arguments: the same call gives the same bytes.
"""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

IMPLEMENTATION_CLASS_UID = "2.25.319837456283347623874237642837462"
_NAMESPACE = uuid.UUID("9f8b6d2e-3c41-5b7a-8f15-6a2d4c9e0b71")


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
