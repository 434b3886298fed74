"""Figures per source and kind of label; what cannot be judged is listed and not counted."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from inference.errors import SourceError
from inference.models.checkpoint import Calibration, Manifest
from inference.models.preprocess import InputSpec
from inference.records import (
    Analysis,
    ChestImage,
    FileFormat,
    Ineligibility,
    Prediction,
    Reason,
    RenderRule,
    SourceHeader,
    Window,
    WindowSource,
)
from inference.training.dataset import read_labels
from inference.training.evaluate import Kind, groups, measure, score, to_json

MANIFEST = Manifest(
    name="resnet18",
    title="ResNet18",
    architecture="resnet18",
    version="1",
    input=InputSpec(),
    rule=RenderRule.AUTO,
    threshold=0.25,
    calibration=Calibration(),
    training_data="",
    created=date(2026, 11, 23),
)


class Oracle:
    """Says a fixed probability for each file name; refuses and fails where told. Stands where no network is needed."""

    models = (MANIFEST,)

    def __init__(self, probabilities):
        self._probabilities = probabilities

    def analyse(self, file, name=None):
        said = self._probabilities[name]
        if isinstance(said, Ineligibility):
            return said
        if isinstance(said, Exception):
            raise said
        prediction = Prediction(
            model="resnet18",
            title="ResNet18",
            version="1",
            weights_sha256="",
            target_layer="layer4",
            preprocessing="",
            calibration="platt;slope=1.0;intercept=0.0",
            probability=said,
            threshold=0.25,
            saliency=np.zeros((7, 7), dtype=np.float32),
        )
        image = ChestImage(
            display_values=np.zeros((4, 4), dtype=np.uint8),
            rule=RenderRule.AUTO,
            window=Window(source=WindowSource.FULL_RANGE, center=None, width=None, function="LINEAR"),
            is_inverted=False,
        )
        header = SourceHeader(name=str(name), file=Path(file), file_format=FileFormat.PNG, dataset=None)
        return Analysis(header=header, image=image, predictions=(prediction,), duration_s=0.0)


@pytest.fixture
def rows(tmp_path):
    nih = "nih-chestxray8"
    lines = ["file,label,source,rsna_label,patient"]
    lines += [f"k{i},{'pneumonia' if i % 2 else 'normal'},kermany-2018,,k{i}" for i in range(10)]
    lines += [f"o{i},pneumonia,{nih},Lung Opacity,o{i}" for i in range(3)]
    lines += [f"n{i},pneumonia,{nih},Normal,n{i}" for i in range(2)]
    lines += [f"u{i},normal,{nih},,u{i}" for i in range(4)]
    lines += [f"t{i},pneumonia,{nih},,t{i}" for i in range(5)]
    lines += [f"x{i},normal,{nih},No Lung Opacity / Not Normal,x{i}" for i in range(2)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return read_labels(tmp_path)


def test_nih_is_measured_three_ways_others_once(rows):
    found = {(g.source, g.kind): (len(g.truth), int(g.truth.sum())) for g in groups(rows)}
    assert found == {
        ("kermany-2018", Kind.OWN): (10, 5),
        ("nih-chestxray8", Kind.RSNA): (5, 3),
        ("nih-chestxray8", Kind.CONFIRMED): (9, 3),
        ("nih-chestxray8", Kind.RAW): (16, 10),
    }


def test_figures_are_those_of_each_group(rows):
    said = {row.name: 0.9 if row.is_positive else 0.1 for row in rows}
    said["k1"] = 0.2  # one pneumonia missed
    said["u0"] = 0.5  # one false alarm that nobody re-read
    found = {(m.source, m.kind): m for m in measure(score(Oracle(said), rows))}
    kermany = found["kermany-2018", Kind.OWN]
    assert (kermany.at_threshold.sensitivity.count, kermany.at_threshold.sensitivity.total) == (4, 5)
    assert kermany.auc == 1.0
    assert kermany.suggested.threshold == pytest.approx(0.2)
    assert found["nih-chestxray8", Kind.RSNA].at_threshold.specificity.value == 1.0
    assert found["nih-chestxray8", Kind.CONFIRMED].at_threshold.specificity.value == pytest.approx(5 / 6)
    assert found["nih-chestxray8", Kind.RAW].auc < found["nih-chestxray8", Kind.CONFIRMED].auc


def test_what_cannot_be_judged_is_listed_and_not_counted(rows):
    said = {row.name: 0.9 if row.is_positive else 0.1 for row in rows}
    said["k0"] = SourceError("k0", "cannot be opened (No such file or directory)")
    said["k2"] = Ineligibility(reason=Reason.LATERAL, detail="View Position (0018,5101) is LL")
    scores = score(Oracle(said), rows)
    assert [(n.name, n.state) for n in scores.not_judged] == [("k0", "unreadable"), ("k2", "not_eligible")]
    assert "lateral" in scores.not_judged[1].detail
    assert {m.source: m.images for m in measure(scores) if m.kind is Kind.OWN} == {"kermany-2018": 8}


def test_one_class_only_gives_no_auc_and_still_counts(rows):
    normal = [row for row in rows if not row.is_positive and row.source == "kermany-2018"]
    (only,) = measure(score(Oracle({row.name: 0.1 for row in normal}), normal))
    assert (only.auc, only.auc_interval, only.suggested) == (None, None, None)
    assert only.at_threshold.specificity.value == 1.0


def test_report_is_json_without_values_that_json_lacks(rows):
    normal = [replace(row, source="site") for row in rows if not row.is_positive and row.source == "kermany-2018"]
    scores = score(Oracle({row.name: 0.1 for row in normal}), normal)
    report = json.loads(json.dumps(to_json(scores, measure(scores)), allow_nan=False))
    assert report["measurements"][0]["at_threshold"]["sensitivity"]["value"] is None
    assert "pooled" not in json.dumps(report)
