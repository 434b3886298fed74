"""`scp-node serve` as a service manager runs it: ready when it says so, stopped in order by a signal."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scp_node.demo.modality import send
from scp_node.demo.phantoms import cr

PROGRAM = Path(sys.executable).with_name("scp-node")


@pytest.mark.integration
def test_serves_until_sigterm_and_jobs_are_seen_beside_it(tmp_path, random_checkpoints, free_port):
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")} | {
        "SCP_NODE__RECEIVER__PORT": str(port),
        "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES": "0",
        "SCP_NODE__ANALYSIS__CHECKPOINTS": str(random_checkpoints),
        "SCP_NODE__ANALYSIS__MODELS": '["resnet18"]',
        "SCP_NODE__LOGGING__FORMAT": "json",
    }
    node = subprocess.Popen([PROGRAM, "serve"], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        events = []
        for line in node.stderr:
            events.append(json.loads(line))
            if events[-1]["event"] == "receiving":
                break
        else:
            pytest.fail(f"the node ended: {events}")
        assert events[-1]["port"] == port
        source = cr(rows=64, columns=64, PatientName="Hong^Gildong")
        file = tmp_path / "source.dcm"
        source.save_as(file, enforce_file_format=True)
        send(file, host="127.0.0.1", port=port, called_ae_title="SCP_NODE")
        listed = subprocess.run(
            [PROGRAM, "jobs", "list", "--json"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        )
        (job,) = (json.loads(line) for line in listed.stdout.splitlines())
        assert job["sop_instance_uid"] == source.SOPInstanceUID
        assert job["calling_ae_title"] == "MODALITY"
        node.send_signal(signal.SIGTERM)
        rest = node.stderr.read()
        assert node.wait(60) == 0, rest
        last = [json.loads(line)["event"] for line in rest.splitlines()]
        assert last[-1] == "stopped"
        assert "Hong" not in rest
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()
        node.stderr.close()


@pytest.mark.integration
def test_weights_that_are_missing_refuse_to_start_in_a_sentence(tmp_path, free_port):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")} | {
        "SCP_NODE__RECEIVER__PORT": str(free_port()),
        "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES": "0",
        "SCP_NODE__ANALYSIS__CHECKPOINTS": str(tmp_path / "none"),
    }
    done = subprocess.run(
        [PROGRAM, "serve"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("scp-node: ")
    assert "Traceback" not in done.stderr


@pytest.mark.integration
def test_models_that_cannot_be_loaded_end_it_with_a_sentence(tmp_path, random_checkpoints, free_port):
    """A CUDA device that is not there: found by the children only, after the receiver has started."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")} | {
        "SCP_NODE__RECEIVER__PORT": str(free_port()),
        "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES": "0",
        "SCP_NODE__ANALYSIS__CHECKPOINTS": str(random_checkpoints),
        "SCP_NODE__ANALYSIS__DEVICE": "cuda",
    }
    done = subprocess.run(
        [PROGRAM, "serve"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("scp-node: the models cannot be loaded")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
def test_threads_share_arenas():
    """As many threads as a busy node has, all of them with memory of their own at the same time."""
    program = """
import ctypes, sys, threading
from scp_node.cli.serve import share_arenas

if sys.argv[1] == "shared":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
together = threading.Barrier(12)

def take():
    together.wait()
    libc.malloc(ctypes.c_size_t(3000))
    together.wait()

threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""
    found = {
        how: subprocess.run(
            [sys.executable, "-c", program, how], check=True, capture_output=True, text=True
        ).stdout.count("<heap nr=")
        for how in ("shared", "own")
    }
    assert 1 <= found["shared"] <= 2 < found["own"]
