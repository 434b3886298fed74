"""Only frontal chest radiographs for viewing are judged; every refusal is coded, explained and can be switched off."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit

from config.analysis import EligibilitySettings
from inference.imaging.eligibility import check, check_quality, notes
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.records import ChestImage, FileFormat, Reason, RenderRule, SourceHeader, Window, WindowSource
from scp_node.demo import encodings, phantoms, sources

# the values that tests plant are no legal code strings
pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR CS")

DEFAULT = EligibilitySettings()
CT, MG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2"
MULTI_FRAME = [f"1.2.840.10008.5.1.4.1.1.7.{number}" for number in (2, 3, 4)]
BARE_VIEW = {"ViewPosition": None, "PatientOrientation": None}


def header(dataset, *, has_pixel_data=True):
    return SourceHeader(
        name="x", file=Path("x"), file_format=FileFormat.DICOM, dataset=dataset, has_pixel_data=has_pixel_data
    )


def small(build=phantoms.cr, **attributes):
    return header(build(rows=64, columns=64, **attributes))


def reason(subject, settings=DEFAULT):
    result = check(subject, settings)
    return result and result.reason


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_J2KR.dcm", "RG1_J2KI.dcm"])
def test_real_chest_radiographs_are_judged(name):
    subject = read_header(Path(get_testdata_file(name)))
    assert check(subject, DEFAULT) is None
    assert notes(subject, DEFAULT) == ()
    assert check_quality(render(read_pixels(subject), RenderRule.AUTO)) is None


@pytest.mark.parametrize("name", ["RG3_UNCR.dcm", "RG3_J2KR.dcm", "RG3_J2KI.dcm"])
def test_a_real_lower_leg_is_not_judged(name):
    result = check(read_header(Path(get_testdata_file(name))), DEFAULT)
    assert result.reason is Reason.NOT_CHEST
    assert result.detail == "Body Part Examined (0018,0015) is 'EXTREMITY'"


@pytest.mark.parametrize("name", sources.SOURCES)
def test_all_sources_are_judged(name, store):
    subject = read_header(store(sources.SOURCES[name]()))
    assert check(subject, DEFAULT) is None
    assert check_quality(render(read_pixels(subject), RenderRule.AUTO)) is None
    assert bool(notes(subject, DEFAULT)) == (name == "cr_bare")


@pytest.mark.parametrize(
    ("sop_class_uid", "modality", "judged"),
    [
        (None, "CR", True),
        (None, "DX", True),
        (None, "", True),
        (None, "OT", False),
        (CT, "CT", False),
        (MG, "MG", False),
        ("1.2.840.10008.5.1.4.1.1.7", "CR", True),
        ("1.2.840.10008.5.1.4.1.1.7", "RG", True),
        ("1.2.840.10008.5.1.4.1.1.7", "OT", False),
        ("1.2.840.10008.5.1.4.1.1.7", "", False),
        *((uid, "DX", True) for uid in MULTI_FRAME),
        ("1.2.840.10008.5.1.4.1.1.88.33", "SR", False),
    ],
)
def test_class_and_modality(sop_class_uid, modality, judged):
    attributes = {"Modality": modality} | ({"SOPClassUID": sop_class_uid} if sop_class_uid else {})
    assert reason(small(**attributes)) == (None if judged else Reason.UNSUPPORTED_CLASS)


def test_raw_detector_data_are_refused_unless_allowed():
    allowed = EligibilitySettings(refuse_for_processing=False)
    subject = small(phantoms.dx_for_processing)
    assert reason(subject) is Reason.FOR_PROCESSING
    assert reason(small(PresentationIntentType="FOR PROCESSING")) is Reason.FOR_PROCESSING
    assert check(subject, allowed) is None
    assert any("FOR PROCESSING" in note for note in notes(subject, allowed))


def test_no_pixels():
    assert reason(header(phantoms.cr(rows=64, columns=64), has_pixel_data=False)) is Reason.NO_PIXELS


@pytest.mark.parametrize(
    "attributes",
    [
        {"NumberOfFrames": 2},
        {"PhotometricInterpretation": "PALETTE COLOR"},
        {"SamplesPerPixel": 4},
        {"BitsAllocated": 1},
        {"BitsAllocated": 32},
    ],
)
def test_unsupported_pixels(attributes):
    assert reason(small(**attributes)) is Reason.UNSUPPORTED_PIXELS


@pytest.mark.parametrize("frames", ["", 0, 1])
def test_one_frame_of_a_multi_frame_class_is_judged(frames):
    subject = small(phantoms.secondary_capture, SOPClassUID=MULTI_FRAME[0])
    subject.dataset.NumberOfFrames = frames
    assert check(subject, DEFAULT) is None


@pytest.mark.parametrize("body_part", ["CHEST", "chest ", "THORAX", "LUNG", "CHESTABDOMEN", "HEMITHORAX", "CHEST PA"])
def test_chests(body_part):
    assert check(small(BodyPartExamined=body_part), DEFAULT) is None
    assert notes(small(BodyPartExamined=body_part), DEFAULT) == ()


@pytest.mark.parametrize(
    "body_part",
    [
        "HAND",
        "SKULL",
        "ABDOMEN",
        "TSPINE",
        "THORACICSPINE",
        "L SPINE",
        "KNEE LEFT",
        "RIBS",
        "EXTREMITY",
        "PELVIS",
        "foot",
    ],
)
def test_other_body_parts(body_part):
    subject = small(BodyPartExamined=body_part)
    assert reason(subject) is Reason.NOT_CHEST
    switched_off = EligibilitySettings(require_chest=False)
    assert check(subject, switched_off) is None
    assert any("because the configuration says so" in note for note in notes(subject, switched_off))


@pytest.mark.parametrize("body_part", ["", "OTHER", "XYZZY", "흉부"])
def test_an_unknown_body_part_is_judged_and_noted_unless_forbidden(body_part):
    subject = small(BodyPartExamined=body_part, SeriesDescription=None)
    assert check(subject, DEFAULT) is None
    assert notes(subject, DEFAULT) == ("no attribute names a known body part: accepted",)
    assert reason(subject, EligibilitySettings(accept_unknown_body_part=False)) is Reason.NOT_CHEST


@pytest.mark.parametrize(
    ("code", "judged"),
    [
        (("51185008", "SCT", "Chest"), True),
        (("816094009", "SCT", "Thorax"), True),
        (("T-D3000", "SRT", "Chest"), True),
        (("39607008", "SCT", "Lung"), True),
        (("56459004", "SCT", "Foot"), False),
        (("122495006", "SCT", "Thoracic spine"), False),
        (("113197003", "SCT", "Rib"), False),
    ],
)
def test_anatomic_region(code, judged):
    subject = small(phantoms.dx, BodyPartExamined="", AnatomicRegionSequence=phantoms.code(*code))
    assert reason(subject) == (None if judged else Reason.NOT_CHEST)


def test_attributes_that_contradict_each_other_are_refused():
    subject = small(phantoms.dx, AnatomicRegionSequence=phantoms.code("56459004", "SCT", "Foot"))
    assert check(subject, DEFAULT).detail == "Anatomic Region Sequence (0008,2218) is '56459004'"


@pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription"])
def test_free_text_decides_only_where_no_coded_attribute_does(keyword):
    assert reason(small(BodyPartExamined="", **{keyword: "[LOWER LEG   ]"})) is Reason.NOT_CHEST
    assert check(small(BodyPartExamined="CHEST", **{keyword: "Hand"}), DEFAULT) is None
    assert notes(small(BodyPartExamined="", **{keyword: "W Chest pa"}), DEFAULT) == ()
    assert check(small(BodyPartExamined="", **{keyword: "Chest and left hand"}), DEFAULT) is None


def test_free_text_is_not_quoted():
    detail = check(small(BodyPartExamined="", SeriesDescription="Hand of Mrs Smith"), DEFAULT).detail
    assert detail == "Series Description (0008,103E) names the body part"


@pytest.mark.parametrize("position", ["PA", "AP", "ap", "PA ERECT", "AP_SUPINE"])
def test_frontal_views(position):
    assert notes(small(ViewPosition=position), DEFAULT) == ()
    assert check(small(ViewPosition=position), DEFAULT) is None


@pytest.mark.parametrize("position", ["LL", "RL", "LATERAL", "LLD", "RLO", "PA OBLIQUE", "lat"])
def test_other_views(position):
    subject = small(ViewPosition=position, PatientOrientation=None)
    assert reason(subject) is Reason.LATERAL
    assert check(subject, EligibilitySettings(require_frontal=False)) is None


@pytest.mark.parametrize(
    ("code", "judged"),
    [
        (("272479007", "SCT", "postero-anterior"), True),
        (("399348003", "SCT", "antero-posterior"), True),
        (("R-10206", "SRT", "antero-posterior"), True),
        (("399173006", "SCT", "left lateral"), False),
        (("399132005", "SCT", "frontal-oblique axial"), False),
        (("R-10224", "SRT", "right posterior oblique"), False),
    ],
)
def test_view_code(code, judged):
    subject = small(phantoms.dx, ViewPosition="", PatientOrientation=None, ViewCodeSequence=phantoms.code(*code))
    assert reason(subject) == (None if judged else Reason.LATERAL)
    assert bool(notes(subject, DEFAULT)) == (not judged)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (["A", "F"], Reason.LATERAL),
        (["P", "FA"], Reason.LATERAL),
        (["L", "F"], None),
        (["LH", "FL"], None),
        (["R", "H"], Reason.NOT_UPRIGHT),
        (["L", "H"], Reason.NOT_UPRIGHT),
        (["F", "R"], Reason.NOT_UPRIGHT),
        (["H", "L"], Reason.NOT_UPRIGHT),
        (["L"], None),
        (["H", ""], None),
    ],
)
def test_patient_orientation(orientation, expected):
    subject = small(ViewPosition="PA", PatientOrientation=orientation)
    assert reason(subject) is expected
    assert bool(notes(subject, DEFAULT)) == (expected is not None)


def test_what_is_not_stored_upright_is_judged_where_that_is_configured():
    settings = EligibilitySettings(require_upright=False)
    subject = small(ViewPosition="PA", PatientOrientation=["R", "H"])
    assert check(subject, settings) is None
    [note] = notes(subject, settings)
    assert note == (
        "Patient Orientation (0020,0020) is 'R/H': not stored upright, judged because the configuration says so"
    )


def test_a_mirror_image_is_judged_and_noted():
    subject = small(ViewPosition="PA", PatientOrientation=["R", "F"])
    assert check(subject, DEFAULT) is None
    assert notes(subject, DEFAULT) == ("Patient Orientation (0020,0020) is 'R/F': stored as a mirror image",)


def test_an_unknown_view_is_judged_and_noted_unless_forbidden():
    subject = small(**BARE_VIEW)
    assert check(subject, DEFAULT) is None
    assert notes(subject, DEFAULT) == ("no attribute names a known view: accepted",)
    assert reason(subject, EligibilitySettings(accept_unknown_view=False)) is Reason.LATERAL


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Chest lateral", Reason.LATERAL), ("Chest PA and lateral", None), ("Chest bilateral", None), ("view: PA", None)],
)
def test_free_text_about_the_view(text, expected):
    assert reason(small(**BARE_VIEW, SeriesDescription=text)) is expected


def test_pictures_are_judged_and_noted_unless_forbidden():
    subject = SourceHeader(name="x", file=Path("x"), file_format=FileFormat.PNG, dataset=None)
    assert check(subject, DEFAULT) is None
    assert len(notes(subject, DEFAULT)) == 2
    assert reason(subject, EligibilitySettings(accept_unknown_body_part=False)) is Reason.NOT_CHEST
    assert reason(subject, EligibilitySettings(accept_unknown_view=False)) is Reason.LATERAL


def test_a_value_that_is_no_code_is_not_quoted():
    subject = header(Dataset())
    subject.dataset.SOPClassUID = phantoms.cr().SOPClassUID
    subject.dataset.Modality = "Müller^Anna\x1b[31m"
    result = check(subject, DEFAULT)
    assert result.reason is Reason.UNSUPPORTED_CLASS
    assert "LLER" not in result.detail
    assert "\x1b" not in result.detail


def chest_image(values):
    window = Window(source=WindowSource.FULL_RANGE, center=None, width=None, function="LINEAR")
    return ChestImage(
        display_values=np.asarray(values, np.uint8), rule=RenderRule.AUTO, window=window, is_inverted=False
    )


CHEST = phantoms.chest_array(512, 448, 8).astype(np.uint8)
RANDOM = np.random.default_rng(0)


def saturated():
    values = np.where(RANDOM.random((512, 448)) < 0.5, 0, 255)
    values[0, :200] = 100
    return values


def striped():
    values = CHEST.copy()
    values[300:] = 128
    return values


def repeated():
    values = CHEST.copy()
    values[400:] = values[400]
    return values


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.full((512, 448), 90), "constant"),
        (np.full((512, 448), 90) + RANDOM.integers(0, 2, (512, 448)), "constant"),
        (saturated(), "black or white"),
        (RANDOM.integers(0, 256, (512, 448)), "noise"),
        (RANDOM.integers(0, 256, (2048, 2048)), "noise"),
        (striped(), "one grey"),
        (repeated(), "repeat"),
        (CHEST[:20, :20], "too few"),
    ],
)
def test_poor_quality(values, named):
    result = check_quality(chest_image(values))
    assert result.reason is Reason.POOR_QUALITY
    assert named in result.detail


@pytest.mark.parametrize("edge", [0, 3, 251, 255])
def test_collimation_is_no_poor_quality(edge):
    values = CHEST.copy()
    values[:90] = values[430:] = edge
    values[:, :60] = edge
    assert check_quality(chest_image(values)) is None


def test_a_noisy_radiograph_is_no_poor_quality():
    noisy = np.clip(phantoms.chest_array(2048, 2048, 8) + RANDOM.normal(0, 25, (2048, 2048)), 0, 255)
    assert check_quality(chest_image(noisy)) is None


def test_what_decoders_make_of_a_truncated_jpeg_is_poor_quality():
    """The second line behind the checks of the stream: Pillow fills up with grey and says nothing."""
    dataset = encodings.encode(phantoms.secondary_capture(), JPEGBaseline8Bit)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    with Image.open(io.BytesIO(frame[: len(frame) // 2] + b"\xff\xd9")) as picture:
        result = check_quality(chest_image(np.asarray(picture)))
    assert result.reason is Reason.POOR_QUALITY
