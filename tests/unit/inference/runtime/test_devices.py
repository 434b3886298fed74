"""What is found out about CUDA before any framework is loaded."""

import ctypes
import importlib.metadata
import importlib.util

import pytest

from config.analysis import AnalysisSettings
from inference.runtime import devices
from inference.runtime.devices import cuda_is_there, may_use_cuda, torch_is_for_cuda


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with driver, device and a PyTorch that can: each can be taken away."""
    device = tmp_path / "nvidiactl"
    device.touch()
    monkeypatch.setattr(devices, "_DEVICE_FILES", (tmp_path / "dxg", device))
    # Any library that is there.
    monkeypatch.setattr(devices, "_LIBRARY", None)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.14.1")
    return device


def test_cuda_may_be_used_where_driver_device_and_pytorch_are(machine, monkeypatch):
    assert may_use_cuda(AnalysisSettings())
    monkeypatch.setattr(devices, "_LIBRARY", "libno-such-driver.so.1")
    assert not may_use_cuda(AnalysisSettings())
    assert not cuda_is_there()


def test_a_driver_without_device_is_nothing(machine):
    machine.unlink()
    assert not may_use_cuda(AnalysisSettings())


def test_a_pytorch_for_cpus_or_none_makes_a_device_useless(machine, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.14.1+cpu")
    assert not may_use_cuda(AnalysisSettings())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not torch_is_for_cuda()


def test_a_pytorch_that_does_not_say_what_it_is_may_be_for_cuda(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    assert torch_is_for_cuda()


def test_settings_decide_first(machine):
    assert not may_use_cuda(AnalysisSettings(device="cpu"))
    assert not may_use_cuda(AnalysisSettings(runtime="openvino"))
    machine.unlink()
    assert may_use_cuda(AnalysisSettings(device="cuda"))


def test_a_driver_that_does_not_start_has_no_device(monkeypatch):
    class Driver:
        def cuInit(self, _):  # noqa: N802 - the driver's name
            return 999

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver())
    assert not cuda_is_there()
