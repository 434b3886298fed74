"""The same analysis has the same UIDs for ever; whatever changes pixels or text changes the UID."""

import dataclasses
import re
import uuid
from datetime import timedelta

import pytest

from config.results import ReportSettings, ResultSettings, SecondaryCaptureSettings
from inference.records import WindowSource
from scp_node.demo import phantoms
from scp_node.records import ResultKind
from scp_node.results import uids
from scp_node.results.catalog import build_results

PICTURES = SecondaryCaptureSettings(panel_size=256, maximum_size=256)
SMALL = ResultSettings(secondary_capture=PICTURES)


def uids_of(analysis, settings, made_at):
    results = build_results(analysis, settings, made_at=made_at)
    return {(r.kind, r.model, r.rank): r.sop_instance_uid for r in results}


def test_uids_are_uuid_derived_and_legal():
    """PS3.5 B.2: 2.25. and a UUID of 128 bits as a decimal number."""
    for number in range(2000):
        made = uids.uid("test", str(number))
        assert re.fullmatch(r"2\.25\.[1-9]\d{0,38}", made)
        assert len(made) <= 44
        assert uuid.UUID(int=int(made[5:])).version == 5


def test_parts_do_not_run_together():
    assert uids.uid("a|1:b", "c") != uids.uid("a", "1:b|c")
    assert uids.uid("ab", "") != uids.uid("a", "b") != uids.uid("", "ab")


def test_every_object_has_its_own_uid_and_kinds_have_their_own_series(analysis, made_at):
    results = build_results(analysis, SMALL, made_at=made_at)
    assert len({r.sop_instance_uid for r in results}) == len(results) == 8
    series = {}
    for result in results:
        series.setdefault(str(result.dataset.SeriesInstanceUID), set()).add(result.kind)
    assert sorted(map(sorted, series.values())) == sorted(
        [[ResultKind.MONTAGE, ResultKind.SINGLE], [ResultKind.MEASUREMENT_REPORT], [ResultKind.TEXT_SUMMARY]]
    )


def test_a_repeat_at_another_time_has_the_same_uids_and_pixels(analysis, made_at):
    first = build_results(analysis, SMALL, made_at=made_at)
    later = build_results(dataclasses.replace(analysis, duration_s=9.0), SMALL, made_at=made_at + timedelta(days=3))
    for one, other in zip(first, later, strict=True):
        assert one.sop_instance_uid == other.sop_instance_uid
        assert one.dataset.SeriesInstanceUID == other.dataset.SeriesInstanceUID
        assert one.dataset.get("PixelData") == other.dataset.get("PixelData")
        assert one.dataset.ContentDate != other.dataset.ContentDate


def test_a_repeat_on_other_hardware_keeps_its_uids(analysis, made_at):
    """The last digit of a probability may differ there; the archive must not get a second result for that."""
    predictions = tuple(dataclasses.replace(p, probability=p.probability + 1e-7) for p in analysis.predictions)
    again = dataclasses.replace(analysis, predictions=predictions)
    assert uids_of(analysis, SMALL, made_at) == uids_of(again, SMALL, made_at)


PREDICTION_CHANGES = {
    "threshold": {"threshold": 0.26},
    "whose threshold": {"is_threshold_overridden": True},
    "weights": {"weights_sha256": "d" * 64},
    "version": {"version": "1.0.1"},
    "preprocessing": {"preprocessing": "seed;224x224;mean=0.5;std=0.25"},
    "calibration": {"calibration": "platt;slope=1.0;intercept=-2.0"},
    "layer": {"target_layer": "layer3"},
}


@pytest.mark.parametrize("change", PREDICTION_CHANGES.values(), ids=PREDICTION_CHANGES)
def test_a_change_of_one_model_changes_all_but_the_pictures_of_the_others(analysis, made_at, change):
    changed = dataclasses.replace(analysis.predictions[0], **change)
    other = dataclasses.replace(analysis, predictions=(changed, *analysis.predictions[1:]))
    before, after = (uids_of(one, SMALL, made_at) for one in (analysis, other))
    same = {key for key in before if before[key] == after[key]}
    assert same == {(ResultKind.SINGLE, "efficientnet_b0", 0), (ResultKind.SINGLE, "densenet121", 0)}


SETTINGS_CHANGES = {
    "alpha": {"secondary_capture": PICTURES.model_copy(update={"alpha": 0.5})},
    "colours": {"secondary_capture": PICTURES.model_copy(update={"colormap": "cividis"})},
    "compression": {"secondary_capture": PICTURES.model_copy(update={"transfer_syntax": "jpeg"})},
    "modality": {"secondary_capture": PICTURES.model_copy(update={"modality": "source"})},
    "manufacturer": {"manufacturer": "Example"},
    "another node": {"device_serial_number": "2"},
    "institution": {"institution_name": "Example Hospital"},
    "character set": {"charset": "utf8"},
    "purpose": {"contributing_equipment_purpose": "Newcode1,99IHE,Processing Algorithm"},
}


@pytest.mark.parametrize("change", SETTINGS_CHANGES.values(), ids=SETTINGS_CHANGES)
def test_what_shows_in_every_object_changes_every_uid(analysis, made_at, change):
    """Reports refer to the pictures, so a change of those changes them too."""
    before = uids_of(analysis, SMALL, made_at)
    after = uids_of(analysis, SMALL.model_copy(update=change), made_at)
    assert not set(before.values()) & set(after.values())


def test_jpeg_quality_counts_only_for_jpeg(analysis, made_at):
    def made(syntax, quality):
        pictures = PICTURES.model_copy(update={"transfer_syntax": syntax, "jpeg_quality": quality})
        return uids_of(analysis, ResultSettings(secondary_capture=pictures), made_at)

    assert made("explicit", 90) == made("explicit", 80)
    assert not set(made("jpeg", 90).values()) & set(made("jpeg", 80).values())


@pytest.mark.parametrize(
    "change",
    [
        {"title_code": "112000,DCM,Chest CAD Report"},
        {"procedure_code": "43468-8,LN,XR unspecified body region"},
        {"threshold": False},
    ],
)
def test_a_change_of_the_measurement_report_changes_only_that(analysis, made_at, change):
    before = uids_of(analysis, SMALL, made_at)
    after = uids_of(analysis, SMALL.model_copy(update={"report": ReportSettings(**change)}), made_at)
    assert {key[0] for key in before if before[key] != after[key]} == {ResultKind.MEASUREMENT_REPORT}


@pytest.mark.parametrize(
    "change",
    [
        lambda image: {"is_inverted": True},
        lambda image: {"window": dataclasses.replace(image.window, center=2000.0)},
        lambda image: {"window": dataclasses.replace(image.window, source=WindowSource.PERCENTILES)},
    ],
    ids=["polarity", "window", "source of the window"],
)
def test_another_rendering_changes_every_uid(analysis, made_at, change):
    image = dataclasses.replace(analysis.image, **change(analysis.image))
    before = uids_of(analysis, SMALL, made_at)
    after = uids_of(dataclasses.replace(analysis, image=image), SMALL, made_at)
    assert not set(before.values()) & set(after.values())


def test_notes_change_the_reports_only(analysis, made_at):
    image = dataclasses.replace(analysis.image, notes=("View Position (0018,5101) is absent.",))
    before = uids_of(analysis, SMALL, made_at)
    after = uids_of(dataclasses.replace(analysis, image=image), SMALL, made_at)
    changed = {key[0] for key in before if before[key] != after[key]}
    assert changed == {ResultKind.MEASUREMENT_REPORT, ResultKind.TEXT_SUMMARY}


def test_another_release_of_the_node_makes_other_objects(analysis, made_at, monkeypatch):
    before = uids_of(analysis, SMALL, made_at)
    monkeypatch.setattr(uids, "ENCODER_VERSION", "next")
    assert not set(before.values()) & set(uids_of(analysis, SMALL, made_at).values())


def test_two_images_of_one_series_share_the_series_of_results(analysis_of, made_at):
    def series(sop_instance_uid, series_instance_uid):
        source = phantoms.cr(SOPInstanceUID=sop_instance_uid, SeriesInstanceUID=series_instance_uid)
        results = build_results(analysis_of(source), SMALL, made_at=made_at)
        return [str(r.dataset.SeriesInstanceUID) for r in results], {r.sop_instance_uid for r in results}

    one, other, elsewhere = series("2.25.11", "2.25.1"), series("2.25.12", "2.25.1"), series("2.25.13", "2.25.2")
    assert one[0] == other[0] != elsewhere[0]
    assert not one[1] & other[1]


def test_a_model_is_the_same_device_everywhere(analysis, made_at):
    for settings in (SMALL, SMALL.model_copy(update={"manufacturer": "Example", "device_serial_number": "7"})):
        results = build_results(analysis, settings, made_at=made_at)
        assert str(results[0].dataset.ContributingEquipmentSequence[0].DeviceUID) == uids.device_uid("a" * 64)
