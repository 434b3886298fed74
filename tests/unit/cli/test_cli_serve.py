"""`scp-node serve` as a service manager runs it: ready when it says so, stopped in order by a signal."""

import json
import os
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
        "SCP_NODE__RECEIVER__ACSE_TIMEOUT_S": "30",
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
        assert node.wait(120) == 0, rest
        last = [json.loads(line)["event"] for line in rest.splitlines()]
        assert last[-1] == "stopped"
        assert "Hong" not in rest
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()
        node.stderr.close()


@pytest.mark.integration
def test_signals_while_it_starts_do_not_kill_it(tmp_path, random_checkpoints, free_port):
    """The configuration is a pipe: nothing slow has happened when the signals arrive."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")}
    configuration = tmp_path / "node.toml"
    os.mkfifo(configuration)
    node = subprocess.Popen(
        [PROGRAM, "serve", "--config", configuration], cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        with configuration.open("w", encoding="utf-8") as pipe:
            node.send_signal(signal.SIGHUP)
            node.send_signal(signal.SIGTERM)
            pipe.write(
                f"[receiver]\nport = {free_port()}\n[spool]\nminimum_free_bytes = 0\n"
                f'[analysis]\nmodels = ["resnet18"]\ncheckpoints = "{random_checkpoints}"\n'
            )
        _, said = node.communicate(timeout=240)
        assert node.returncode == 0, said
        assert "stopped" in said.splitlines()[-1]
    finally:
        if node.poll() is None:
            node.kill()
            node.wait()


@pytest.mark.integration
def test_weights_that_are_missing_refuse_to_start_in_a_sentence(tmp_path, free_port):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SCP_NODE__")} | {
        "SCP_NODE__RECEIVER__PORT": str(free_port()),
        "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES": "0",
        "SCP_NODE__ANALYSIS__CHECKPOINTS": str(tmp_path / "none"),
    }
    done = subprocess.run(
        [PROGRAM, "serve"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=240
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
