"""A fourth model: the example of docs/models.md as it stands there, one ModelSpec and one folder, nothing else."""

from datetime import date
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import vgg

from config.analysis import AnalysisSettings
from inference.engine import Engine
from inference.errors import CheckpointError
from inference.models import catalog, gradcam
from inference.models.importing import import_weights
from inference.records import Analysis

DOCUMENT = Path(__file__).parents[4] / "docs" / "models.md"


class NarrowVGG(vgg.VGG):
    """torchvision's VGG with 32 instead of 4096 hidden units: 15 instead of 134 million parameters."""

    def __init__(self, features, num_classes=1000, init_weights=True, dropout=0.5):
        nn.Module.__init__(self)
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        rectify, drop = nn.ReLU(inplace=True), nn.Dropout(dropout)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 32), rectify, drop, nn.Linear(32, 32), rectify, drop, nn.Linear(32, num_classes)
        )
        for module in features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


@pytest.fixture
def vgg16(monkeypatch):
    """The ModelSpec of the document, in the catalog for the time of one test."""
    monkeypatch.setattr(vgg, "VGG", NarrowVGG)
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition("```python\n")
    code, _, _ = rest.partition("```")
    names = dict(vars(catalog))
    exec(compile(code, str(DOCUMENT), "exec"), names)  # noqa: S102 - our own document
    monkeypatch.setattr(catalog, "MODELS", (*catalog.MODELS, names["VGG16"]))
    return names["VGG16"]


@pytest.fixture
def state(vgg16):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return vgg16.architecture.build().state_dict()


def test_it_is_imported_runs_beside_the_others_and_explains_itself(vgg16, state, random_checkpoints, tmp_path):
    torch.save(state, tmp_path / "vgg16.pth")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "resnet18").symlink_to(random_checkpoints / "resnet18")
    import_weights(
        tmp_path / "vgg16.pth", folder, name="vgg16", architecture="vgg16", threshold=0.2, created=date(2026, 11, 23)
    )
    rows, columns = np.mgrid[0:300, 0:260] / 30.0
    picture = (128 + 50 * np.sin(rows) * np.cos(columns * 1.3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "chest.png"), picture)

    settings = AnalysisSettings(checkpoints=folder, models=("resnet18", "vgg16"), device="cpu", threads=1)
    analysis = Engine(settings).analyse(tmp_path / "chest.png")

    assert isinstance(analysis, Analysis)
    assert [prediction.model for prediction in analysis.predictions] == ["resnet18", "vgg16"]
    prediction = analysis.predictions[1]
    assert prediction.target_layer == "features.29"
    assert prediction.saliency.shape == (14, 14)
    assert prediction.preprocessing == "auto;224x224;mean=0.485,0.456,0.406;std=0.229,0.224,0.225"


def test_its_map_is_that_of_autograd_through_the_whole_network(vgg16, state):
    """Its head has hidden layers, so the gradient differs from place to place."""
    network = vgg16.architecture.build().eval()
    network.load_state_dict(state)
    batch = torch.from_numpy(np.random.default_rng(5).normal(0, 1, (2, 3, 224, 224)).astype(np.float32))
    logits, maps = gradcam.explain(vgg16.architecture, network, batch)
    kept = []
    with network.features[29].register_forward_hook(lambda module, inputs, output: kept.append(output)):
        expected = network(batch)[:, 0]
    (gradient,) = torch.autograd.grad(expected.sum(), kept[0])
    exact = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).detach()
    assert gradient.std() > 0
    assert torch.allclose(logits, expected, atol=1e-5)
    assert (maps - exact).abs().max() < 1e-5 * exact.abs().max()


def test_without_the_entry_its_folder_is_refused(vgg16, state, tmp_path, monkeypatch):
    """What the test above shows is due to the ModelSpec and to nothing else."""
    torch.save(state, tmp_path / "vgg16.pth")
    import_weights(
        tmp_path / "vgg16.pth", tmp_path, name="vgg16", architecture="vgg16", threshold=0.2, created=date(2026, 11, 23)
    )
    monkeypatch.setattr(catalog, "MODELS", tuple(spec for spec in catalog.MODELS if spec is not vgg16))
    with pytest.raises(
        CheckpointError, match="architecture 'vgg16' is not one of resnet18, efficientnet_b0, densenet121"
    ):
        Engine(AnalysisSettings(checkpoints=tmp_path, models=("vgg16",)))
