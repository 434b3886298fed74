"""What the reports say, item by item; read with libraries that did not write them."""

import dataclasses
from io import BytesIO

import highdicom.sr
import pytest
from pydicom import dcmread
from pydicom.sr._concepts_dict import concepts as known_concepts
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    UID_dictionary,
)

from config.results import ReportSettings, ResultSettings, SecondaryCaptureSettings
from scp_node.demo import phantoms, sources
from scp_node.records import ResultKind
from scp_node.results import codes
from scp_node.results.catalog import build_results

SMALL = ResultSettings(secondary_capture=SecondaryCaptureSettings(panel_size=256, maximum_size=256))
NO_PICTURES = SecondaryCaptureSettings(montage=False, singles=False)


def reports(analysis, settings, made_at, kind):
    results = build_results(analysis, settings, made_at=made_at)
    return [dcmread(BytesIO(r.encode())) for r in results if r.kind is kind]


def measurement_report(analysis, made_at, settings=None):
    return reports(analysis, settings or SMALL, made_at, ResultKind.MEASUREMENT_REPORT)[0]


def text_summary(analysis, made_at, settings=None):
    return reports(analysis, settings or SMALL, made_at, ResultKind.TEXT_SUMMARY)[0]


def name(item):
    return item.ConceptNameCodeSequence[0].CodeMeaning


def children(item, meaning):
    return [child for child in item.get("ContentSequence", []) if name(child) == meaning]


def walk(item):
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def groups(report):
    return children(children(report, "Imaging Measurements")[0], "Measurement Group")


@pytest.fixture(params=[ResultKind.MEASUREMENT_REPORT, ResultKind.TEXT_SUMMARY])
def report(request, analysis, made_at):
    return reports(analysis, SMALL, made_at, request.param)[0]


def test_every_item_has_a_name_and_every_container_is_separate(report):
    """OHIF crashes on a nameless item, and runs values together in a continuous container."""
    for item in walk(report):
        assert len(item.ConceptNameCodeSequence) == 1
        if item.ValueType == "CONTAINER":
            assert item.ContinuityOfContent == "SEPARATE"


def test_nobody_has_verified_it(report):
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert "VerifyingObserverSequence" not in report
    assert children(report, "Observer Type")[0].ConceptCodeSequence[0].CodeMeaning == "Device"
    assert len(report.PerformedProcedureCodeSequence) == len(report.ReferencedPerformedProcedureStepSequence) == 0


def test_evidence_lists_exactly_what_the_tree_refers_to(report, analysis):
    referred = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in walk(report) if item.ValueType == "IMAGE"
    }
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    listed = {
        sop.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }
    assert study.StudyInstanceUID == report.StudyInstanceUID
    assert analysis.header.dataset.SOPInstanceUID in referred
    assert referred <= listed


def test_positive_and_negative_models(analysis, made_at):
    positive, negative, site = groups(measurement_report(analysis, made_at))
    assert children(positive, "Finding")[0].ConceptCodeSequence[0].CodeValue == "233604007"
    assert children(positive, "Pneumonia")[0].ConceptCodeSequence[0].CodeMeaning == "Present"
    # A list of findings must not show pneumonia for a negative.
    assert not children(negative, "Finding")
    assert children(negative, "Pneumonia")[0].ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert children(site, "Pneumonia")[0].ConceptCodeSequence[0].CodeMeaning == "Present"


def test_numbers(analysis, made_at):
    def value(group, meaning):
        measured = children(group, meaning)[0].MeasuredValueSequence[0]
        assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "%"
        assert len(str(measured.NumericValue)) <= 16
        return str(measured.NumericValue)

    made = groups(measurement_report(analysis, made_at))
    assert [value(group, "Probability") for group in made] == ["87.3421", "4.32", "31"]
    assert [value(group, "Threshold Value") for group in made] == ["25", "15", "18"]
    without = SMALL.model_copy(update={"report": ReportSettings(threshold=False)})
    assert not children(groups(measurement_report(analysis, made_at, without))[0], "Threshold Value")


@pytest.mark.parametrize(
    ("probability", "threshold", "expected"),
    [
        (0.2499999, 0.25, ("24.99999", "25")),
        (0.24999999999, 0.25, ("24.999999999", "25")),
        (0.2500002, 0.2500004, ("25.00002", "25.00004")),
        (0.25, 0.25, ("25", "25")),
    ],
)
def test_numbers_do_not_contradict_the_verdict(analysis, made_at, probability, threshold, expected):
    """A reader that compares the numbers finds what the report says of them."""
    close = dataclasses.replace(analysis.predictions[0], probability=probability, threshold=threshold)
    report = measurement_report(dataclasses.replace(analysis, predictions=(close,)), made_at)
    (group,) = groups(report)
    shown = tuple(
        str(children(group, meaning)[0].MeasuredValueSequence[0].NumericValue)
        for meaning in ("Probability", "Threshold Value")
    )
    assert shown == expected
    said = children(group, "Pneumonia")[0].ConceptCodeSequence[0].CodeMeaning
    assert said == ("Present" if float(shown[0]) >= float(shown[1]) else "Absent")
    assert f"threshold={threshold}" in [item.TextValue for item in children(group, "Algorithm Parameters")]


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (2, 2), (None, 1), ("", 1), (0, 1), (10**6 + 1, 1)])
def test_reports_are_numbered_as_their_sources_are(analysis_of, made_at, number, expected):
    """Reports of two radiographs of one series share a series too."""
    analysis = analysis_of(phantoms.cr(rows=64, columns=64, InstanceNumber=number))
    for kind in (ResultKind.MEASUREMENT_REPORT, ResultKind.TEXT_SUMMARY):
        assert {report.InstanceNumber for report in reports(analysis, SMALL, made_at, kind)} == {expected}


def test_a_result_can_be_repeated_from_its_report(analysis, made_at):
    """TID 4019: weights, layer, preprocessing, rendering, threshold, and whose threshold it is, calibration."""
    first, _, site = groups(measurement_report(analysis, made_at))
    assert [item.TextValue for item in children(first, "Algorithm Name")] == ["ResNet18"]
    assert [item.TextValue for item in children(first, "Algorithm Version")] == ["1.0.0"]
    parameters = [item.TextValue for item in children(first, "Algorithm Parameters")]
    assert parameters == [
        "threshold=0.25",
        "threshold_source=weights",
        "target_layer=layer4",
        "preprocessing=auto;224x224;mean=0.5;std=0.25",
        "calibration=platt;slope=1.0;intercept=-1.5",
        "rendering=rule=auto; window=window_attributes 2048/4096 LINEAR",
        f"weights_sha256={'a' * 64}",
        "explanation=Gradient-weighted class activation",
    ]
    assert "threshold_source=site" in [item.TextValue for item in children(site, "Algorithm Parameters")]


def test_each_group_shows_its_own_picture(analysis, made_at):
    results = build_results(analysis, SMALL, made_at=made_at)
    singles = {r.model: r.sop_instance_uid for r in results if r.kind is ResultKind.SINGLE}
    for group, prediction in zip(groups(measurement_report(analysis, made_at)), analysis.predictions, strict=True):
        (illustration,) = children(group, "Illustration of ROI")
        assert illustration.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == singles[prediction.model]
        (source,) = children(group, "Source of Measurement")
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == analysis.header.dataset.SOPInstanceUID


def test_without_singles_the_montage_illustrates_and_without_pictures_nothing_does(analysis, made_at):
    montage_only = ResultSettings(secondary_capture=SecondaryCaptureSettings(singles=False))
    report = measurement_report(analysis, made_at, montage_only)
    assert len(children(groups(report)[1], "Illustration of ROI")) == 1
    nothing = measurement_report(analysis, made_at, ResultSettings(secondary_capture=NO_PICTURES))
    assert not children(groups(nothing)[0], "Illustration of ROI")
    (study,) = nothing.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence) == 1


def test_words_say_the_same_in_both_reports(analysis, made_at):
    evaluations = children(measurement_report(analysis, made_at), "Qualitative Evaluations")[0]
    findings = children(text_summary(analysis, made_at), "Findings")[0]
    said = [item.TextValue for item in children(evaluations, "Summary")]
    assert said == [item.TextValue for item in children(findings, "Finding")]
    assert said[0].startswith("AI result - not a diagnosis. Research use only - not for diagnostic use.")
    assert "2 of 3 models at or above threshold" in said[0]
    assert len(said) == 4


def test_notes_of_the_input_are_passed_on(analysis, made_at):
    image = dataclasses.replace(analysis.image, notes=("View Position (0018,5101) is absent.", "Überbelichtet"))
    noted = dataclasses.replace(analysis, image=image)
    evaluations = children(measurement_report(noted, made_at), "Qualitative Evaluations")[0]
    findings = children(text_summary(noted, made_at), "Findings")[0]
    for container in (evaluations, findings):
        comments = [item.TextValue for item in children(container, "Comment")]
        assert comments == ["View Position (0018,5101) is absent.", "?berbelichtet"]


def test_the_alternatives_hold_the_same_tree_best_first(analysis, made_at):
    results = [r for r in build_results(analysis, SMALL, made_at=made_at) if r.kind is ResultKind.MEASUREMENT_REPORT]
    assert [r.rank for r in results] == [0, 1, 2]
    assert {r.group for r in results} == {"measurement_report"}
    assert [r.sop_class_uid for r in results] == [Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage]
    trees = [dcmread(BytesIO(r.encode())).ContentSequence for r in results]
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize(
    ("setting", "sop_class_uid"),
    [
        ("comprehensive_3d", Comprehensive3DSRStorage),
        ("comprehensive", ComprehensiveSRStorage),
        ("enhanced", EnhancedSRStorage),
    ],
)
def test_a_fixed_class_makes_one_report(analysis, made_at, setting, sop_class_uid):
    settings = SMALL.model_copy(update={"report": ReportSettings(sop_class=setting)})
    made = reports(analysis, settings, made_at, ResultKind.MEASUREMENT_REPORT)
    assert [report.SOPClassUID for report in made] == [sop_class_uid]


def test_the_image_library_describes_the_source(analysis_of, made_at):
    source = phantoms.cr(ImagerPixelSpacing=[0.2, 0.15], ViewPosition="AP", PatientOrientation=["L", "F"])
    library = children(measurement_report(analysis_of(source), made_at), "Image Library")[0]
    (entry,) = children(children(library, "Image Library Group")[0], "Source")
    assert children(entry, "Modality")[0].ConceptCodeSequence[0].CodeValue == "CR"
    assert children(entry, "Image View")[0].ConceptCodeSequence[0].CodeMeaning == "antero-posterior"
    numbers = {
        name(i): float(i.MeasuredValueSequence[0].NumericValue) for i in entry.ContentSequence if "Spacing" in name(i)
    }
    assert numbers == {"Horizontal Pixel Spacing": 0.15, "Vertical Pixel Spacing": 0.2}
    texts = {name(i): i.TextValue for i in entry.ContentSequence if i.ValueType == "TEXT"}
    assert texts == {"Patient Orientation Row": "L", "Patient Orientation Column": "F"}


def test_a_source_that_says_nothing_of_itself_is_described_by_its_size(analysis_of, made_at):
    library = children(measurement_report(analysis_of(sources.SOURCES["cr_bare"]()), made_at), "Image Library")[0]
    (entry,) = children(children(library, "Image Library Group")[0], "Source")
    names = {name(item) for item in entry.ContentSequence}
    assert {"Modality", "Target Region", "Pixel Data Rows", "Pixel Data Columns"} <= names
    assert not names & {"Study Date", "Study Time", "Patient Orientation Row"}


def test_the_sources_own_procedure_comes_first(analysis_of, made_at):
    source = phantoms.cr()
    source.ProcedureCodeSequence = phantoms.code("RXTHORAX", "99LOCAL", "Thorax p.a.")
    report = measurement_report(analysis_of(source), made_at)
    values = [item.ConceptCodeSequence[0].CodeValue for item in children(report, "Procedure reported")]
    assert values == ["RXTHORAX", "399208008"]


def test_titles(analysis, made_at):
    assert name(measurement_report(analysis, made_at)) == "Imaging Measurement Report"
    readable = SMALL.model_copy(update={"report": ReportSettings(title_code="112000,DCM,Chest CAD Report")})
    assert name(measurement_report(analysis, made_at, readable)) == "Chest CAD Report"
    summary = text_summary(analysis, made_at)
    assert summary.SOPClassUID == BasicTextSRStorage
    assert name(summary) == "Chest CAD Report"
    assert not [item for item in walk(summary) if item.ValueType == "NUM"]


def test_no_report_says_more_than_was_measured(analysis, made_at):
    for report in (measurement_report(analysis, made_at), text_summary(analysis, made_at)):
        for item in walk(report):
            words = item.get("TextValue", "").lower()
            for text in ("not a diagnosis", "not for diagnostic use"):
                words = words.replace(text, "")
            for claim in ("diagnos", "no pneumonia", "normal", "confirmed", "detected", "ruled out"):
                assert claim not in words


@pytest.mark.parametrize("source", ["cr", "rsna", "cr_ko", "cr_bare"])
def test_highdicom_reads_the_measurements(analysis_of, made_at, source):
    """A reader that knows TID 1500 and had no part in writing it."""
    report = measurement_report(analysis_of(sources.SOURCES[source]()), made_at)
    read = highdicom.sr.Comprehensive3DSR.from_dataset(report)
    measurements = read.content.get_image_measurement_groups()
    assert len(measurements) == 3
    probability = [group.get_measurements()[0] for group in measurements]
    assert [item.value for item in probability] == [87.3421, 4.32, 31.0]
    assert [group.finding_type is not None for group in measurements] == [True, False, True]
    said = [item for group in measurements for item in group.get_qualitative_evaluations()]
    assert [item.value.meaning for item in said if item.name.meaning == "Pneumonia"] == ["Present", "Absent", "Present"]


def test_codes_mean_what_the_standard_says():
    """DCM codes against pydicom's copy of PS3.16 Annex D."""
    meanings: dict[str, set[str]] = {}
    for values in known_concepts["DCM"].values():
        for value, (meaning, _) in values.items():
            meanings.setdefault(value, set()).add(meaning)
    ours = [value for value in vars(codes).values() if isinstance(value, codes.Concept)]
    ours += [*codes.MODALITIES.values(), *codes.VIEWS.values()]
    dicom = [concept for concept in ours if concept.scheme == "DCM"]
    assert len(dicom) > 40
    for concept in dicom:
        assert concept.meaning in meanings[concept.value]
    for concept in ours:
        assert len(concept.value) <= 16
        assert len(concept.meaning) <= 64
        assert concept.meaning.isascii()


def test_sop_classes_are_what_their_names_say(analysis, made_at):
    for result in build_results(analysis, SMALL, made_at=made_at):
        assert UID_dictionary[result.sop_class_uid][1] == "SOP Class"
