"""One forward pass of each network gives probability and map, however many images there are."""

import numpy as np
import pytest

from config.analysis import AnalysisSettings
from inference.engine import Engine


@pytest.mark.parametrize("images", [1, 3])
def test_each_network_runs_once(random_checkpoints, images, monkeypatch):
    from torch import nn

    engine = Engine(AnalysisSettings(checkpoints=random_checkpoints, runtime="torch", device="cpu", threads=1))
    passes = []
    convolve = nn.Conv2d.forward

    def counted(self, x):
        if self.in_channels == 3:  # the first layer
            passes.append(len(x))
        return convolve(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    batch = np.random.default_rng(2).normal(0, 1, (images, 3, 224, 224)).astype(np.float32)
    for model in engine.loaded:
        assert len(model.predict(batch)) == images
    assert passes == [images] * len(engine.loaded)
