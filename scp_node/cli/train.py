"""`scp-node train`: train one model from random or known weights, resume a run, and export it as a checkpoint."""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from inference.errors import CheckpointError
from inference.models.catalog import MODELS, ModelSpec
from inference.models.checkpoint import load_network, read_manifest
from inference.training import metrics
from inference.training.dataset import LabelledImage, load_images, read_splits
from inference.training.evaluate import groups
from inference.training.recipe import Recipe, RunError, read_recipe, recipe_of
from scp_node.cli.options import add_command

if TYPE_CHECKING:
    from torch import Tensor

    from inference.training.fit import Fit
    from scp_node.cli.options import Subparsers

VALIDATION_FILE = "val.jsonl"
"""In the run folder: what each epoch's averaged weights reach, to watch."""


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``train``."""
    parser = add_command(
        subparsers,
        "train",
        summary="train a model",
        description="""
            Train one model from random weights or from those of a checkpoint, calibrate it and export it as a
            checkpoint folder. A CUDA device is used where there is one. Each finished epoch is kept in the run folder;
            the same command goes on after an interruption, with the same outcome.

            DIR holds labels.csv (columns file, label and split, which is train or val) and the images. The checkpoints
            of the node are not touched unless --checkpoints names their folder.
        """,
        examples="""
            scp-node train --model resnet18 --data cxr                  in runs/resnet18
            scp-node train --model resnet18 --data cxr --export-only    the last finished epoch, as it is
            scp-node train --model resnet18 --data cxr --run runs/quick --stages 2x96,1x128
            scp-node train --model resnet18 --data site --run runs/site --from checkpoints/resnet18 --stages 4x224
        """,
    )
    names = [spec.name for spec in MODELS]
    parser.add_argument("--model", required=True, choices=names, help=f"one of {', '.join(names)}", metavar="NAME")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder with labels.csv and the images")
    parser.add_argument("--run", type=Path, metavar="DIR", help="run folder, resumed if it is there (runs/NAME)")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="where to export to (RUN/checkpoints)")
    parser.add_argument("--version", metavar="TEXT", help="version of the weights (date of the export)")
    parser.add_argument(
        "--epochs", type=_positive, metavar="N", help="stop after N epochs of the run; the next call goes on"
    )
    parser.add_argument("--export-only", action="store_true", help="train nothing, export the last finished epoch")
    recipe = parser.add_argument_group("recipe", "what differs from the model's own recipe; fixed when a run begins")
    recipe.add_argument(
        "--from", type=Path, dest="origin", metavar="DIR", help="checkpoint folder whose weights the run begins with"
    )
    recipe.add_argument("--stages", type=_stages, metavar="NxPX,...", help="epochs and input size, 9x96,6x128,2x224")
    recipe.add_argument("--samples-per-epoch", type=int, metavar="N")
    recipe.add_argument("--batch-size", type=int, metavar="N")
    recipe.add_argument("--learning-rate", type=float, metavar="X")
    recipe.add_argument("--seed", type=int, metavar="N")
    recipe.add_argument("--threads", type=int, metavar="N", help="of torch on the CPU; may change between calls")


def run(args: argparse.Namespace) -> int:
    """Train what is left of the run, then export it."""
    try:
        return _run(args)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a folder that may not be written
        raise RunError(f"{error.filename or args.run or args.model}: {error.strerror or error}") from error


def _run(args: argparse.Namespace) -> int:
    from inference.training.fit import Fit

    console = Console(stderr=True)
    spec = next(spec for spec in MODELS if spec.name == args.model)
    folder: Path = args.run or Path("runs") / spec.name
    training, validation = read_splits(args.data)
    if not args.export_only:
        initial = None if args.origin is None else _weights(args.origin, spec)
        recipe = _recipe(args, folder)
        with closing(Fit(spec.architecture, training, folder, recipe, initial)) as fit:
            console.print(
                f"{spec.title} on {fit.device}: {len(training)} images, epochs {fit.epoch + 1} to {recipe.epochs}"
                if fit.epoch < recipe.epochs
                else f"{folder}: all {recipe.epochs} epochs are trained"
            )
            _train(fit, recipe, validation=validation, folder=folder, console=console, until=args.epochs)
        if fit.epoch < recipe.epochs:
            console.print(f"epoch {fit.epoch} of {recipe.epochs} is finished; the same command goes on")
            return 0
    return _export(args, spec, folder, training=training, validation=validation, console=console)


def _train(
    fit: "Fit",
    recipe: Recipe,
    *,
    validation: Sequence[LabelledImage],
    folder: Path,
    console: Console,
    until: int | None,
) -> None:
    pictures: dict[int, NDArray[np.uint8]] = {}
    steps = fit.steps_per_epoch
    with _progress(console) as progress:
        task = progress.add_task("training", total=recipe.epochs * steps, completed=fit.epoch * steps)

        def advance(epoch: int, step: int, loss: float) -> None:
            text = f"epoch {epoch + 1}/{recipe.epochs}  {recipe.size(epoch)} px  loss {loss:.3f}"
            progress.update(task, completed=epoch * steps + step, description=text)

        def report(record: dict[str, float]) -> None:
            size = int(record["size"])
            if size not in pictures:
                pictures.clear()
                pictures[size] = load_images(validation, size)
            aucs = _aucs(fit.logits(pictures[size]), validation)
            with (folder / VALIDATION_FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps(record | aucs) + "\n")
            told = "  ".join(f"{title} {value:.3f}" for title, value in aucs.items())
            console.print(
                f"epoch {record['epoch']:.0f}  {size} px  loss {record['loss']:.4f}  {record['duration_s']:.0f} s"
                f"  {told}",
                highlight=False,
                soft_wrap=True,
            )

        fit.run(report, advance, until)


def _aucs(logits: NDArray[np.float32], rows: Sequence[LabelledImage]) -> dict[str, float]:
    """AUC per source and kind of label, at the size being trained; to watch, not to report."""
    return {
        group.title: metrics.auc(logits[group.indices].astype(np.float64), group.truth)
        for group in groups(rows)
        if group.truth.any() and not group.truth.all()
    }


def _export(
    args: argparse.Namespace,
    spec: ModelSpec,
    folder: Path,
    *,
    training: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    console: Console,
) -> int:
    from inference.training.export import export

    checkpoints: Path = args.checkpoints or folder / "checkpoints"
    recipe = read_recipe(folder)
    if recipe is None:
        raise RunError(f"{folder} holds no run (no recipe.json)")
    with _progress(console) as progress:
        total = round(1.2 * sum(row.is_confirmed for row in validation))
        task = progress.add_task("calibrating", total=total)
        manifest = export(
            folder,
            spec,
            training=training,
            validation=validation,
            checkpoints=checkpoints,
            command=_command(spec, recipe),
            version=args.version,
            advance=lambda: progress.advance(task),
        )
    console.print(
        f"{checkpoints / spec.name}: version {manifest.version}, threshold {manifest.threshold:g}, "
        f"SHA-256 {manifest.weights_sha256}\nmeasure it: scp-node evaluate --data {shlex.quote(str(args.data))} "
        f"--split val --checkpoints {shlex.quote(str(checkpoints))} --model {spec.name}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _recipe(args: argparse.Namespace, folder: Path) -> Recipe:
    """The recipe of the run that is there, else the model's own; with what the command line says."""
    named = ("stages", "samples_per_epoch", "batch_size", "learning_rate", "seed", "threads")
    changes = {key: value for key in named if (value := getattr(args, key)) is not None}
    if args.origin is not None:
        changes["begins_from"] = read_manifest(args.origin).weights_sha256
    try:
        return replace(read_recipe(folder) or recipe_of(args.model), **changes)
    except ValueError as error:
        raise RunError(str(error)) from error


def _weights(folder: Path, spec: ModelSpec) -> "Mapping[str, Tensor]":
    """The weights of a checkpoint folder, verified; raises CheckpointError also where they are of another network."""
    manifest = read_manifest(folder)
    if manifest.architecture != spec.architecture.name:
        detail = f"its weights are of architecture {manifest.architecture}, not {spec.architecture.name}"
        raise CheckpointError(manifest.name, detail)
    return load_network(folder, manifest).state_dict()


def _command(spec: ModelSpec, recipe: Recipe) -> str:
    """The command that trains by a recipe; what it cannot say is in the recipe.json it names."""
    words = ["scp-node", "train", "--model", spec.name, "--data", "DIR"]
    own = recipe_of(spec.name)
    if recipe.begins_from:
        words += ["--from", f"CHECKPOINT-{recipe.begins_from[:12]}"]
    if recipe.stages != own.stages:
        words += ["--stages", ",".join(f"{epochs}x{size}" for epochs, size in recipe.stages)]
    for key in ("samples_per_epoch", "batch_size", "learning_rate", "seed", "threads"):
        if getattr(recipe, key) != getattr(own, key):
            words += ["--" + key.replace("_", "-"), str(getattr(recipe, key))]
    return shlex.join(words)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def _stages(text: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [part.split("x") for part in text.split(",")]
        return tuple((int(epochs), int(size)) for epochs, size in pairs)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 9x96,6x128") from error


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
