"""`scp-node models`: list the checkpoints of a folder and verify their weights, compile them, import foreign ones."""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import CheckpointError, InferenceError
from inference.models.checkpoint import Manifest, default_folder, read_manifest, verify_weights
from inference.records import RenderRule
from scp_node.cli.main import FAILED, OK, USAGE, fail
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, table, write_json

if TYPE_CHECKING:
    from config.analysis import AnalysisSettings
    from scp_node.cli.options import Subparsers

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "node": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation that are subtracted from, and divide, values in [0, 1]."""


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``models list|compile|import``."""
    parser = add_command(
        subparsers,
        "models",
        summary="list the models and check their weights, compile or import them",
        description="""
            List the models of a checkpoint folder and verify their weights, compile them for this machine ahead of the
            first start, or import a PyTorch state dict.
        """,
        examples="""
            scp-node models list
            scp-node models list --json --checkpoints /srv/checkpoints
            scp-node models compile --config node.toml
            scp-node models import 251115_resnet18_NP.pth --architecture resnet18 --name resnet18-np --threshold 0.25 \\
                --checkpoints /srv/checkpoints --preprocessing seed
        """,
    )
    actions = parser.add_subparsers(dest="action", metavar="list|compile|import", required=True)
    listing = actions.add_parser("list", help="show every model of a folder and verify its weights")
    listing.add_argument("--json", action="store_true", help="one JSON object per model and line")
    compiling = actions.add_parser("compile", help="load the configured models as the node does, compiling what is new")
    importing = actions.add_parser("import", help="convert a torchvision state dict with one output")
    importing.add_argument(
        "file", metavar="FILE", type=Path, help="weights as torch.save(model.state_dict()) writes them"
    )
    importing.add_argument("--architecture", required=True, help="resnet18, efficientnet_b0, densenet121 or one added")
    importing.add_argument("--name", required=True, help="name of the model: a-z, 0-9, _ and -; becomes its folder")
    importing.add_argument("--threshold", required=True, type=float, help="operating point, between 0 and 1")
    importing.add_argument(
        "--preprocessing",
        choices=[rule.value for rule in RenderRule],
        default=RenderRule.AUTO.value,
        help="how radiographs were rendered for training (default: auto)",
    )
    importing.add_argument(
        "--normalisation",
        choices=tuple(NORMALISATIONS),
        default="imagenet",
        help="mean and standard deviation in training (default: imagenet)",
    )
    importing.add_argument("--size", type=int, default=224, help="rows and columns of the input (default: 224)")
    importing.add_argument("--title", help="for reports and pictures (default: the name)")
    importing.add_argument("--weights-version", help="for reports (default: from the file's SHA-256)")
    importing.add_argument("--training-data", default="not stated (imported weights)", help="what it was trained on")
    for action in (listing, compiling, importing):
        action.add_argument(
            "--checkpoints",
            metavar="DIR",
            type=Path,
            help="folder of checkpoints (default: analysis.checkpoints, or the one shipped with the node)",
        )
        add_config(action)


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    settings = settings_of(args).analysis
    folder: Path = args.checkpoints or settings.checkpoints or default_folder()
    if args.action == "compile":
        return _compile(settings.model_copy(update={"checkpoints": folder}))
    return _list(folder, settings.models, args.json) if args.action == "list" else _import(folder, args)


def _list(folder: Path, configured: tuple[str, ...], as_json: bool) -> int:
    if not folder.is_dir():
        return fail(f"no folder of checkpoints at {folder}")
    present = {file.parent.name for file in folder.glob("*/model.json")}
    manifests: list[Manifest] = []
    faults: list[str] = []
    for name in (*configured, *sorted(present - set(configured))):
        try:
            manifest = read_manifest(folder / name)
            verify_weights(folder / name, manifest)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            manifests.append(manifest)
    if as_json:
        for manifest in manifests:
            write_json(_fields(manifest, folder, manifest.name in configured))
    elif manifests:
        _print(manifests, folder, configured)
    for fault in faults:
        fail(fault)
    return FAILED if faults else OK


def _compile(settings: "AnalysisSettings") -> int:
    from inference.ensemble import LoadedEnsemble

    for name in settings.models:
        began = time.monotonic()
        try:
            (runtime_name,) = LoadedEnsemble(settings.model_copy(update={"models": (name,)})).runtime_names
        except InferenceError as error:
            return fail(str(error))
        console().print(cell(f"{name}: {runtime_name}, loaded in {time.monotonic() - began:.1f} s"))
    return OK


def _print(manifests: list[Manifest], folder: Path, configured: tuple[str, ...]) -> None:
    columns = ("Name", "Title", "Version", ">Threshold", ">Input", "Rule", "SHA-256", "In use")
    listed = table("", *columns, caption=f"{folder}; all weights shown are verified")
    for manifest in manifests:
        size = f"{manifest.input.rows}x{manifest.input.columns}"
        texts = (manifest.name, manifest.title, manifest.version, f"{manifest.threshold:g}", size, manifest.rule.value)
        use = "yes" if manifest.name in configured else "no"
        listed.add_row(*(cell(text) for text in (*texts, manifest.weights_sha256[:12], use)))
    console().print(listed)


def _fields(manifest: Manifest, folder: Path, is_configured: bool) -> dict[str, object]:
    return {
        "name": manifest.name,
        "title": manifest.title,
        "version": manifest.version,
        "architecture": manifest.architecture,
        "threshold": manifest.threshold,
        "input": {"rows": manifest.input.rows, "columns": manifest.input.columns},
        "rule": manifest.rule.value,
        "preprocessing": manifest.preprocessing,
        "weights_sha256": manifest.weights_sha256,
        "training_data": manifest.training_data,
        "created": manifest.created.isoformat(),
        "folder": str(folder / manifest.name),
        "is_configured": is_configured,
    }


def _import(folder: Path, args: argparse.Namespace) -> int:
    from inference.models.importing import import_weights
    from inference.models.preprocess import InputSpec

    mean, std = NORMALISATIONS[args.normalisation]
    try:
        manifest = import_weights(
            args.file,
            folder,
            name=args.name,
            architecture=args.architecture,
            threshold=args.threshold,
            created=datetime.now(UTC).date(),
            rule=RenderRule(args.preprocessing),
            input_spec=InputSpec(rows=args.size, columns=args.size, mean=mean, std=std),
            title=args.title,
            version=args.weights_version,
            training_data=args.training_data,
        )
    except (CheckpointError, ValueError) as refusal:
        return fail(str(refusal), USAGE)
    console().print(
        cell(
            f"{manifest.name}: imported to {folder / manifest.name} (SHA-256 {manifest.weights_sha256[:12]}). "
            f'To use it: analysis.models = ["{manifest.name}"] and analysis.checkpoints = "{folder}"'
        )
    )
    return OK
