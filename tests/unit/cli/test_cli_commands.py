"""Commands end to end in this process: what they print, where, and the exit code."""

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from config.settings import NodeSettings
from scp_node.cli.main import COMMANDS, main
from scp_node.demo.pacs import StandInPacs

# pynetdicom 3.0.4 drops the socket of a refused connection without closing it.
UNCLOSED = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _fresh_environment(monkeypatch, tmp_path, restore_logging):
    """No settings from outside, an empty current directory, pytest's own logging afterwards."""
    for name in list(os.environ):
        if name.startswith("SCP_NODE__"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def configure(folder: Path, text: str) -> str:
    file = folder / "node.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def pacs_table(pacs: StandInPacs, name: str = "pacs") -> str:
    return (
        f'[[destinations]]\nname = "{name}"\nkind = "dicom"\nae_title = "PACS"\n'
        f'host = "127.0.0.1"\nport = {pacs.port}\ntimeout_s = 60.0\n'
    )


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_help_has_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"scp-node {command}" in text
    assert "exit code" in text


def test_config_example_is_a_loadable_file(capsys):
    assert main(["config", "example"]) == 0
    tomllib.loads(capsys.readouterr().out)


def test_config_check_and_show(tmp_path, capsys):
    file = configure(tmp_path, '[receiver]\nae_title = "NODE7"\n[database]\nurl = "postgresql://n:geheim@db/n"\n')
    assert main(["config", "check", "--config", file]) == 0
    assert "can be used (NODE7 on 127.0.0.1:11112" in capsys.readouterr().out
    assert main(["config", "show", "--config", file]) == 0
    shown = capsys.readouterr().out
    assert tomllib.loads(shown)["receiver"]["ae_title"] == "NODE7"
    assert "geheim" not in shown


def test_a_wrong_configuration_is_one_sentence_and_code_2(tmp_path, capsys):
    file = configure(tmp_path, "[receiver]\nprot = 1\n")
    for command in (["config", "check"], ["echo", "pacs"], ["serve"], ["jobs", "list"], ["doctor"], ["analyze", "x"]):
        assert main([*command, "--config", file]) == 2
        captured = capsys.readouterr()
        assert captured.err == f"scp-node: {file}: receiver.prot: unknown key; did you mean port?\n"
        assert captured.out == ""


def test_echo_by_name_and_by_address(tmp_path, capsys):
    with StandInPacs(tmp_path / "pacs") as pacs:
        file = configure(tmp_path, pacs_table(pacs))
        assert main(["echo", "pacs", "--config", file]) == 0
        assert "0x0000" in capsys.readouterr().out
        assert main(["echo", f"PACS@127.0.0.1:{pacs.port}"]) == 0


@UNCLOSED
def test_echo_of_nobody_is_code_1_and_a_sentence_on_standard_error(tmp_path, capsys):
    with StandInPacs(tmp_path / "pacs") as pacs:
        port = pacs.port
    assert main(["echo", f"PACS@127.0.0.1:{port}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "connection refused" in captured.err


def test_echo_of_a_folder(tmp_path, capsys):
    file = configure(tmp_path, f'[[destinations]]\nname = "files"\nkind = "folder"\nfolder = "{tmp_path / "out"}"\n')
    assert main(["echo", "files", "--config", file]) == 0
    assert "can be written" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nowhere", "PACS@host", "PACS@host:0", "A_TITLE_THAT_IS_TOO_LONG@host:104"])
def test_echo_of_an_unknown_name_is_code_2(name, capsys):
    assert main(["echo", name]) == 2
    assert name in capsys.readouterr().err


def test_echo_never_imports_torch(tmp_path):
    """With a real association, not only for its help."""
    program = (
        "import sys; from scp_node.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'torchvision', 'highdicom', 'dbos', 'cv2'} & set(sys.modules)))"
    )
    with StandInPacs(tmp_path / "pacs") as pacs:
        done = subprocess.run(
            [sys.executable, "-c", program, "echo", f"PACS@127.0.0.1:{pacs.port}"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.splitlines()[-1] == "0 []"


def doctor(capsys, *arguments: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    code = main(["doctor", "--json", *arguments])
    found: dict[str, list[tuple[str, str]]] = {}
    for line in capsys.readouterr().out.splitlines():
        finding = json.loads(line)
        found.setdefault(finding["check"], []).append((finding["level"], finding["detail"]))
    return code, found


def test_doctor_is_content_with_a_node_that_can_start(tmp_path, capsys, random_checkpoints):
    with StandInPacs(tmp_path / "pacs") as pacs:
        text = f'[spool]\nminimum_free_bytes = 0\n[analysis]\ncheckpoints = "{random_checkpoints}"\n'
        code, found = doctor(capsys, "--config", configure(tmp_path, text + pacs_table(pacs)))
    assert code == 0, found
    assert [level for level, _ in found["model resnet18"]] == ["ok"]
    details = " | ".join(detail for _, detail in found["destination pacs"])
    assert "answered 0x0000" in details
    assert "takes pictures: Secondary Capture Image Storage" in details
    assert "Comprehensive 3D SR" in details
    assert "Basic Text SR" in details
    assert "pydicom 3" in found["versions"][0][1]
    assert not (tmp_path / "scp-node-data").exists()


@UNCLOSED
def test_doctor_names_what_is_wrong(tmp_path, capsys, random_checkpoints):
    broken = tmp_path / "checkpoints"
    for model in ("resnet18", "efficientnet_b0"):
        (broken / model).mkdir(parents=True)
        for part in ("model.json", "weights.safetensors"):
            (broken / model / part).write_bytes((random_checkpoints / model / part).read_bytes())
    with (broken / "resnet18" / "weights.safetensors").open("ab") as weights:
        weights.write(b"\0")
    with StandInPacs(tmp_path / "dead") as dead:
        gone = pacs_table(dead, "gone")
    with StandInPacs(tmp_path / "pacs", sop_classes=["1.2.840.10008.5.1.4.1.1.7"]) as pacs:
        text = f'[spool]\nminimum_free_bytes = {2**62}\n[analysis]\ncheckpoints = "{broken}"\n'
        code, found = doctor(capsys, "--config", configure(tmp_path, text + pacs_table(pacs) + gone))
    assert code == 1
    assert found["disk"][0][0] == "failed"
    assert found["model resnet18"][0][0] == "failed"
    assert "SHA-256" in found["model resnet18"][0][1]
    assert found["model efficientnet_b0"][0][0] == "ok"
    assert found["model densenet121"][0][0] == "failed"
    assert found["destination gone"][0][0] == "failed"
    levels = {detail.split(":")[0]: level for level, detail in found["destination pacs"]}
    assert levels["takes pictures"] == "ok"
    assert levels["takes no measurement reports"] == "failed"
    assert levels["takes no text summaries"] == "failed"


def test_doctor_finds_a_running_receiver(tmp_path, capsys):
    """Any SCP on the receiver's address that answers C-ECHO."""
    with StandInPacs(tmp_path / "pacs", ae_title="SCP_NODE") as pacs:
        file = configure(tmp_path, f"[receiver]\nport = {pacs.port}\n")
        # Asked with a short time-out: once more when this machine was busy.
        levels = (doctor(capsys, "--config", file)[1]["receiver"][0][0] for _ in range(5))
        assert "ok" in levels


def test_jobs_without_a_database_is_a_sentence(capsys):
    assert main(["jobs", "list"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no database" in captured.err
    assert not Path("scp-node-data").exists()


def test_a_reader_that_goes_away_is_no_traceback():
    program = Path(sys.executable).with_name("scp-node")
    process = subprocess.Popen(
        [program, "config", "example"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()  # long before the program has started to write
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert error == ""


def test_tables_show_no_control_characters_from_outside(monkeypatch):
    from scp_node.cli.output import console, table

    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    from scp_node.cli.output import cell

    made = table("[red]title\x1b[2J", "A")
    made.add_row(cell("evil\x1b[31m\r\nrow [bold]"))
    console().print(made)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "[bold]" in text
    assert "evil\\x1b[31m\\r\\nrow" in text


def test_settings_have_no_other_secret():
    """Whoever adds a password, token or key to the settings must add it to SECRET_KEYS too."""

    def keys(section, path=""):
        for name, field in section.model_fields.items():
            inner = field.annotation
            if hasattr(inner, "model_fields"):
                yield from keys(inner, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    from config.load import SECRET_KEYS

    suspicious = {key for key in keys(NodeSettings) if any(word in key for word in ("password", "token", "secret"))}
    assert suspicious <= SECRET_KEYS
