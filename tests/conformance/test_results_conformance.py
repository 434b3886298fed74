"""Every kind of result of every kind of source, in front of validators that had no part in making it."""

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from config.results import ResultSettings
from inference.records import (
    Analysis,
    ChestImage,
    FileFormat,
    Prediction,
    RenderRule,
    SourceHeader,
    Window,
    WindowSource,
)
from scp_node.demo import phantoms, sources
from scp_node.results.catalog import build_results

pytestmark = pytest.mark.conformance

TOLERATED = (
    # dicom3tools of 2022 is older than Device UID in Contributing Equipment.
    r"Warning - Attribute is not present in standard DICOM IOD - \(0x0018,0x1002\) UI Device UID$",
    r"Warning - Dicom dataset contains attributes not present in standard DICOM IOD - "
    r"this is a Standard Extended SOP Class$",
    # The source's own gaps and names, which a result must repeat.
    r"Warning - Missing attribute or value that would be needed to build DICOMDIR - "
    r"(Patient ID|Study Date|Study Time|Study ID)$",
    r"Warning - Value dubious for this VR - \(0x[0-9a-f]{4},0x[0-9a-f]{4}\) PN .*Retired Person Name form",
)
INFORMATION_ENTITY = (
    r"Warning - Different information entities for attribute - Element=<\w+> IE <\w+> versus <\w+> for file"
)
"""dcentvfy knows some Study attributes as Series attributes of image IODs and says so of every pair of files."""

VARIANTS = {
    "default": {},
    "jpeg": {"secondary_capture": {"transfer_syntax": "jpeg"}},
    "utf8": {"charset": "utf8"},
    "other codes": {
        "contributing_equipment_purpose": "Newcode1,99IHE,Processing Algorithm",
        "institution_name": "Example Hospital",
        "secondary_capture": {"modality": "source", "singles": False},
        "report": {"title_code": "112000,DCM,Chest CAD Report", "threshold": False},
    },
    "no pictures": {"secondary_capture": {"montage": False, "singles": False}},
}


def tool(name: str) -> str:
    """Path of a tool; without it the test is skipped, but never in CI."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed (packages dicom3tools and dcmtk)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return path


def said_by(name: str, *arguments: str | Path) -> tuple[int, str]:
    """Exit code and all output of a tool."""
    done = subprocess.run(
        [tool(name), *map(str, arguments)], capture_output=True, check=False, timeout=120, encoding="latin-1"
    )
    return done.returncode, done.stdout + done.stderr


def complaints(file: Path) -> list[str]:
    """What dciodvfy finds wrong with an object, beside what is known and explained above."""
    _, output = said_by("dciodvfy", file)
    lines = [line.strip() for line in output.splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not any(re.match(pattern, line) for pattern in TOLERATED)]


def prediction(model: str, *, probability: float, has_evidence: bool, site: bool = False) -> Prediction:
    saliency = np.zeros((7, 7), np.float32)
    if has_evidence:
        saliency[3:5, 1:3] = 1
    return Prediction(
        model=model,
        title=model.title(),
        version="1.0.0",
        weights_sha256=(model.encode().hex() * 9)[:64],
        target_layer="features",
        preprocessing="auto;224x224;mean=0.5;std=0.25",
        calibration="platt;slope=1.0;intercept=0.0",
        probability=probability,
        threshold=0.25,
        saliency=saliency,
        is_threshold_overridden=site,
    )


def analysis_of(file: Path) -> Analysis:
    """One positive model, one negative without evidence, one exactly at the site's threshold; and a note."""
    dataset = dcmread(file, stop_before_pixels=True)
    header = SourceHeader(name=str(dataset.SOPInstanceUID), file=file, file_format=FileFormat.DICOM, dataset=dataset)
    image = ChestImage(
        display_values=phantoms.chest_array(dataset.Rows, dataset.Columns, bits=8).astype(np.uint8),
        rule=RenderRule.AUTO,
        window=Window(source=WindowSource.PERCENTILES, center=1234.5678, width=2345.6789, function="LINEAR"),
        is_inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        notes=("View Position (0018,5101) is absent.",),
    )
    predictions = (
        prediction("resnet18", probability=1 / 3, has_evidence=True),
        prediction("efficientnet_b0", probability=1e-9, has_evidence=False),
        prediction("densenet121", probability=0.25, has_evidence=True, site=True),
    )
    return Analysis(header=header, image=image, predictions=predictions, duration_s=1.0)


def written(folder: Path, source: Path, variant: str = "default") -> list[Path]:
    """Build the results of a source and write each into a file of its own."""
    settings = ResultSettings.model_validate(VARIANTS[variant])
    files = []
    for number, result in enumerate(
        build_results(analysis_of(source), settings, made_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    ):
        file = folder / f"{number}-{result.kind.value}-{result.rank}.dcm"
        file.write_bytes(result.encode())
        files.append(file)
    return files


@pytest.fixture(scope="module", params=[*sources.SOURCES, "RG1_UNCR"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A source, and its results, as files."""
    folder = tmp_path_factory.mktemp(request.param)
    source = folder / "source.dcm"
    if request.param in sources.SOURCES:
        sources.SOURCES[request.param]().save_as(source, enforce_file_format=True)
    else:
        shutil.copyfile(str(get_testdata_file("RG1_UNCR.dcm")), source)
    return source, written(folder, source)


def test_every_object_is_a_valid_iod(case: tuple[Path, list[Path]]) -> None:
    """dciodvfy: no error, and no warning but those explained above."""
    _, files = case
    assert len(files) == 8
    assert {file.name: complaints(file) for file in files if complaints(file)} == {}


def test_dcmtk_reads_every_object(case: tuple[Path, list[Path]]) -> None:
    for file in case[1]:
        code, output = said_by("dcmdump", "-q", file)
        assert code == 0, output
        assert "(7fe0,0010)" in output or "(0040,a730)" in output


def test_dcmtk_reads_every_report(case: tuple[Path, list[Path]]) -> None:
    """DCMTK parses the whole tree, and refuses relationships that the SOP class does not allow."""
    reports = [file for file in case[1] if "report" in file.name or "summary" in file.name]
    assert len(reports) == 4
    for file in reports:
        code, output = said_by("dsrdump", "-q", "+Pl", file)
        assert code == 0, output
        assert "AI result - not a diagnosis" in output
        assert "has concept mod CODE" in output


def test_results_of_one_source_agree_about_patient_and_study(case: tuple[Path, list[Path]]) -> None:
    _, output = said_by("dcentvfy", *case[1])
    lines = [line for line in output.splitlines() if line.strip() and not re.match(INFORMATION_ENTITY, line)]
    assert lines == []


def test_results_and_source_differ_only_in_what_was_left_out(case: tuple[Path, list[Path]]) -> None:
    source, files = case
    _, output = said_by("dcentvfy", source, *files)
    lines = [line for line in output.splitlines() if line.strip() and not re.match(INFORMATION_ENTITY, line)]
    header = dcmread(source, stop_before_pixels=True)
    for line in lines:
        match = re.match(r"Warning - Attribute present in one instance but not the other - Element=<(\w+)>", line)
        assert match, line
        # What identifies is always there; it may only be absent in the source, where the result has it empty.
        if match[1] in ("PatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDate"):
            assert match[1] not in header, line


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant != "default"])
@pytest.mark.parametrize("name", ["rsna", "cr_ko", "cr_bare"])
def test_every_setting_makes_valid_objects(tmp_path: Path, name: str, variant: str) -> None:
    source = tmp_path / "source.dcm"
    sources.SOURCES[name]().save_as(source, enforce_file_format=True)
    for file in written(tmp_path, source, variant):
        assert complaints(file) == [], file.name
        if "report" in file.name or "summary" in file.name:
            assert said_by("dsrdump", "-q", file)[0] == 0


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImagerPixelSpacing": [0.8, 0.4]},
        {"ImagerPixelSpacing": None, "PixelAspectRatio": [2, 1]},
        {"ImagerPixelSpacing": None, "PixelAspectRatio": [4, 5]},
    ],
    ids=["spacing", "ratio", "wide"],
)
def test_pixels_that_are_not_square_make_valid_objects(tmp_path: Path, attributes: dict[str, object]) -> None:
    """Pixel Aspect Ratio is Type 1C and absent where it is 1:1 (PS3.3 C.7.6.3.1.7), as it is in each result."""
    source = tmp_path / "source.dcm"
    phantoms.cr(rows=300, columns=500, InstanceNumber=2, **attributes).save_as(source, enforce_file_format=True)
    for file in written(tmp_path, source):
        assert complaints(file) == [], file.name
        assert said_by("dcmdump", "-q", "+P", "0028,0034", file) == (0, "")
        place = int(file.name[0])
        expected = 5 + place if place < 4 else 2
        assert f"[{expected}]" in said_by("dcmdump", "-q", "+P", "0020,0013", file)[1].replace(" ", "")


def test_dcmtk_reads_numbers_that_agree_with_the_verdict(tmp_path: Path) -> None:
    """The next float below the threshold: as many digits as a Decimal String can hold (PS3.5 6.2)."""
    source = tmp_path / "source.dcm"
    phantoms.cr(rows=64, columns=64).save_as(source, enforce_file_format=True)
    close = prediction("resnet18", probability=float(np.nextafter(0.25, 0)), has_evidence=True)
    analysis = dataclasses.replace(analysis_of(source), predictions=(close,))
    results = build_results(analysis, ResultSettings(), made_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    file = tmp_path / "report.dcm"
    file.write_bytes(next(one for one in results if "report" in one.kind.value).encode())
    assert complaints(file) == []
    _, output = said_by("dsrdump", "-q", file)
    assert '"24.9999999999999" (%' in output
    assert '"25" (%' in output


def test_dcmtk_decodes_the_jpeg_variant_to_nearly_the_same_picture(tmp_path: Path) -> None:
    source, plain, jpeg = tmp_path / "source.dcm", tmp_path / "plain", tmp_path / "jpeg"
    sources.SOURCES["dx"]().save_as(source, enforce_file_format=True)
    for folder in (plain, jpeg):
        folder.mkdir()
    originals = written(plain, source)[:4]
    for original, compressed in zip(originals, written(jpeg, source, "jpeg")[:4], strict=True):
        decoded = tmp_path / "decoded.dcm"
        code, output = said_by("dcmdjpeg", compressed, decoded)
        assert code == 0, output
        difference = np.abs(dcmread(decoded).pixel_array.astype(int) - dcmread(original).pixel_array)
        assert difference.mean() < 2


FAULTS = {
    "a Type 1 attribute is missing": ("0-montage-0.dcm", "ConversionType", None),
    "an invalid age is copied": ("1-single-0.dcm", "PatientAge", "62"),
    "no body part and no laterality": ("0-montage-0.dcm", "BodyPartExamined", None),
    "the report does not say whether it is complete": ("4-measurement_report-0.dcm", "CompletionFlag", None),
    "the evidence is not listed": ("7-text_summary-0.dcm", "CurrentRequestedProcedureEvidenceSequence", None),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")  # planted on purpose
@pytest.mark.parametrize(("file_name", "keyword", "value"), FAULTS.values(), ids=FAULTS)
def test_the_gate_bites(tmp_path: Path, file_name: str, keyword: str, value: str | None) -> None:
    """A planted fault is found in an object that had none."""
    source = tmp_path / "source.dcm"
    phantoms.cr(rows=64, columns=64).save_as(source, enforce_file_format=True)
    (file,) = [file for file in written(tmp_path, source) if file.name == file_name]
    assert complaints(file) == []
    dataset = dcmread(file)
    if value is None:
        del dataset[keyword]
    else:
        dataset[keyword] = dataset.data_element("PatientID").__class__(keyword, "AS", value)
    dataset.save_as(file)
    assert [line for line in complaints(file) if line.startswith("Error")]


def test_the_gate_for_reports_bites(tmp_path: Path) -> None:
    """DCMTK refuses a relationship that the SOP class does not allow, and dcentvfy another patient."""
    source = tmp_path / "source.dcm"
    phantoms.cr(rows=64, columns=64).save_as(source, enforce_file_format=True)
    files: Sequence[Path] = written(tmp_path, source)
    report = dcmread(files[4])
    report.ContentSequence[-1].RelationshipType = "HAS PROPERTIES"
    report.save_as(files[4])
    assert said_by("dsrdump", "-q", files[4])[0] != 0

    summary = dcmread(files[7])
    summary.PatientID = "SOMEBODY ELSE"
    summary.save_as(files[7])
    _, output = said_by("dcentvfy", *files)
    assert "PatientID" in output
