"""Configuration from file and environment: precedence, and refusals that name key and place."""

import json
import re
from pathlib import Path

import pytest

from config.analysis import Polarity
from config.base import SPELLINGS, Priority
from config.load import ConfigError, load
from config.settings import NodeSettings


def write(folder: Path, text: str) -> Path:
    file = folder / "node.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refusal(file: Path | None, environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_gives_the_defaults():
    assert load(None, {"PATH": "/bin", "SCP_NODE": "ignored"}) == NodeSettings()


def test_file_values_are_used(tmp_path):
    file = write(
        tmp_path,
        """
        [receiver]
        port = 104
        bind = "0.0.0.0"
        callers = [{ ae_title = "CT1", addresses = ["10.0.0.0/8"], priority = "stat" }]
        [analysis]
        polarity = "shape"
        time_limit_s = 60
        thresholds = { resnet18 = 0.3 }
        [[destinations]]
        name = "pacs"
        kind = "dicom"
        ae_title = "PACS"
        host = "localhost"
        port = 4242
        [[destinations]]
        name = "files"
        kind = "folder"
        folder = "out"
        """,
    )
    settings = load(file, {})
    assert settings.receiver.port == 104
    assert settings.receiver.callers[0].priority is Priority.STAT
    assert settings.analysis.polarity is Polarity.SHAPE
    assert settings.analysis.time_limit_s == 60.0
    assert settings.analysis.thresholds == {"resnet18": 0.3}
    assert [d.kind for d in settings.destinations] == ["dicom", "folder"]
    assert settings.destinations[1].folder == Path("out")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("variable", "value", "key", "expected"),
    [
        ("RECEIVER__PORT", "104", "receiver.port", 104),
        ("RECEIVER__AE_TITLE", "NODE2", "receiver.ae_title", "NODE2"),
        ("RECEIVER__AE_TITLE", "123", "receiver.ae_title", "123"),
        ("SPOOL__FOLDER", "/data", "spool.folder", Path("/data")),
        ("ANALYSIS__CHECKPOINTS", "", "analysis.checkpoints", None),
        ("ANALYSIS__CHECKPOINTS", "mine", "analysis.checkpoints", Path("mine")),
        ("ANALYSIS__ELIGIBILITY__REQUIRE_CHEST", "false", "analysis.eligibility.require_chest", False),
        ("ANALYSIS__MODELS", '["resnet18"]', "analysis.models", ("resnet18",)),
        ("ANALYSIS__THRESHOLDS", '{"resnet18": 0.5}', "analysis.thresholds", {"resnet18": 0.5}),
        ("ANALYSIS__POLARITY", "photometric", "analysis.polarity", Polarity.PHOTOMETRIC),
        ("RESULTS__SECONDARY_CAPTURE__ALPHA", "0.25", "results.secondary_capture.alpha", 0.25),
        ("DELIVERY__FIRST_DELAY_S", "1e1", "delivery.first_delay_s", 10.0),
        ("LOGGING__FORMAT", "json", "logging.format", "json"),
    ],
)
def test_every_kind_of_key_can_come_from_the_environment_and_wins(tmp_path, variable, value, key, expected):
    file = write(tmp_path, '[receiver]\nport = 105\nae_title = "FILE"\n')
    found: object = load(file, {f"SCP_NODE__{variable}": value})
    for part in key.split("."):
        found = getattr(found, part)
    assert found == expected


def test_destinations_come_from_the_environment_as_json():
    pacs = {"name": "pacs", "kind": "dicom", "ae_title": "PACS", "host": "h", "port": 104}
    settings = load(None, {"SCP_NODE__DESTINATIONS": json.dumps([pacs])})
    assert settings.destinations[0].name == "pacs"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[receiver]\nprot = 1\n", ["receiver.prot", "unknown key", "port"]),
        ("[reciever]\nport = 1\n", ["reciever", "unknown key"]),
        ("[receiver]\nport = 'many'\n", ["receiver.port", "integer", "'many'"]),
        ("[receiver]\nport = '104'\n", ["receiver.port", "integer", "'104'"]),
        ("[receiver]\nport = 99999\n", ["receiver.port", "65535", "99999"]),
        ("[receiver]\nbind = '0.0.0.0'\n", ["receiver", "callers must list who may connect"]),
        ("[analysis]\nthresholds = { vgg = 0.5 }\n", ["analysis", "vgg"]),
        ("[[destinations]]\nname = 'a'\n", ["destinations[0]", "kind is missing"]),
        (
            "[[destinations]]\nname = 'a'\nkind = 'dicom'\nae_title = 'A'\nhost = 'h'\n",
            ["destinations[0].port", "is missing"],
        ),
        ("[[destinations]]\nname = 'a'\nkind = 'ftp'\n", ["destinations[0]", "ftp"]),
        ("port = \n", ["no valid TOML", "line 1"]),
        ("[logging]\nlevel = 'LOUD'\n", ["logging.level", "'LOUD'"]),
        ("[spool]\nretention_days = 2026-01-01\n", ["spool.retention_days"]),
    ],
)
def test_a_bad_file_is_refused_naming_file_and_key(tmp_path, text, parts):
    file = write(tmp_path, text)
    message = refusal(file, {})
    assert message.startswith(f"{file}: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("SCP_NODE__RECEIVER__PROT", "1", ["no such setting", "did you mean SCP_NODE__RECEIVER__PORT"]),
        ("SCP_NODE__", "1", ["no such setting"]),
        ("SCP_NODE__RECEIVER__PORT__X", "1", ["no such setting"]),
        ("SCP_NODE__RECEIVER", "{}", ["whole section"]),
        ("SCP_NODE__RECEIVER__PORT", "many", ["integer", "'many'"]),
        ("SCP_NODE__RECEIVER__PORT", "0", ["greater than or equal to 1"]),
        ("SCP_NODE__RECEIVER__BIND", "0.0.0.0", ["callers must list who may connect"]),  # noqa: S104
        ("SCP_NODE__ANALYSIS__MODELS", "resnet18", ["no valid JSON"]),
        ("SCP_NODE__ANALYSIS__MODELS", '"resnet18"', ["analysis.models"]),
        ("SCP_NODE__DESTINATIONS", '[{"name": "A B"}]', ["destinations[0]"]),
        ("SCP_NODE__ANALYSIS__DEVICE", "tpu", ["'tpu'"]),
    ],
)
def test_a_bad_variable_is_refused_by_name(variable, value, parts):
    message = refusal(None, {variable: value})
    assert message.startswith(f"environment variable {variable}: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize("place", ["file", "environment"])
def test_a_password_never_shows_in_a_refusal(tmp_path, place):
    url = "mysql://node:hunter2@db/node"
    if place == "file":
        message = refusal(write(tmp_path, f'[database]\nurl = "{url}"\n'), {})
    else:
        message = refusal(None, {"SCP_NODE__DATABASE__URL": url})
    assert "sqlite:///" in message
    assert "hunter2" not in message


def test_an_unreadable_file_is_one_sentence(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.toml", {})
    assert "Is a directory" in refusal(tmp_path, {})
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[receiver]\nae_title = "\xe9"\n')
    assert "UTF-8" in refusal(latin, {})


def test_every_error_is_named(tmp_path):
    """Who mends one after the other would start the node as often."""
    file = tmp_path / "node.toml"
    file.write_text('[receiver]\nport = 99999\nacse_timeout_s = "soon"\n')
    environ = {"SCP_NODE__SPOOL__COLOUR": "red", "SCP_NODE__RECEIVER__AE_TITLE": "\\", "SCP_NODE__CONSOLE__PORT": "1"}
    with pytest.raises(ConfigError) as caught:
        load(file, environ)
    said = [
        ("SCP_NODE__RECEIVER__AE_TITLE", "must be 1 to 16 ASCII characters, no backslash, not only blanks"),
        ("SCP_NODE__SPOOL__COLOUR", "there is no such setting"),
        (str(file), "receiver.port: input should be less than or equal to 65535, got 99999"),
        (str(file), "receiver.acse_timeout_s: input should be a valid number"),
    ]
    assert len(caught.value.sentences) == len(said)
    for place, what in said:
        assert any(place in sentence and what in sentence for sentence in caught.value.sentences)


def test_no_error_shows_a_pattern():
    """Each is told in words."""
    schema = json.dumps(NodeSettings.model_json_schema())
    patterns = set(re.findall(r'"pattern": ("(?:[^"\\\\]|\\\\.)*")', schema))
    assert patterns
    assert {json.loads(pattern) for pattern in patterns} <= set(SPELLINGS)
