"""What is built when, what cannot be built, and how the node knows its own results when they come back."""

import dataclasses
from datetime import datetime
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from config.results import ReportSettings, ResultSettings, SecondaryCaptureSettings
from scp_node.demo import phantoms, sources
from scp_node.errors import ResultError
from scp_node.jobs.together import Together
from scp_node.records import ResultKind
from scp_node.results import catalog
from scp_node.results.catalog import build_results
from scp_node.results.recognition import is_own_result

M, S, R, T = ResultKind.MONTAGE, ResultKind.SINGLE, ResultKind.MEASUREMENT_REPORT, ResultKind.TEXT_SUMMARY


@pytest.mark.parametrize(
    ("pictures", "report", "kinds"),
    [
        ({}, {}, [M, S, S, S, R, R, R, T]),
        ({"montage": False}, {}, [S, S, S, R, R, R, T]),
        ({"singles": False}, {"text_summary": False}, [M, R, R, R]),
        ({"montage": False, "singles": False}, {"sop_class": "enhanced"}, [R, T]),
        ({}, {"measurement_report": False}, [M, S, S, S, T]),
    ],
)
def test_settings_choose_the_objects(analysis, made_at, pictures, report, kinds):
    settings = ResultSettings(
        secondary_capture=SecondaryCaptureSettings(panel_size=256, maximum_size=256, **pictures),
        report=ReportSettings(**report),
    )
    assert [r.kind for r in build_results(analysis, settings, made_at=made_at)] == kinds


def test_objects_of_different_kinds_or_models_are_no_alternatives(analysis, made_at):
    results = build_results(analysis, ResultSettings(), made_at=made_at)
    groups = [r.group for r in results if r.rank == 0]
    assert len(set(groups)) == len(groups) == 6


def test_series_of_one_kind_each(analysis, made_at):
    """dcentvfy's rule, and every viewer's: no series mixes modalities."""
    results = build_results(analysis, ResultSettings(series_number_base=500), made_at=made_at)
    series = {(str(r.dataset.SeriesInstanceUID), r.dataset.Modality, int(r.dataset.SeriesNumber)) for r in results}
    assert sorted(one[1:] for one in series) == [("OT", 500), ("SR", 501), ("SR", 502)]
    assert not any("SeriesDate" in r.dataset or "SeriesTime" in r.dataset for r in results)


def test_png_has_no_study_to_put_results_in(analysis_of, made_at):
    with pytest.raises(ResultError, match="no DICOM object"):
        build_results(analysis_of(None), ResultSettings(), made_at=made_at)


def test_no_models_no_results(analysis, made_at):
    with pytest.raises(ResultError, match="no model"):
        build_results(dataclasses.replace(analysis, predictions=()), ResultSettings(), made_at=made_at)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_source_without_its_uids_is_refused_by_attribute(analysis_of, made_at, keyword, value):
    source = phantoms.cr(rows=64, columns=64, **{keyword: value})
    with pytest.raises(ResultError, match=keyword) as caught:
        build_results(analysis_of(source), ResultSettings(), made_at=made_at)
    assert "Phantom" not in str(caught.value)


def test_the_time_needs_a_zone(analysis):
    with pytest.raises(ValueError, match="time zone"):
        build_results(analysis, ResultSettings(), made_at=datetime(2026, 3, 1))  # noqa: DTZ001 - that is the point


def test_a_kind_is_added_by_one_line(analysis, made_at, monkeypatch):
    """And gets the results before it."""
    seen = []

    def build(case, earlier):
        seen.extend(earlier)
        return (dataclasses.replace(earlier[0], group="another"),)

    added = catalog.Builder(name="another", is_wanted=lambda settings: True, build=build)
    monkeypatch.setattr(catalog, "BUILDERS", (*catalog.BUILDERS, added))
    results = build_results(analysis, ResultSettings(), made_at=made_at)
    assert results[-1].group == "another"
    assert len(seen) == len(results) - 1


def test_pictures_made_at_once_are_the_same(analysis, made_at):
    one_by_one = build_results(analysis, ResultSettings(), made_at=made_at)
    at_once = build_results(analysis, ResultSettings(), made_at=made_at, each=Together(4).each)
    assert [result.encode() for result in at_once] == [result.encode() for result in one_by_one]


def returned(result, **coerced):
    """A result as an archive sends it back: as a file, with attributes changed."""
    dataset = dcmread(BytesIO(result.encode()))
    dataset.file_meta.ImplementationClassUID = "1.2.3"
    for keyword, value in coerced.items():
        setattr(dataset, keyword, value)
    return dataset


OTHER_NODE = ResultSettings(manufacturer="Example", manufacturer_model_name="Chest AI", device_serial_number="9")


def test_own_results_are_recognised(analysis, made_at):
    for result in build_results(analysis, ResultSettings(), made_at=made_at):
        assert is_own_result(returned(result), ResultSettings())


def test_own_results_are_recognised_whatever_an_archive_coerces(analysis, made_at):
    for result in build_results(analysis, OTHER_NODE, made_at=made_at):
        back = returned(
            result,
            PatientName="Corrected^Name",
            PatientID="NEW-1",
            AccessionNumber="X",
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID="1.2.4",
            SOPInstanceUID="1.2.5",
            SeriesDescription="Corrected",
            ImageType=["ORIGINAL", "PRIMARY"],
            Modality="CR",
            SpecificCharacterSet="ISO_IR 192",
        )
        assert is_own_result(back, OTHER_NODE)


def test_another_node_of_the_kind_is_recognised(analysis, made_at):
    for result in build_results(analysis, OTHER_NODE, made_at=made_at):
        assert is_own_result(returned(result), ResultSettings())


def test_each_mark_is_enough(analysis, made_at):
    result = build_results(analysis, OTHER_NODE, made_at=made_at)[0]

    def without(*keywords):
        dataset = returned(result)
        for keyword in keywords:
            del dataset[keyword]
        return dataset

    assert is_own_result(without("SoftwareVersions", "ContributingEquipmentSequence"), OTHER_NODE)
    assert is_own_result(without("SoftwareVersions", "Manufacturer"), ResultSettings())
    assert is_own_result(without("ContributingEquipmentSequence", "Manufacturer"), ResultSettings())
    unmarked = without("SoftwareVersions", "ContributingEquipmentSequence", "Manufacturer")
    assert not is_own_result(unmarked, ResultSettings())


@pytest.mark.parametrize("source", sources.SOURCES)
def test_radiographs_are_not_taken_for_results(source):
    assert not is_own_result(sources.SOURCES[source](), ResultSettings())
    assert not is_own_result(sources.SOURCES[source](), OTHER_NODE)


def test_others_results_and_empty_equipment_are_not_taken_for_ours():
    other = phantoms.secondary_capture(ImageType=["DERIVED", "SECONDARY", "OTHER"], Manufacturer="scp-node")
    other.ManufacturerModelName = "another product"
    item = Dataset()
    item.Manufacturer, item.DeviceUID = "Other AI", "2.25.1"
    item.ContributionDescription = "weights SHA-256 " + "a" * 64
    item.PurposeOfReferenceCodeSequence = phantoms.code("109102", "DCM", "Processing Equipment")
    other.ContributingEquipmentSequence = [item]
    assert not is_own_result(other, ResultSettings())
    nameless = phantoms.cr(Manufacturer="", ManufacturerModelName=None)
    assert not is_own_result(nameless, ResultSettings(manufacturer="", manufacturer_model_name=""))
    assert not is_own_result(Dataset(), ResultSettings(manufacturer="", manufacturer_model_name=""))
