"""A node on the CPU needs no PyTorch once its models are compiled; until then it says what to do."""

import importlib.util
import subprocess
import sys

import pytest

from config.analysis import AnalysisSettings
from inference.engine import Engine
from inference.errors import DeviceError
from inference.models.checkpoint import read_manifests
from inference.runtime.catalog import RUNTIMES, Placement

WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ("torch", "torchvision") else real(name, package)
from pathlib import Path
from config.analysis import AnalysisSettings
from inference.engine import Engine
from inference.errors import InferenceError
try:
    checkpoints, cache = map(Path, sys.argv[1:])
    Engine(AnalysisSettings(checkpoints=checkpoints, cache=cache, models=("resnet18",), device="cpu"))
except InferenceError as error:
    sys.exit(str(error))
print("loaded", "torch" in sys.modules)
"""


def without_torch(checkpoints, cache):
    command = [sys.executable, "-c", WITHOUT, str(checkpoints), str(cache)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def test_compiled_models_need_no_pytorch(random_checkpoints, tmp_path):
    Engine(AnalysisSettings(checkpoints=random_checkpoints, cache=tmp_path, models=("resnet18",), device="cpu"))
    done = without_torch(random_checkpoints, tmp_path)
    assert done.stdout == "loaded False\n", done.stderr


def test_without_either_a_sentence_says_what_to_do(random_checkpoints, monkeypatch):
    [manifest] = read_manifests(random_checkpoints, ("resnet18",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(DeviceError, match="scp-node models compile"):
        RUNTIMES["torch"](random_checkpoints / "resnet18", manifest, Placement(device="cpu", threads=1))
