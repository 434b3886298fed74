"""The engine: from a file to an Analysis, with real decoding, real rendering and random weights."""

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from config.analysis import AnalysisSettings, EligibilitySettings
from inference import cores
from inference.cores import batch_size, processes, threads_for_models, threads_for_pictures
from inference.engine import Engine
from inference.errors import CheckpointError, DeviceError, InferenceError, SourceError
from inference.imaging.source import read_header, read_pixels
from inference.models.checkpoint import read_manifest
from inference.models.preprocess import to_model_input
from inference.records import Analysis, Ineligibility, Reason, RenderRule
from inference.runtime.catalog import RUNTIMES
from scp_node.demo import phantoms, sources

NAMES = ("resnet18", "efficientnet_b0", "densenet121")


def settings_for(folder, **changes):
    return AnalysisSettings(**({"checkpoints": folder, "device": "cpu", "threads": 1, "runtime": "torch"} | changes))


@pytest.fixture(scope="module")
def engine(random_checkpoints):
    return Engine(settings_for(random_checkpoints))


@pytest.fixture(scope="module")
def picture():
    """(rows, columns) uint8, a synthetic chest."""
    values = phantoms.chest_array(420, 360, bits=12, seed=3)
    return (values / values.max() * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def png(tmp_path_factory, picture):
    file = tmp_path_factory.mktemp("pictures") / "chest.png"
    assert cv2.imwrite(str(file), picture)
    return file


def numbers(analysis):
    return [prediction.probability for prediction in analysis.predictions]


def test_every_model_speaks_in_the_order_of_the_configuration(random_checkpoints, png):
    for names in (NAMES, NAMES[::-1], NAMES[1:2]):
        engine = Engine(settings_for(random_checkpoints, models=names))
        assert tuple(manifest.name for manifest in engine.models) == names
        analysis = engine.analyse(png)
        assert tuple(prediction.model for prediction in analysis.predictions) == names


def test_a_prediction_says_what_it_was_made_with(engine, random_checkpoints, png):
    analysis = engine.analyse(png)
    for prediction in analysis.predictions:
        manifest = read_manifest(random_checkpoints / prediction.model)
        assert prediction.weights_sha256 == manifest.weights_sha256
        assert prediction.title == manifest.title
        assert prediction.version == manifest.version == "0.0.1"
        assert prediction.threshold == manifest.threshold
        assert not prediction.is_threshold_overridden
        assert prediction.preprocessing == "auto;224x224;mean=0.5;std=0.25"
        assert 0 < prediction.probability < 1
        assert prediction.saliency.dtype == np.float32
        assert prediction.saliency.max() in (0, 1)
        assert prediction.saliency.min() >= 0
    assert [p.target_layer for p in analysis.predictions] == ["layer4", "features", "features"]
    assert analysis.duration_s > 0


def test_numbers_are_those_of_the_network_on_the_rendered_picture(engine, random_checkpoints, png, picture):
    """Built here once more from the parts, by the plain forward pass."""
    from inference.models.checkpoint import load_network

    analysis = engine.analyse(png)
    assert np.array_equal(analysis.image.display_values, picture)
    for prediction in analysis.predictions:
        manifest = read_manifest(random_checkpoints / prediction.model)
        network = load_network(random_checkpoints / prediction.model, manifest)
        with torch.no_grad():
            logit = float(network(torch.from_numpy(to_model_input(picture, manifest.input)[None])))
        assert prediction.probability == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)


def test_the_same_file_gives_the_same_numbers(engine, random_checkpoints, png):
    first, again = engine.analyse(png), engine.analyse(png)
    other = Engine(settings_for(random_checkpoints)).analyse(png)
    assert numbers(first) == numbers(again) == numbers(other)
    for a, b, c in zip(first.predictions, again.predictions, other.predictions, strict=True):
        assert np.array_equal(a.saliency, b.saliency)
        assert np.array_equal(a.saliency, c.saliency)


def test_the_pictures_content_matters(engine, png, picture, tmp_path):
    assert cv2.imwrite(str(tmp_path / "other.png"), np.ascontiguousarray(picture[::-1]))
    for one, other in zip(numbers(engine.analyse(png)), numbers(engine.analyse(tmp_path / "other.png")), strict=True):
        assert abs(one - other) > 1e-4


def test_a_jpeg_says_nearly_the_same_as_the_png(engine, png, picture, tmp_path):
    assert cv2.imwrite(str(tmp_path / "chest.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert numbers(engine.analyse(tmp_path / "chest.jpg")) == pytest.approx(numbers(engine.analyse(png)), abs=0.02)


@pytest.mark.parametrize("source", sources.SOURCES)
def test_every_kind_of_dicom_source_is_analysed(engine, source, tmp_path):
    dataset = sources.SOURCES[source]()
    dataset.save_as(tmp_path / "source.dcm", enforce_file_format=True)
    analysis = engine.analyse(tmp_path / "source.dcm")
    assert isinstance(analysis, Analysis)
    assert analysis.header.dataset.SOPInstanceUID == dataset.SOPInstanceUID
    assert analysis.image.rule is RenderRule.AUTO
    assert analysis.image.display_values.shape == (dataset.Rows, dataset.Columns)


def test_a_real_radiograph_is_analysed_and_an_extremity_is_not(engine):
    chest = engine.analyse(Path(get_testdata_file("RG1_UNCR.dcm")))
    assert isinstance(chest, Analysis)
    assert len(chest.predictions) == 3
    extremity = engine.analyse(Path(get_testdata_file("RG3_UNCR.dcm")))
    assert isinstance(extremity, Ineligibility)
    assert extremity.reason is Reason.NOT_CHEST


def test_eligibility_follows_the_settings(random_checkpoints, tmp_path):
    eligibility = EligibilitySettings(require_chest=False)
    engine = Engine(settings_for(random_checkpoints, models=NAMES[:1], eligibility=eligibility))
    analysis = engine.analyse(Path(get_testdata_file("RG3_UNCR.dcm")))
    assert isinstance(analysis, Analysis)
    assert any("configuration" in note for note in analysis.image.notes)


def test_an_empty_picture_is_not_judged_unless_asked_to(engine, random_checkpoints, tmp_path):
    assert cv2.imwrite(str(tmp_path / "empty.png"), np.full((300, 300), 90, np.uint8))
    refusal = engine.analyse(tmp_path / "empty.png")
    assert isinstance(refusal, Ineligibility)
    assert refusal.reason is Reason.POOR_QUALITY
    careless = EligibilitySettings(require_quality=False)
    other = Engine(settings_for(random_checkpoints, models=NAMES[:1], eligibility=careless))
    assert isinstance(other.analyse(tmp_path / "empty.png"), Analysis)


def test_a_colour_picture_is_not_judged(engine, tmp_path):
    rng = np.random.default_rng(1)
    assert cv2.imwrite(str(tmp_path / "colour.png"), rng.integers(0, 255, (300, 300, 3), dtype=np.uint8))
    refusal = engine.analyse(tmp_path / "colour.png")
    assert isinstance(refusal, Ineligibility)
    assert refusal.reason is Reason.UNSUPPORTED_PIXELS
    assert "coloured" in refusal.detail


def test_what_is_no_picture_is_an_error_with_the_name_asked_for(engine, tmp_path):
    (tmp_path / "file").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"^1\.2\.3: "):
        engine.analyse(tmp_path / "file", name="1.2.3")


def with_rule(source, target, rule):
    """A copy of a checkpoint under another rule."""
    shutil.copytree(source, target)
    fields = json.loads((target / "model.json").read_text()) | {"rule": rule, "name": target.name}
    (target / "model.json").write_text(json.dumps(fields))


def test_each_model_takes_its_own_rendering_and_the_display_picture_is_shown(random_checkpoints, tmp_path):
    """A CR without rescale to HU: under the seed's rule nearly everything is beyond the lung window."""
    with_rule(random_checkpoints / "efficientnet_b0", tmp_path / "efficientnet_b0", "auto")
    with_rule(random_checkpoints / "densenet121", tmp_path / "old-densenet", "seed")
    fields = json.loads((tmp_path / "old-densenet" / "model.json").read_text())
    assert fields["architecture"] == "densenet121"
    sources.SOURCES["cr"]().save_as(tmp_path / "cr.dcm", enforce_file_format=True)
    engine = Engine(settings_for(tmp_path, models=("efficientnet_b0", "old-densenet")))
    analysis = engine.analyse(tmp_path / "cr.dcm")
    assert [p.preprocessing.split(";")[0] for p in analysis.predictions] == ["auto", "seed"]
    assert analysis.image.rule is RenderRule.AUTO
    assert any("rule seed" in note for note in analysis.image.notes)

    both = tmp_path / "both"
    with_rule(random_checkpoints / "densenet121", both / "old-densenet", "auto")
    same_picture = Engine(settings_for(both, models=("old-densenet",))).analyse(tmp_path / "cr.dcm")
    assert numbers(same_picture)[0] != numbers(analysis)[1]
    assert not any("rule seed" in note for note in same_picture.image.notes)


def test_a_sites_threshold_replaces_the_weights_own_and_is_said_to(random_checkpoints, engine, png):
    manifest = read_manifest(random_checkpoints / "efficientnet_b0")
    site = Engine(settings_for(random_checkpoints, thresholds={"efficientnet_b0": 0.99}))
    changed = {prediction.model: prediction for prediction in site.analyse(png).predictions}
    before = {prediction.model: prediction for prediction in engine.analyse(png).predictions}
    assert changed["efficientnet_b0"].threshold == 0.99
    assert changed["efficientnet_b0"].is_threshold_overridden
    assert before["efficientnet_b0"].threshold == manifest.threshold
    assert before["efficientnet_b0"].is_positive
    assert not changed["efficientnet_b0"].is_positive
    assert changed["efficientnet_b0"].probability == before["efficientnet_b0"].probability
    assert not changed["resnet18"].is_threshold_overridden


def test_calibration_is_applied_to_the_logit(random_checkpoints, tmp_path, engine, png):
    with_rule(random_checkpoints / "densenet121", tmp_path / "densenet121", "auto")
    fields = json.loads((tmp_path / "densenet121" / "model.json").read_text())
    fields["calibration"] = {"slope": 2.0, "intercept": -1.0}
    (tmp_path / "densenet121" / "model.json").write_text(json.dumps(fields))
    analysis = Engine(settings_for(tmp_path, models=("densenet121",))).analyse(png)
    [found] = numbers(analysis)
    assert analysis.predictions[0].calibration == "platt;slope=2.0;intercept=-1.0"
    plain = numbers(engine.analyse(png))[2]
    logit = math.log(plain / (1 - plain))
    assert found == pytest.approx(1 / (1 + math.exp(-(2 * logit - 1))), abs=1e-9)


class Broken:
    """A runtime whose numbers are not finite."""

    name = "broken"

    def __init__(self, logit, value):
        self.logit = logit
        self.value = value

    def run(self, batch):
        return np.array([self.logit], np.float32), np.full((1, 7, 7), self.value, np.float32)


@pytest.mark.parametrize(
    ("logit", "value"), [(math.nan, 1), (math.inf, 1), (-math.inf, 1), (0, math.nan), (0, math.inf)]
)
def test_numbers_that_are_not_finite_are_an_error_and_never_a_result(
    random_checkpoints, png, monkeypatch, logit, value
):
    monkeypatch.setitem(RUNTIMES, "torch", lambda folder, manifest, placement: Broken(logit, value))
    engine = Engine(settings_for(random_checkpoints, models=NAMES[:1]))
    with pytest.raises(InferenceError, match="resnet18: the network gave numbers that are not finite"):
        engine.analyse(png)


def test_without_positive_evidence_the_prediction_says_so(random_checkpoints, png, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "torch", lambda folder, manifest, placement: Broken(-3, -1))
    engine = Engine(settings_for(random_checkpoints, models=NAMES[:1]))
    [prediction] = engine.analyse(png).predictions
    assert not prediction.has_evidence
    assert prediction.probability == pytest.approx(1 / (1 + math.exp(3)))


def test_altered_weights_or_a_missing_model_stop_the_engine(random_checkpoints, tmp_path):
    shutil.copytree(random_checkpoints, tmp_path / "checkpoints")
    with (tmp_path / "checkpoints" / "densenet121" / "weights.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    with pytest.raises(CheckpointError, match=r"checkpoint densenet121: weights\.safetensors has SHA-256"):
        Engine(settings_for(tmp_path / "checkpoints"))
    with pytest.raises(CheckpointError, match="checkpoint vgg16: cannot read"):
        Engine(settings_for(random_checkpoints, models=("resnet18", "vgg16")))


def test_a_missing_device_stops_the_engine(random_checkpoints, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError):
        Engine(settings_for(random_checkpoints, device="cuda"))


def test_a_header_can_be_given(engine, png):
    """Who had to look at the header first does not have it read again."""
    assert numbers(engine.analyse_header(read_header(png))) == numbers(engine.analyse(png))


def test_a_decoded_image_can_be_given(engine, png):
    assert numbers(engine.analyse_image(read_pixels(read_header(png)))) == numbers(engine.analyse(png))


def test_threads_are_cores_divided_by_processes_unless_configured(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    plain = AnalysisSettings(device="cpu")
    assert (processes(plain), threads_for_models(plain)) == (4, 2)
    assert threads_for_models(plain.model_copy(update={"processes": 3})) == 2
    assert threads_for_models(plain.model_copy(update={"processes": 64})) == 1
    assert threads_for_models(plain.model_copy(update={"threads": 5})) == 5
    # One process for all others has all cores, as they have while it waits for them.
    assert threads_for_models(plain.model_copy(update={"batch_size": 4})) == 8
    assert threads_for_pictures(plain) == 4
    assert threads_for_pictures(plain.model_copy(update={"threads": 1})) == 1


@pytest.mark.parametrize(
    ("cores", "device", "size", "expected"),
    [
        (1, "cpu", 0, (1, 1)),
        (2, "cpu", 0, (2, 1)),
        (5, "cpu", 0, (2, 1)),
        (6, "cpu", 4, (3, 4)),
        (64, "cpu", 0, (8, 1)),
        (64, "cuda", 0, (8, 16)),
        (64, "cuda", 5, (8, 5)),
        (64, "cuda", 1, (1, 1)),
    ],
)
def test_children_and_batches_by_cores_and_device_unless_configured(monkeypatch, cores, device, size, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    settings = AnalysisSettings(device=device, batch_size=size)
    assert (processes(settings), batch_size(settings)) == expected
    assert processes(settings.model_copy(update={"processes": 3})) == 3


def test_batches_are_made_where_cuda_may_be_used(monkeypatch):
    monkeypatch.setattr(cores, "may_use_cuda", lambda settings: settings.device == "auto")
    assert batch_size(AnalysisSettings()) == 16
    assert batch_size(AnalysisSettings(device="cpu")) == 1


def test_the_clock_is_handed_in(random_checkpoints, png):
    times = iter((10.0, 12.5))
    engine = Engine(settings_for(random_checkpoints, models=NAMES[:1]), clock=lambda: next(times))
    assert engine.analyse(png).duration_s == 2.5
