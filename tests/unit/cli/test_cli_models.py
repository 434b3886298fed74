"""`scp-node models`: what is listed, what is refused, and without torch."""

import json
import shutil
import subprocess
import sys

import pytest

from inference.models.catalog import find_model
from inference.models.checkpoint import read_manifest
from scp_node.cli.main import main


@pytest.fixture
def folder(random_checkpoints, tmp_path):
    """A copy of the checkpoints, to be damaged or added to."""
    return shutil.copytree(random_checkpoints, tmp_path / "checkpoints")


@pytest.fixture
def weights(tmp_path):
    """A weights file as the owners of the first version have it."""
    import torch

    file = tmp_path / "251115_resnet18_NP.pth"
    torch.save(find_model("resnet18").architecture.build().state_dict(), file)
    return file


def test_list_shows_every_model_verified(random_checkpoints, capsys):
    assert main(["models", "list", "--checkpoints", str(random_checkpoints)]) == 0
    shown = capsys.readouterr().out
    for name, title, threshold in (
        ("resnet18", "ResNet18", "0.25"),
        ("efficientnet_b0", "EfficientNet-B0", "0.15"),
        ("densenet121", "DenseNet121", "0.18"),
    ):
        manifest = read_manifest(random_checkpoints / name)
        for text in (name, title, threshold, "0.0.1", "224x224", "auto", manifest.weights_sha256[:12]):
            assert text in shown
    assert "verified" in shown


def test_list_json_is_one_object_per_model(random_checkpoints, capsys):
    assert main(["models", "list", "--json", "--checkpoints", str(random_checkpoints)]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [fields["name"] for fields in objects] == ["resnet18", "efficientnet_b0", "densenet121"]
    assert objects[0]["weights_sha256"] == read_manifest(random_checkpoints / "resnet18").weights_sha256
    assert objects[0]["input"] == {"rows": 224, "columns": 224}
    assert objects[0]["preprocessing"] == "auto;224x224;mean=0.5;std=0.25"
    assert all(fields["is_configured"] for fields in objects)


def test_altered_weights_and_a_missing_model_are_named_and_the_rest_is_listed(folder, capsys):
    with (folder / "resnet18" / "weights.safetensors").open("ab") as stream:
        stream.write(b"\0")
    shutil.rmtree(folder / "densenet121")
    assert main(["models", "list", "--json", "--checkpoints", str(folder)]) == 1
    output = capsys.readouterr()
    assert [json.loads(line)["name"] for line in output.out.splitlines()] == ["efficientnet_b0"]
    assert "checkpoint resnet18: weights.safetensors has SHA-256" in output.err
    assert "checkpoint densenet121: cannot read" in output.err
    assert output.err.count("\n") == 2


def test_a_missing_folder_is_named(tmp_path, capsys):
    assert main(["models", "list", "--checkpoints", str(tmp_path / "none")]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_imported_weights_are_listed_and_verified(folder, weights, capsys):
    arguments = [
        "--architecture",
        "resnet18",
        "--name",
        "resnet18-np",
        "--threshold",
        "0.25",
        "--preprocessing",
        "seed",
    ]
    assert main(["models", "import", str(weights), *arguments, "--checkpoints", str(folder)]) == 0
    assert "resnet18-np: imported to" in capsys.readouterr().out
    manifest = read_manifest(folder / "resnet18-np")
    assert manifest.preprocessing == "seed;224x224;mean=0.485,0.456,0.406;std=0.229,0.224,0.225"
    assert main(["models", "list", "--json", "--checkpoints", str(folder)]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["name"] == "resnet18-np"
    assert not last["is_configured"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--architecture": "densenet121"}, "these are weights of resnet18"),
        ({"--threshold": "2"}, "threshold 2.0"),
        ({"--name": "resnet18"}, "exists already"),
        ({"--size": "8"}, "too small"),
        ({"file": "/dev/null"}, "is empty"),
    ],
)
def test_a_refused_import_says_why_in_one_sentence_and_leaves_nothing(folder, weights, capsys, changed, says):
    before = sorted(folder.rglob("*"))
    options = {"--architecture": "resnet18", "--name": "mine", "--threshold": "0.25", "--checkpoints": str(folder)}
    options |= {key: value for key, value in changed.items() if key != "file"}
    file = changed.get("file", str(weights))
    assert main(["models", "import", file, *(word for pair in options.items() for word in pair)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert says in output.err
    assert output.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_listing_loads_no_torch(random_checkpoints):
    code = (
        "import sys; from scp_node.cli.main import main\n"
        f"code = main(['models', 'list', '--checkpoints', {str(random_checkpoints)!r}])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_compile_says_what_runs_each_model(random_checkpoints, cache_folder, capsys):
    assert main(["models", "compile", "--checkpoints", str(random_checkpoints)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"{name}: openvino float32" for name in ("resnet18", "efficientnet_b0", "densenet121")
    ]
    assert any(cache_folder.glob("densenet121-*/model.bin"))


def test_compile_names_a_checkpoint_that_is_not_there(tmp_path, capsys):
    assert main(["models", "compile", "--checkpoints", str(tmp_path)]) == 1
    assert "checkpoint resnet18: cannot read" in capsys.readouterr().err
