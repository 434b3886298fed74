"""Secondary Capture Image objects of the pictures (PS3.3 A.8.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from imagecodecs import jpeg8_encode
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, SecondaryCaptureImageStorage

from inference.records import Prediction
from scp_node.records import ResultKind
from scp_node.results import codes, context, evidence, overlay, uids, wording
from scp_node.results.case import Case, ResultObject

SERIES_DESCRIPTION = "AI Grad-CAM overlay"
JPEG_METHOD = "ISO_10918_1"
LOSSY_METHODS = {
    str(JPEGBaseline8Bit): JPEG_METHOD,
    str(JPEGExtended12Bit): JPEG_METHOD,
    str(JPEGLSNearLossless): "ISO_14495_1",
}
"""Transfer syntaxes of a source that are lossy whatever its attributes say. JPEG 2000 may or may not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lossy:
    """The lossy compressions that a picture has been through (PS3.3 C.7.6.1.1.5).

    Parameters
    ----------
    flag
        ``01``, ``00`` or empty: unknown.
    methods, ratios
        One per step; empty where any step's is unknown.
    """

    flag: str = ""
    methods: tuple[str, ...] = ()
    ratios: tuple[str, ...] = ()

    def then(self, method: str, ratio: float) -> "Lossy":
        """The same with one more step."""
        if self.flag == "01" and not self.methods:
            return Lossy(flag="01", methods=(method,))
        known = self.flag != "01" or len(self.ratios) == len(self.methods)
        ratios = (*self.ratios, wording.decimal(round(ratio, 2))) if known else ()
        return Lossy(flag="01", methods=(*self.methods, method), ratios=ratios)

    def put(self, target: Dataset) -> None:
        """Write the attributes; none where nothing is known."""
        if self.flag:
            target.LossyImageCompression = self.flag
        if self.flag == "01" and self.methods:
            target.LossyImageCompressionMethod = list(self.methods)
        if self.flag == "01" and self.ratios:
            target.LossyImageCompressionRatio = list(self.ratios)


def build(case: Case, earlier: tuple[ResultObject, ...]) -> tuple[ResultObject, ...]:
    """Build the picture of all models, and one for each: those that the settings ask for."""
    del earlier
    settings = case.settings.secondary_capture
    pictures: list[Callable[[], ResultObject]] = []
    predictions = case.analysis.predictions
    size = settings.montage + settings.singles * len(predictions)
    if settings.montage:
        pictures.append(partial(_build_montage, case, evidence.instance_number(case, 1, size)))
    if settings.singles:
        radiograph = overlay.drawn(case.analysis, settings)
        for number, prediction in enumerate(predictions, start=evidence.instance_number(case, 2, size)):
            pictures.append(partial(_build_single, case, number, prediction, radiograph))
    return tuple(case.each(_made, pictures))


def _made(picture: Callable[[], ResultObject]) -> ResultObject:
    return picture()


def _build_montage(case: Case, number: int) -> ResultObject:
    rgb = overlay.montage(case.analysis, case.settings.secondary_capture)
    dataset = _start(case, ResultKind.MONTAGE, case.analysis.predictions)
    dataset.InstanceNumber = number
    dataset.ImageComments = _comments(wording.summary(case.analysis), case.analysis.predictions)
    dataset.DerivationDescription = "Radiograph as shown and Grad-CAM saliency of each model, side by side"
    _refer(case, dataset, keeps_locations=False, is_resampled=True)
    _put_pixels(case, dataset, rgb)
    evidence.finish(case, dataset, case.analysis.predictions)
    return ResultObject(kind=ResultKind.MONTAGE, model=None, group="montage", rank=0, dataset=dataset)


def _build_single(case: Case, number: int, prediction: Prediction, radiograph: NDArray[np.uint8]) -> ResultObject:
    settings = case.settings.secondary_capture
    rgb = overlay.single(case.analysis, prediction, settings, radiograph=radiograph)
    place = overlay.geometry_of(case.analysis, settings)
    dataset = _start(case, ResultKind.SINGLE, (prediction,))
    dataset.InstanceNumber = number
    dataset.ImageComments = _comments(f"{wording.NOT_A_DIAGNOSIS}. {wording.RESEARCH_USE}.", (prediction,))
    dataset.DerivationDescription = (
        f"Radiograph as shown with Grad-CAM saliency of {wording.plain(prediction.title, 64)} "
        f"at {wording.plain(prediction.target_layer, 64)}"
    )
    _refer(case, dataset, keeps_locations=place.keeps_locations, is_resampled=place.is_resampled)
    _put_pixels(case, dataset, rgb)
    evidence.finish(case, dataset, (prediction,))
    group = f"single:{prediction.model}"
    return ResultObject(kind=ResultKind.SINGLE, model=prediction.model, group=group, rank=0, dataset=dataset)


def _start(case: Case, kind: ResultKind, predictions: tuple[Prediction, ...]) -> FileDataset:
    settings = case.settings.secondary_capture
    is_jpeg = settings.transfer_syntax == "jpeg"
    modality = (context.text(case.source, "Modality") if settings.modality == "source" else "") or "OT"
    parameters = (
        f"alpha={settings.alpha!r}",
        f"colormap={settings.colormap}",
        f"size={settings.panel_size if kind is ResultKind.MONTAGE else settings.maximum_size}",
        f"jpeg={settings.jpeg_quality}" if is_jpeg else "uncompressed",
        f"modality={modality}",
    )
    # In the order of the configuration: it is the order of the panels.
    order = tuple(prediction.model for prediction in predictions)
    sop_instance_uid = uids.uid(
        kind.value,
        case.sop_instance_uid,
        *evidence.prediction_parts(predictions),
        *order,
        *parameters,
        *case.common_parts,
        str(SecondaryCaptureImageStorage),
    )
    dataset = evidence.start(
        case,
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=JPEGBaseline8Bit if is_jpeg else "",
    )
    number = case.settings.series_number_base
    dataset.Modality = modality
    dataset.SeriesNumber = number
    dataset.SeriesInstanceUID = evidence.series_uid(case, "secondary_capture", modality, number)
    dataset.SeriesDescription = SERIES_DESCRIPTION
    # Without a body part a projection image would need Laterality (Type 2C), which a chest has not.
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.PatientOrientation = _patient_orientation(case)
    dataset.ConversionType = "WSD"
    dataset.DateOfSecondaryCapture = dataset.ContentDate
    dataset.TimeOfSecondaryCapture = dataset.ContentTime
    dataset.SecondaryCaptureDeviceManufacturer = case.settings.manufacturer
    dataset.SecondaryCaptureDeviceManufacturerModelName = case.settings.manufacturer_model_name
    dataset.SecondaryCaptureDeviceSoftwareVersions = wording.software()
    # Our own text names no patient; the source's burned-in text is still in the picture.
    if burned_in := context.text(case.source, "BurnedInAnnotation"):
        dataset.BurnedInAnnotation = burned_in
    return dataset


def _comments(first: str, predictions: tuple[Prediction, ...]) -> str:
    return " ".join((first, *(wording.sentence(prediction) for prediction in predictions)))[:10240]


def _patient_orientation(case: Case) -> list[str] | str:
    values = context.text(case.source, "PatientOrientation").split("\\")
    return values if len(values) == 2 else ""


def _refer(case: Case, dataset: Dataset, *, keeps_locations: bool, is_resampled: bool) -> None:
    item = evidence.reference(case.sop_class_uid, case.sop_instance_uid)
    item.SpatialLocationsPreserved = "YES" if keeps_locations else "NO"
    item.PurposeOfReferenceCodeSequence = [codes.SOURCE_IMAGE_FOR_PROCESSING.item()]
    dataset.SourceImageSequence = [item]
    if is_resampled:
        dataset.DerivationCodeSequence = [codes.SPATIAL_RESAMPLING.item()]


def _put_pixels(case: Case, dataset: Dataset, rgb: NDArray[np.uint8]) -> None:
    """Set the Image Pixel module (PS3.3 C.7.6.3): RGB by pixel, or JPEG Baseline in 4:2:2 (PS3.5 8.2.1).

    Without Pixel Aspect Ratio (0028,0034): pixels are square (PS3.3 C.7.6.3.1.7).
    """
    settings = case.settings.secondary_capture
    lossy = _source_lossy(case)
    dataset.Rows, dataset.Columns = rgb.shape[:2]
    dataset.SamplesPerPixel = 3
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if settings.transfer_syntax == "jpeg":
        stream = jpeg8_encode(rgb, level=settings.jpeg_quality, subsampling="422")
        lossy = lossy.then(JPEG_METHOD, rgb.nbytes / len(stream))
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.add_new("PixelData", "OB", encapsulate([stream]))
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PhotometricInterpretation = "RGB"
        # Both sides are even, and so is the length (PS3.5 8.1.1).
        dataset.add_new("PixelData", "OB", rgb.tobytes())
    lossy.put(dataset)


def _source_lossy(case: Case) -> Lossy:
    flag = context.text(case.source, "LossyImageCompression")
    methods = tuple(filter(None, context.text(case.source, "LossyImageCompressionMethod").split("\\")))
    ratios = tuple(filter(None, context.text(case.source, "LossyImageCompressionRatio").split("\\")))
    file_meta = getattr(case.source, "file_meta", None) or Dataset()
    by_syntax = LOSSY_METHODS.get(str(file_meta.get("TransferSyntaxUID", "")))
    if by_syntax and flag != "01":
        return Lossy(flag="01", methods=(by_syntax,))
    if flag != "01":
        return Lossy(flag=flag)
    return Lossy(flag="01", methods=methods, ratios=ratios if not methods or len(ratios) == len(methods) else ())
