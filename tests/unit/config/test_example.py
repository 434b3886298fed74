"""The example configuration and the shown configuration are the settings, no more and no less."""

import re
import tomllib
from pathlib import Path

from config.load import load
from config.settings import NodeSettings
from config.write import example, in_use

EXAMPLE = Path(__file__).parents[3] / "config" / "node.example.toml"


def test_the_example_file_is_what_the_settings_say():
    """Regenerate it with `scp-node config example > config/node.example.toml`."""
    assert EXAMPLE.read_text(encoding="utf-8") == example()


def test_the_example_loads_and_equals_the_defaults():
    assert load(EXAMPLE, {}) == NodeSettings()


def test_every_default_is_written_in_the_example():
    """Not only loads to the defaults: no key is left to them."""
    written = tomllib.loads(example())
    dumped = NodeSettings().model_dump(mode="json", exclude_none=True)
    dumped["receiver"].pop("callers")
    dumped["console"].pop("users")
    dumped.pop("destinations")
    assert written == dumped


def test_commented_samples_can_be_used_as_they_stand(tmp_path):
    """Removing one comment sign from every sample gives a configuration with callers and both kinds of destination."""
    text = re.sub(r"^# (\[\[|[a-z_]+ = )", r"\1", example(), flags=re.MULTILINE)
    file = tmp_path / "all.toml"
    file.write_text(text, encoding="utf-8")
    settings = load(file, {})
    assert settings.receiver.callers[0].ae_title == "PACS"
    assert [d.kind for d in settings.destinations] == ["dicom", "folder"]
    assert settings.analysis.checkpoints is not None
    assert settings.console.users[0].name == "anna"


def test_what_is_shown_loads_to_the_same_settings(tmp_path):
    environ = {
        "SCP_NODE__DESTINATIONS": '[{"name": "p", "kind": "dicom", "ae_title": "P", "host": "h", "port": 104}]',
        "SCP_NODE__RECEIVER__CALLERS": '[{"ae_title": "A\\"B", "priority": "stat"}]',
        "SCP_NODE__ANALYSIS__THRESHOLDS": '{"resnet18": 0.5}',
    }
    settings = load(None, environ)
    file = tmp_path / "shown.toml"
    file.write_text(in_use(settings), encoding="utf-8")
    assert load(file, {}) == settings


def test_a_password_is_hidden():
    for url in (
        "postgresql+psycopg://node:hun:t@er2@db/node",
        "postgresql://db/node?user=n&password=hunt@er2",
    ):
        shown = in_use(load(None, {"SCP_NODE__DATABASE__URL": url}))
        assert "er2" not in shown
        assert "***" in shown
        assert "db/node" in shown
