"""All networks together: which pictures they take, and that a batch says what each radiograph says alone."""

from dataclasses import replace

import numpy as np
import pytest

from config.analysis import AnalysisSettings
from inference.ensemble import LoadedEnsemble, asked_sizes
from inference.models.checkpoint import read_manifest, read_manifests
from inference.records import RenderRule
from inference.runtime.catalog import RUNTIMES

NAMES = ("resnet18", "efficientnet_b0", "densenet121")


def pictures(count, size=224):
    """(count, size, size) uint8, smooth."""
    rng = np.random.default_rng(7)
    waves = rng.uniform(1, 6, (count, 2))
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    return np.stack([(127.5 * (1 + np.sin(a * x * 6) * np.cos(b * y * 6))).astype(np.uint8) for a, b in waves])


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_batch_gives_what_each_radiograph_gives_alone(random_checkpoints, runtime):
    ensemble = LoadedEnsemble(
        AnalysisSettings(checkpoints=random_checkpoints, runtime=runtime, device="cpu", threads=1)
    )
    radiographs = [(picture,) for picture in pictures(3)]
    together = ensemble.run(radiographs)
    assert len({outputs[0].logit for outputs in together}) == 3
    for radiograph, outputs in zip(radiographs, together, strict=True):
        [alone] = ensemble.run([radiograph])
        assert [one.logit for one in alone] == pytest.approx([one.logit for one in outputs], abs=1e-4)
        for one, other in zip(alone, outputs, strict=True):
            assert np.abs(one.signed_map - other.signed_map).max() <= 1e-4 * np.abs(other.signed_map).max()


def test_outputs_are_in_the_order_of_the_configuration(random_checkpoints):
    def logits(names):
        settings = AnalysisSettings(
            checkpoints=random_checkpoints, models=names, runtime="torch", device="cpu", threads=1
        )
        [outputs] = LoadedEnsemble(settings).run([(pictures(1)[0],)])
        return {name: output.logit for name, output in zip(names, outputs, strict=True)}

    assert logits(NAMES) == logits(NAMES[::-1])
    assert len(set(logits(NAMES).values())) == 3


def test_what_several_networks_take_is_asked_for_once(random_checkpoints):
    first, second, third = read_manifests(random_checkpoints, NAMES)
    assert asked_sizes((first, second, third)) == ((first.rule, 224, 224),)
    other_size = replace(second, input=replace(second.input, rows=320))
    other_mean = replace(third, input=replace(third.input, mean=(0.1, 0.1, 0.1)))
    other_rule = replace(third, rule=next(rule for rule in RenderRule if rule is not third.rule))
    assert asked_sizes((other_size, first, other_mean, other_rule)) == (
        (second.rule, 320, 224),
        (first.rule, 224, 224),
        (other_rule.rule, 224, 224),
    )


def test_each_network_takes_the_picture_that_it_asks_for(random_checkpoints, monkeypatch):
    seen = {}

    class Listening:
        name = "listening"

        def __init__(self, manifest):
            self.manifest = manifest

        def run(self, batch):
            seen[self.manifest.name] = batch
            return np.zeros(len(batch), np.float32), np.zeros((len(batch), 7, 7), np.float32)

    def manifest(folder, names):
        return tuple(
            replace(one, input=replace(one.input, rows=rows))
            for one, rows in zip([read_manifest(folder / name) for name in names], (224, 320, 224), strict=True)
        )

    monkeypatch.setattr("inference.ensemble.read_manifests", manifest)
    monkeypatch.setitem(RUNTIMES, "torch", lambda folder, manifest, placement: Listening(manifest))
    ensemble = LoadedEnsemble(AnalysisSettings(checkpoints=random_checkpoints, runtime="torch", device="cpu"))
    assert ensemble.runtime_names == ("listening",) * 3
    small, tall = np.full((224, 224), 255, np.uint8), np.zeros((320, 224), np.uint8)
    ensemble.run([(small, tall), (small // 2, tall)])
    assert [seen[name].shape for name in NAMES] == [(2, 3, 224, 224), (2, 3, 320, 224), (2, 3, 224, 224)]
    spec = read_manifest(random_checkpoints / "resnet18").input
    assert seen["resnet18"][0, 0, 0, 0] == pytest.approx((1 - spec.mean[0]) / spec.std[0])
    assert seen["resnet18"][1, 0, 0, 0] == pytest.approx((127 / 255 - spec.mean[0]) / spec.std[0])
    assert seen["efficientnet_b0"].max() < 0
    # The same size and normalisation are made once.
    assert seen["resnet18"] is seen["densenet121"]
