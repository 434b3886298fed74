"""One forward pass of each network gives probability and map, however many images there are."""

import numpy as np
import pytest

from config.analysis import AnalysisSettings
from inference.ensemble import LoadedEnsemble


@pytest.mark.parametrize("images", [1, 3])
def test_each_network_runs_once(random_checkpoints, images, monkeypatch):
    from torch import nn

    settings = AnalysisSettings(checkpoints=random_checkpoints, runtime="torch", device="cpu", threads=1)
    ensemble = LoadedEnsemble(settings)
    passes = []
    convolve = nn.Conv2d.forward

    def counted(self, x):
        if self.in_channels == 3:  # the first layer
            passes.append(len(x))
        return convolve(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    pictures = np.random.default_rng(2).integers(0, 256, (images, 224, 224), np.uint8)
    assert [len(outputs) for outputs in ensemble.run([(picture,) for picture in pictures])] == [3] * images
    assert passes == [images] * 3
