"""Attributes and pixels of the pictures as Secondary Capture objects."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from config.results import ResultSettings, SecondaryCaptureSettings
from scp_node.demo import encodings, phantoms
from scp_node.records import ResultKind
from scp_node.results import captions, overlay
from scp_node.results.catalog import build_results

JPEG = ResultSettings(secondary_capture=SecondaryCaptureSettings(transfer_syntax="jpeg"))
PICTURES = (ResultKind.MONTAGE, ResultKind.SINGLE)


def pictures(analysis, settings, made_at):
    """Written and read again, as an archive gets them."""
    results = build_results(analysis, settings, made_at=made_at)
    return [dcmread(BytesIO(r.encode())) for r in results if r.kind in PICTURES]


def test_the_montage_comes_first_then_one_single_per_model(analysis, made_at):
    made = pictures(analysis, ResultSettings(), made_at)
    assert [p.InstanceNumber for p in made] == [1, 2, 3, 4]
    assert {p.SeriesInstanceUID for p in made} == {made[0].SeriesInstanceUID}
    assert {p.SeriesNumber for p in made} == {9001}
    assert {p.Modality for p in made} == {"OT"}
    assert {p.SOPClassUID for p in made} == {SecondaryCaptureImageStorage}
    assert np.array_equal(made[0].pixel_array, overlay.montage(analysis, SecondaryCaptureSettings()))
    for picture, prediction in zip(made[1:], analysis.predictions, strict=True):
        expected = overlay.single(analysis, prediction, SecondaryCaptureSettings())
        assert np.array_equal(picture.pixel_array, expected)


@pytest.mark.parametrize(
    ("pictures_of", "first", "second"),
    [
        ({}, [1, 2, 3, 4], [5, 6, 7, 8]),
        ({"singles": False}, [1], [2]),
        ({"montage": False}, [2, 3, 4], [5, 6, 7]),
    ],
)
def test_radiographs_of_one_series_do_not_share_numbers(analysis_of, made_at, pictures_of, first, second):
    """Viewers sort a series by Instance Number: the pictures of one exposure stay together."""
    settings = ResultSettings(secondary_capture=SecondaryCaptureSettings(**pictures_of))
    for number, expected in ((1, first), (2, second)):
        analysis = analysis_of(phantoms.cr(rows=64, columns=64, InstanceNumber=number))
        assert [p.InstanceNumber for p in pictures(analysis, settings, made_at)] == expected


@pytest.mark.filterwarnings("ignore:Invalid value for VR IS:UserWarning")  # planted on purpose
@pytest.mark.parametrize(
    ("number", "first"),
    [("+3", 9), ("007", 25), (10**6, 3999997), (None, 1), ("", 1), (0, 1), (-2, 1), (10**6 + 1, 1), (["2", "3"], 1)],
)
def test_a_source_without_a_usable_number_counts_as_the_first(analysis_of, made_at, number, first):
    analysis = analysis_of(phantoms.cr(rows=64, columns=64, InstanceNumber=number))
    assert [p.InstanceNumber for p in pictures(analysis, ResultSettings(), made_at)] == list(range(first, first + 4))


def test_pixels_are_plain_rgb_and_nothing_of_the_source_windows_them(analysis, made_at):
    for picture in pictures(analysis, ResultSettings(), made_at):
        assert picture.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert (picture.PhotometricInterpretation, picture.SamplesPerPixel, picture.PlanarConfiguration) == (
            "RGB",
            3,
            0,
        )
        assert (picture.BitsAllocated, picture.BitsStored, picture.HighBit, picture.PixelRepresentation) == (8, 8, 7, 0)
        assert picture["PixelData"].VR == "OB"
        assert len(picture.PixelData) == picture.Rows * picture.Columns * 3
        for keyword in ("WindowCenter", "RescaleSlope", "VOILUTSequence", "PresentationLUTShape", "PixelSpacing"):
            assert keyword not in picture


def test_pictures_refer_to_their_source(analysis, made_at):
    source = analysis.header.dataset
    for picture in pictures(analysis, ResultSettings(), made_at):
        (item,) = picture.SourceImageSequence
        assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert item.ReferencedSOPClassUID == source.SOPClassUID
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert picture.StudyInstanceUID == source.StudyInstanceUID
        assert picture.SeriesInstanceUID != source.SeriesInstanceUID
        assert list(picture.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert "AI result - not a diagnosis" in picture.ImageComments


@pytest.mark.parametrize(("shape", "expected"), [((640, 560), "YES"), ((2600, 2100), "NO"), ((300, 260), "NO")])
def test_locations_are_kept_where_the_radiograph_is_drawn_as_it_is(analysis_of, made_at, shape, expected):
    made = pictures(analysis_of(phantoms.cr(rows=shape[0], columns=shape[1])), ResultSettings(), made_at)
    assert made[0].SourceImageSequence[0].SpatialLocationsPreserved == "NO"
    for single in made[1:]:
        assert single.SourceImageSequence[0].SpatialLocationsPreserved == expected
        assert ("DerivationCodeSequence" in single) == (expected == "NO")


NO_SPACING = {"ImagerPixelSpacing": None}
TALL_PIXELS = {
    "detector": {"ImagerPixelSpacing": [0.8, 0.4]},
    "calibrated": {"ImagerPixelSpacing": [0.4, 0.4], "PixelSpacing": [0.6, 0.3]},
    "film": NO_SPACING | {"NominalScannedPixelSpacing": [0.2, 0.1]},
    "ratio only": NO_SPACING | {"PixelAspectRatio": [2, 1]},
    "spacing of zero": NO_SPACING | {"PixelSpacing": [0, 0], "PixelAspectRatio": [2, 1]},
    "spacing of no detector": {"ImagerPixelSpacing": [0.001, 1000], "PixelAspectRatio": [2, 1]},
}


@pytest.mark.parametrize("attributes", TALL_PIXELS.values(), ids=TALL_PIXELS)
def test_every_picture_has_square_pixels(analysis_of, made_at, attributes):
    """So it needs no Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7), whose absence would mean 1:1."""
    made = pictures(analysis_of(phantoms.cr(rows=300, columns=500, **attributes)), ResultSettings(), made_at)
    assert (made[1].Rows - captions.single_height(512), made[1].Columns) == (600, 512)
    for picture in made:
        assert "PixelAspectRatio" not in picture
        assert "PixelSpacing" not in picture
        assert picture.SourceImageSequence[0].SpatialLocationsPreserved == "NO"
        assert [code.CodeValue for code in picture.DerivationCodeSequence] == ["113085"]


@pytest.mark.parametrize(
    "attributes",
    [
        NO_SPACING,
        {"ImagerPixelSpacing": [0.143, 0.143]},
        {"ImagerPixelSpacing": [0.143, 0.1430001]},
        {"ImagerPixelSpacing": [0.143]},
        {"ImagerPixelSpacing": [0.001, 1000]},
        NO_SPACING | {"PixelAspectRatio": [1, 1]},
        NO_SPACING | {"PixelAspectRatio": [0, 1]},
        NO_SPACING | {"PixelAspectRatio": [1, 4000]},
        {"ImagerPixelSpacing": [0.8, 0.8], "PixelAspectRatio": [2, 1]},
    ],
)
def test_square_pixels_are_drawn_as_they_are(analysis_of, made_at, attributes):
    analysis = analysis_of(phantoms.cr(rows=560, columns=640, **attributes))
    _, *singles = pictures(analysis, ResultSettings(), made_at)
    values = analysis.image.display_values
    plain = singles[1].pixel_array[: values.shape[0], : values.shape[1]]
    assert np.array_equal(plain, np.repeat(values[:, :, None], 3, axis=2))
    for single in singles:
        assert single.SourceImageSequence[0].SpatialLocationsPreserved == "YES"
        assert "DerivationCodeSequence" not in single


def test_no_picture_shows_who_the_patient_is(analysis_of, made_at):
    def pixels(**identity):
        source = phantoms.cr(rows=560, columns=560, **identity)
        return [p.PixelData for p in pictures(analysis_of(source), ResultSettings(), made_at)]

    one = pixels(PatientName="First^Name", PatientID="1", PatientBirthDate="19500101", AccessionNumber="A1")
    other = pixels(PatientName="Other^Person", PatientID="2", PatientBirthDate="19990101", AccessionNumber="B2")
    assert one == other


@pytest.mark.parametrize("value", ["YES", "NO", None])
def test_burned_in_annotation_is_what_the_source_says(analysis_of, made_at, value):
    source = phantoms.cr(rows=64, columns=64, BurnedInAnnotation=value)
    for picture in pictures(analysis_of(source), ResultSettings(), made_at):
        assert picture.get("BurnedInAnnotation") == value


@pytest.mark.parametrize(
    ("source_says", "kept", "after_jpeg"),
    [
        ((None, None, None), (None, None, None), ("01", "ISO_10918_1", "one")),
        (("00", None, None), ("00", None, None), ("01", "ISO_10918_1", "one")),
        (("01", "ISO_10918_1", "7.5"), ("01", "ISO_10918_1", 7.5), ("01", ["ISO_10918_1"] * 2, "two")),
        (("01", "ISO_15444_1", None), ("01", "ISO_15444_1", None), ("01", ["ISO_15444_1", "ISO_10918_1"], None)),
        (("01", None, None), ("01", None, None), ("01", "ISO_10918_1", None)),
    ],
)
def test_once_lossy_always_lossy(analysis_of, made_at, source_says, kept, after_jpeg):
    """PS3.3 C.7.6.1.1.5: 01 is never reset, methods are appended, ratios only if every step's is known."""
    flag, method, ratio = source_says
    source = phantoms.cr(
        rows=64,
        columns=64,
        LossyImageCompression=flag,
        LossyImageCompressionMethod=method,
        LossyImageCompressionRatio=ratio,
    )
    analysis = analysis_of(source)
    for picture in pictures(analysis, ResultSettings(), made_at):
        lossy = [picture.get(f"LossyImageCompression{name}") for name in ("", "Method", "Ratio")]
        assert lossy == list(kept)
    for picture in pictures(analysis, JPEG, made_at):
        assert picture.LossyImageCompression == after_jpeg[0]
        assert picture.LossyImageCompressionMethod == after_jpeg[1]
        ratios = picture.get("LossyImageCompressionRatio")
        count = {"one": 1, "two": 2, None: 0}[after_jpeg[2]]
        assert (0 if ratios is None else np.size(ratios)) == count


@pytest.mark.parametrize("flag", [None, "00"])
def test_a_lossy_transfer_syntax_counts_also_without_a_flag(analysis_of, made_at, flag):
    source = phantoms.secondary_capture(rows=64, columns=64)
    compressed = encodings.encode(source, JPEGBaseline8Bit)
    for keyword in ("LossyImageCompression", "LossyImageCompressionMethod", "LossyImageCompressionRatio"):
        compressed.pop(keyword, None)
    if flag:
        compressed.LossyImageCompression = flag
    for picture in pictures(analysis_of(compressed), ResultSettings(), made_at):
        assert picture.LossyImageCompression == "01"
        assert picture.LossyImageCompressionMethod == "ISO_10918_1"


def test_jpeg_is_what_its_label_says(analysis, made_at):
    """YBR_FULL_422 means chroma sampled at half the columns (PS3.3 C.7.6.3.1.2), which many encoders get wrong."""
    plain = pictures(analysis, ResultSettings(), made_at)
    for picture, original in zip(pictures(analysis, JPEG, made_at), plain, strict=True):
        assert picture.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        assert picture.PhotometricInterpretation == "YBR_FULL_422"
        (frame,) = generate_frames(picture.PixelData, number_of_frames=1)
        assert frame[6:10] == b"JFIF"
        decoded = Image.open(BytesIO(frame))
        assert [(c[1], c[2]) for c in decoded.layer] == [(2, 1), (1, 1), (1, 1)]
        difference = np.abs(np.asarray(decoded).astype(int) - original.pixel_array)
        assert difference.mean() < 2
        assert np.abs(picture.pixel_array.astype(int) - original.pixel_array).mean() < 2
        ratio = original.Rows * original.Columns * 3 / len(frame)
        assert float(picture.LossyImageCompressionRatio) == pytest.approx(ratio, rel=0.01)
        assert len(picture.PixelData) < len(original.PixelData) / 4


def test_equipment_is_this_node_and_each_model_contributed(analysis_of, made_at):
    source = phantoms.cr(rows=64, columns=64, Manufacturer="Detector Maker", DeviceSerialNumber="123")
    settings = ResultSettings(institution_name="Example Hospital", device_serial_number="SN7")
    montage, *singles = pictures(analysis_of(source), settings, made_at)
    for picture in (montage, *singles):
        assert (picture.Manufacturer, picture.ManufacturerModelName) == ("scp-node", "scp-node")
        assert picture.DeviceSerialNumber == "SN7"
        assert picture.InstitutionName == "Example Hospital"
        assert picture.SecondaryCaptureDeviceManufacturer == "scp-node"
    items = montage.ContributingEquipmentSequence
    assert [item.ManufacturerModelName for item in items] == ["ResNet18", "EfficientNet-B0", "DenseNet121"]
    assert [item.SoftwareVersions for item in items] == ["1.0.0"] * 3
    assert len({item.DeviceUID for item in items}) == 3
    assert {item.PurposeOfReferenceCodeSequence[0].CodeValue for item in items} == {"109102"}
    for single, item in zip(singles, items, strict=True):
        assert [one.DeviceUID for one in single.ContributingEquipmentSequence] == [item.DeviceUID]


@pytest.mark.parametrize(("modality", "expected"), [("OT", "OT"), ("source", "CR")])
def test_modality_is_configurable(analysis, made_at, modality, expected):
    settings = ResultSettings(secondary_capture=SecondaryCaptureSettings(modality=modality))
    assert {p.Modality for p in pictures(analysis, settings, made_at)} == {expected}


@pytest.mark.parametrize("value", ["L\\F", "", None])
def test_patient_orientation_is_the_sources_or_empty(analysis_of, made_at, value):
    source = phantoms.cr(rows=64, columns=64, PatientOrientation=value.split("\\") if value else value)
    for picture in pictures(analysis_of(source), ResultSettings(), made_at):
        assert picture.PatientOrientation == (["L", "F"] if value else None) or not value
        assert "PatientOrientation" in picture


def test_the_purpose_of_a_model_can_be_another_code(analysis, made_at):
    settings = ResultSettings(contributing_equipment_purpose="Newcode1,99IHE,Processing Algorithm")
    item = pictures(analysis, settings, made_at)[0].ContributingEquipmentSequence[0]
    code = item.PurposeOfReferenceCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == (
        "Newcode1",
        "99IHE",
        "Processing Algorithm",
    )
