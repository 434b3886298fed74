"""`scp-node config check`: refuses what a start refuses, without loading what a start loads."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scp_node.cli.main import main


@pytest.fixture(autouse=True)
def _fresh_environment(monkeypatch, tmp_path, restore_logging):
    """No settings from outside, an empty current directory."""
    for name in list(os.environ):
        if name.startswith("SCP_NODE"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def check(folder: Path, text: str) -> int:
    (folder / "node.toml").write_text(text, encoding="utf-8")
    return main(["config", "check", "--config", "node.toml"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[analysis]\nmodels = ["resnet19"]\n', "resnet19: cannot read"),
        ('[analysis]\ncheckpoints = "nowhere"\nmodels = ["resnet18"]\n', "cannot read nowhere/resnet18/model.json"),
        (
            '[receiver.tls]\nenabled = true\ncertificate = "no.pem"\nkey = "no.key"\nauthorities = "no.pem"\n',
            "TLS of receiver: no.key: cannot be read",
        ),
        ("[console]\nport = 11112\n", "receiver.port and console.port are both 11112"),
        (
            '[receiver]\nbind = "0.0.0.0"\ncallers = [{ae_title = "CR1"}]\n[console]\nport = 11112\n',
            "receiver.port and console.port are both 11112",
        ),
    ],
)
def test_what_a_start_refuses_cannot_be_used(tmp_path, capsys, text, sentence):
    assert check(tmp_path, text) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("scp-node: node.toml: ")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_every_fault_is_named(tmp_path, capsys):
    assert check(tmp_path, '[analysis]\nmodels = ["a1", "b1"]\n[console]\nport = 11112\n') == 2
    assert capsys.readouterr().err.count("\n") == 3


def test_altered_weights_cannot_be_used(tmp_path, capsys, random_checkpoints):
    folder = tmp_path / "checkpoints" / "resnet18"
    folder.mkdir(parents=True)
    for part in ("model.json", "weights.safetensors"):
        (folder / part).write_bytes((random_checkpoints / "resnet18" / part).read_bytes() + b" ")
    assert check(tmp_path, '[analysis]\ncheckpoints = "checkpoints"\nmodels = ["resnet18"]\n') == 2
    assert "SHA-256" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        '[receiver]\nbind = "127.0.0.2"\n[console]\nport = 11112\n',
        # Nobody listens on the plain port.
        '[receiver.tls]\nport = 8142\n[receiver]\nport = 8143\n[console]\nbind = "localhost"\n',
    ],
)
def test_the_same_port_at_another_address_is_no_clash(tmp_path, capsys, text):
    assert check(tmp_path, text) == 0
    assert "can be used" in capsys.readouterr().out


def test_doctor_names_the_clash_and_the_console(tmp_path, capsys):
    (tmp_path / "node.toml").write_text("[console]\nport = 11112\n", encoding="utf-8")
    assert main(["doctor", "--json", "--config", "node.toml"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = [(one["level"], one["detail"]) for one in found if one["check"] == "console"]
    assert said[0][0] == "failed"
    assert "both 11112" in said[0][1]


def test_doctor_finds_whether_the_console_listens(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for level, word in (("ok", "listens"), ("note", "not running?")):
            (tmp_path / "node.toml").write_text(f"[console]\nport = {port}\n", encoding="utf-8")
            main(["doctor", "--json", "--config", "node.toml"])
            found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            (said,) = [one for one in found if one["check"] == "console"]
            assert said["level"] == level
            assert word in said["detail"]
            listener.close()


def test_it_imports_neither_torch_nor_what_speaks_dicom(tmp_path):
    program = (
        "import sys; from scp_node.cli.main import main; main(['config', 'check']); "
        "print(sorted({'torch', 'openvino', 'dbos', 'sqlalchemy', 'pynetdicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("SCP_NODE_RECEIVER_PORT", "SCP_NODE__RECEIVER__PORT"),
        ("SCP_NODE_DATABASE__URL", "SCP_NODE__DATABASE__URL"),
        ("SCP_NODE_SPOOL_MINIMUM_FREE_BYTES", "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES"),
    ],
)
def test_a_variable_with_too_few_underscores_is_not_passed_over_in_silence(monkeypatch, capsys, variable, meant):
    monkeypatch.setenv(variable, "hush")
    # Of no setting: other programs have such names too, the balancer of deploy/ for example.
    monkeypatch.setenv("SCP_NODE_BIND", "0.0.0.0:104")
    assert main(["config", "show"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"scp-node: environment variable {variable} is ignored; did you mean {meant}?\n"
    assert "hush" not in captured.out
