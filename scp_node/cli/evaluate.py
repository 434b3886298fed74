"""`scp-node evaluate`: measure checkpoints on labelled radiographs, a site's own or the training data's."""

import argparse
import csv
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from config.analysis import AnalysisSettings
from inference.models.checkpoint import default_folder
from inference.training.dataset import DatasetError, LabelledImage, read_labels
from inference.training.evaluate import Kind, Measurement, Scores, measure, score, to_json
from inference.training.metrics import OperatingPoint, Share
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, require_writable, table, write_json
from scp_node.errors import NodeError

if TYPE_CHECKING:
    from inference.engine import Engine
    from scp_node.cli.options import Subparsers

DEFAULT_OUT = Path("evaluation-out")
_SHARES = ("sensitivity", "specificity")


class OutputError(NodeError):
    """What was measured cannot be written, or a card cannot be made here."""


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``evaluate``."""
    parser = add_command(
        subparsers,
        "evaluate",
        summary="measure checkpoints on labelled radiographs",
        description="""
            Measure checkpoints on labelled radiographs (DICOM, PNG, JPEG), read, rendered and judged as the node does.
            labels.csv has the columns file and label (normal or pneumonia), and may have source and split.

            Figures are given per source and never pooled: AUC with 95 % bootstrap intervals over patients, shares with
            95 % Wilson intervals, and the threshold that a wanted sensitivity asks for. Files that cannot be read or
            judged are listed and have no place in the figures. Plots and scores are written to --out.
        """,
        examples="""
            scp-node evaluate --data mine
            scp-node evaluate --data mine/list.csv --sensitivity 0.98 --config node.toml
            scp-node evaluate --data cxr --split val --json
            scp-node evaluate --data cxr --split val --card     also a card.md in each checkpoint folder
        """,
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="folder with labels.csv, or a CSV file")
    parser.add_argument("--split", metavar="NAME", help="only rows of this split (all)")
    parser.add_argument("--model", action="append", metavar="NAME", help="only this model; may be repeated (all)")
    parser.add_argument("--checkpoints", type=Path, metavar="DIR", help="folder of the checkpoints (the node's own)")
    parser.add_argument("--sensitivity", type=_share_argument, default=0.95, metavar="X", help="wanted (0.95)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="plots and scores (evaluation-out; with --json: nowhere)"
    )
    parser.add_argument("--card", action="store_true", help="write card.md and plots into the checkpoint folders")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="Markdown that the cards quote under Remarks")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Score, measure, tell, and write what was asked for."""
    try:
        return _run(args)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a folder that may not be written
        raise OutputError(f"{error.filename or args.out or DEFAULT_OUT}: {error.strerror or error}") from error


def _run(args: argparse.Namespace) -> int:
    from inference.engine import Engine

    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    settings = _settings(args)
    rows = read_labels(args.data, args.split)
    if args.split is None and any(row.split == "train" for row in rows):
        progress.print("note: these images include those that models were trained on (split train); use --split val")
    out: Path | None = args.out or (None if args.json else DEFAULT_OUT)
    if out is not None:
        _prepare(out)
    notes = _notes(args, settings) if args.card else ""
    engine = Engine(settings)
    scores = _score(engine, rows, progress, "judging")
    if not scores.images:
        raise DatasetError(f"none of {len(rows)} files could be judged; the first: {_first(scores)}")
    measurements = measure(scores, args.sensitivity)
    if args.json:
        write_json(to_json(scores, measurements))
    else:
        _tell(scores, measurements, args.sensitivity)
    if out is not None:
        _write(out, scores, measurements, progress)
    if args.card:
        _cards(args, engine, scores, measurements, notes=notes, progress=progress)
    return 0


def _settings(args: argparse.Namespace) -> AnalysisSettings:
    """Analysis settings of the node, with what the command line says."""
    settings = settings_of(args).analysis
    models = tuple(dict.fromkeys(args.model or settings.models))
    # A card is of the checkpoint wherever it is used: a site's own thresholds have no place in it.
    thresholds = {} if args.card else settings.thresholds
    changes: dict[str, object] = {
        "models": models,
        "thresholds": {name: value for name, value in thresholds.items() if name in models},
    }
    if args.checkpoints is not None:
        changes["checkpoints"] = args.checkpoints
    return settings.model_copy(update=changes)


def _prepare(out: Path) -> None:
    """Make the folder before anything is measured for it."""
    out.mkdir(parents=True, exist_ok=True)
    require_writable(out)


def _notes(args: argparse.Namespace, settings: AnalysisSettings) -> str:
    """What the cards quote; all that they need is looked for before anything is measured for them."""
    from inference.training.export import read_record

    if find_spec("matplotlib") is None:
        raise OutputError("cards need plots, and matplotlib is not installed; pip install 'scp-node[training]'")
    for name in settings.models:
        folder = (settings.checkpoints or default_folder()) / name
        read_record(folder)
        require_writable(folder)
    return args.notes.read_text(encoding="utf-8") if args.notes else ""


def _score(engine: "Engine", rows: Sequence[LabelledImage], progress: Console, title: str) -> Scores:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=progress) as bar:
        task = bar.add_task(title, total=len(rows))
        return score(engine, rows, lambda: bar.advance(task))


def _first(scores: Scores) -> str:
    return f"{scores.not_judged[0].name}: {scores.not_judged[0].detail}"


def _tell(scores: Scores, measurements: Sequence[Measurement], wanted: float) -> None:
    out = console()
    for model in scores.models:
        mine = [m for m in measurements if m.model == model.name]
        title = f"{model.title} {model.version}, threshold {mine[0].at_threshold.threshold:g}"
        figures = table(title, "source", "labels", ">n", ">pneumonia", "AUC", *_SHARES, ">ECE", ">Brier")
        for m in mine:
            figures.add_row(
                cell(m.source),
                m.kind.value,
                str(m.images),
                str(m.positives),
                "-" if m.auc is None or m.auc_interval is None else f"{m.auc:.3f} {_range(m.auc_interval)}",
                _share(m.at_threshold.sensitivity),
                _share(m.at_threshold.specificity),
                f"{m.calibration_error:.3f}",
                f"{m.brier:.3f}",
            )
        out.print(figures)
        curves = table(f"{model.title}: ROC in points", "source", "labels", ">threshold", *_SHARES)
        for m in mine:
            for point in m.curve:
                curves.add_row(cell(m.source), m.kind.value, f"{point.threshold:g}", *_told(point))
        out.print(curves)
        for m in mine:
            if m.kind is not Kind.RAW:
                out.print(cell(f"{m.source} ({m.kind.value}): {_suggestion(m, wanted)}"))
    for kind, title in (("unreadable", "unreadable"), ("not_eligible", "not eligible")):
        listed = [entry for entry in scores.not_judged if entry.state == kind]
        if listed:
            out.print(f"\n{len(listed)} files {title}, not in the figures:")
            for entry in listed:
                out.print(cell(f"  {entry.name}: {entry.detail}"))


def _suggestion(m: Measurement, wanted: float) -> str:
    if m.suggested is None:
        return f"no threshold above 0 gives a sensitivity of {wanted:g}"
    sensitivity, specificity = _told(m.suggested)
    return (
        f"suggested threshold for a sensitivity of {wanted:g}: {m.suggested.threshold:g} "
        f"(sensitivity {sensitivity}, specificity {specificity})"
    )


def _write(out: Path, scores: Scores, measurements: Sequence[Measurement], progress: Console) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(to_json(scores, measurements), indent=2) + "\n", encoding="utf-8")
    with (out / "scores.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "source", "is_positive", "is_confirmed", *(model.name for model in scores.models)])
        for image in scores.images:
            said = [f"{prediction.probability:.6f}" for prediction in image.predictions]
            writer.writerow([image.row.name, image.row.source, image.row.is_positive, image.row.is_confirmed, *said])
    if find_spec("matplotlib") is None:
        progress.print("no plots: matplotlib is not installed; pip install 'scp-node[training]'", markup=False)
    else:
        from inference.training.plots import reliability_plot, roc_plot

        for model in scores.models:
            roc_plot(out / f"roc-{model.name}.png", scores, model.name)
            reliability_plot(out / f"reliability-{model.name}.png", scores, model.name)
    progress.print(f"scores and plots are in {out}")


def _cards(
    args: argparse.Namespace,
    engine: "Engine",
    scores: Scores,
    measurements: Sequence[Measurement],
    *,
    notes: str,
    progress: Console,
) -> None:
    from pydicom.data import get_testdata_file

    from inference.records import Analysis
    from inference.training.card import write_card
    from inference.training.findings import Evidence
    from inference.training.localise import localise, margins

    everything = read_labels(args.data)
    training = [row for row in everything if row.split == "train"]
    boxed = _score(engine, [row for row in training if row.boxes], progress, "training images with boxes")
    rg1 = get_testdata_file("RG1_UNCR.dcm", download=False)
    example = engine.analyse(Path(str(rg1))) if rg1 else None
    evidence = Evidence(
        rows=everything,
        scores=scores,
        measurements=measurements,
        boxes={args.split or "all": localise(scores, training), "train": localise(boxed, training)},
        margins=margins(scores),
        example=example if isinstance(example, Analysis) else None,
        notes=notes,
    )
    checkpoints = _settings(args).checkpoints or default_folder()
    for manifest in engine.models:
        card = write_card(checkpoints, manifest, evidence)
        progress.print(f"wrote {card}")


def _told(point: OperatingPoint) -> tuple[str, str]:
    return _share(point.sensitivity), _share(point.specificity)


def _share(share: Share) -> str:
    return f"{share.value:.3f} {_range(share.interval)}" if share.total else "-"


def _range(interval: tuple[float, float]) -> str:
    return f"({interval[0]:.3f}-{interval[1]:.3f})"


def _share_argument(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 1")
    return value
