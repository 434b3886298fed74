"""What the checks of `scp-node doctor` say of an installation."""

from importlib.metadata import PackageNotFoundError

from config.settings import NodeSettings
from scp_node.cli import checks


def test_an_installation_without_pytorch_is_no_fault(monkeypatch):
    def version(package):
        if package == "torch":
            raise PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(checks, "version", version)
    for runtime, level in (("auto", "note"), ("torch", "failed")):
        settings = NodeSettings.model_validate({"analysis": {"runtime": runtime}})
        found = list(checks.versions(settings))
        assert [(one.level, one.detail[:30]) for one in found][:1] == [(level, "package torch is not installed")]


def test_doctor_tells_the_threshold_of_the_site(random_checkpoints):
    settings = NodeSettings.model_validate(
        {
            "analysis": {
                "checkpoints": str(random_checkpoints),
                "models": ["resnet18"],
                "thresholds": {"resnet18": 0.31},
            }
        }
    )
    (found,) = checks.models(settings)
    assert "threshold of this site 0.31 (0.25 in the manifest)" in found.detail
