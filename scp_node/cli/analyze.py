"""`scp-node analyze`: the models on files, without a server, through the same functions as received instances."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from inference.errors import InferenceError, SourceError
from inference.imaging.source import read_header
from inference.models.catalog import MODELS
from inference.records import Analysis, Ineligibility
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, predictions_table, require_writable, write_json
from scp_node.errors import NodeError, ResultError
from scp_node.records import ResultKind
from scp_node.telemetry import logs
from scp_node.telemetry.escape import escape

if TYPE_CHECKING:
    from config.results import ResultSettings
    from inference.engine import Engine
    from scp_node.cli.options import Subparsers

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


class OutputError(NodeError):
    """The folder for results cannot be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One input and what became of it.

    Parameters
    ----------
    outcome
        An error when the file cannot be read or the models failed on it.
    """

    file: Path
    sop_instance_uid: str | None
    outcome: Analysis | Ineligibility | Exception
    duration_s: float

    def as_json(self) -> dict[str, object]:
        """The fields of ``--json``."""
        analysis = self.outcome if isinstance(self.outcome, Analysis) else None
        window = None
        if analysis is not None:
            used = analysis.image.window
            window = {
                "source": used.source.value,
                "center": used.center,
                "width": used.width,
                "function": used.function,
            }
        return {
            "file": str(self.file),
            "sop_instance_uid": self.sop_instance_uid,
            "eligible": analysis is not None,
            "reason": self.reason,
            "window": window,
            "predictions": [
                {
                    "model": prediction.model,
                    "version": prediction.version,
                    "probability": prediction.probability,
                    "threshold": prediction.threshold,
                    "is_positive": prediction.is_positive,
                }
                for prediction in (analysis.predictions if analysis is not None else ())
            ],
            "duration_s": round(self.duration_s, 4),
        }

    @property
    def reason(self) -> str | None:
        """Code of why it was not judged; None when it was."""
        match self.outcome:
            case Analysis():
                return None
            case Ineligibility() as ineligibility:
                return ineligibility.reason.value
            case SourceError() | OSError():
                return "unreadable"
            case _:
                return "failed"

    @property
    def detail(self) -> str:
        """Why it was not judged, in a sentence; empty when it was."""
        match self.outcome:
            case Analysis():
                return ""
            case Ineligibility() as ineligibility:
                return f"not eligible, {ineligibility.reason.value}: {ineligibility.detail}"
            case SourceError() as error:
                return error.detail
            case OSError() as error:
                return f"cannot be read: {error.strerror or error}"
            case error:
                return str(error)


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``analyze``."""
    parser = add_command(
        subparsers,
        "analyze",
        summary="analyse files (DICOM, PNG, JPEG) without a server",
        description="""
            Run the models on files and say what each finds. The kind of a file is found by its content. A folder stands
            for all DICOM, PNG and JPEG files below it. A file that is not a frontal chest radiograph is not judged, and
            the reason is given. A file that cannot be read does not stop the others; the exit code is 1 then.

            --json prints one object per file: file, sop_instance_uid, eligible, reason, window, predictions (model,
            version, probability, threshold, is_positive), duration_s. --out writes, in a folder per file, the pictures
            as PNG and, for DICOM files, the same result objects that the node would send.
        """,
        examples="""
            scp-node analyze chest.dcm
            scp-node analyze study/ --json > results.jsonl
            scp-node analyze chest.png --out pictures
        """,
    )
    parser.add_argument("file", metavar="FILE", nargs="+", type=Path, help="file or folder")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of tables")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write pictures and result objects here")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Analyse every file; return 1 if one could not be read."""
    settings = settings_of(args)
    logs.configure(settings.logging, libraries=False)
    if args.out is not None:
        _prepare(args.out)

    from inference.engine import Engine

    engine = Engine(settings.analysis)
    failed = False
    folders: set[str] = set()
    for file in _files(args.file):
        judged = _judge(engine, file)
        failed = failed or isinstance(judged.outcome, Exception)
        if args.json:
            write_json(judged.as_json())
        if judged.detail:
            _say(file, judged.detail)
        if not isinstance(judged.outcome, Analysis):
            continue
        if not args.json:
            _show(judged.outcome, file)
        if args.out is not None:
            try:
                folder = _own_folder(args.out, file, folders, settings.analysis.models)
                _write(judged.outcome, folder, settings.results)
            except OSError as error:
                failed = True
                _say(file, f"results not written: {error.filename or args.out}: {error.strerror or error}")
            except ResultError as error:
                failed = True
                _say(file, f"results not written: {error}")
            else:
                if not args.json:
                    console().print(cell(f"results in {folder}"))
    return 1 if failed else 0


def _files(named: Sequence[Path]) -> Iterator[Path]:
    """The files named, and for folders those below that look like pictures; a folder without any is its own."""
    for path in named:
        if path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.is_file() and _looks_like_a_picture(file)]
            yield from found or [path]
        else:
            yield path


def _looks_like_a_picture(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            head = opened.read(132)
    except OSError:
        return True  # let the analysis say why it cannot be read
    return (head[128:] == b"DICM" and file.name != "DICOMDIR") or head.startswith(_SIGNATURES)


def _judge(engine: "Engine", file: Path) -> Judged:
    started = time.perf_counter()
    uid: str | None = None
    outcome: Analysis | Ineligibility | Exception
    try:
        if file.is_dir():
            raise SourceError(str(file), "holds no DICOM, PNG or JPEG file")
        header = read_header(file, str(file))
        uid = None if header.dataset is None else str(header.dataset.get("SOPInstanceUID", "")) or None
        outcome = engine.analyse_header(header)
    except (InferenceError, OSError) as error:
        outcome = error
    duration = outcome.duration_s if isinstance(outcome, Analysis) else time.perf_counter() - started
    return Judged(file=file, sop_instance_uid=uid, outcome=outcome, duration_s=duration)


def _say(file: Path, detail: str) -> None:
    """One sentence about one file, on standard error."""
    sys.stderr.write(f"scp-node: {escape(f'{file}: {detail}')}\n")


def _show(analysis: Analysis, file: Path) -> None:
    from scp_node.results.wording import window_in_words

    out = console()
    rows = ((p.title, p.version, p.probability, p.threshold, p.is_positive) for p in analysis.predictions)
    out.print(predictions_table(str(file), rows))
    out.print(cell(f"{analysis.agreement}; {window_in_words(analysis)}"))
    for note in analysis.image.notes:
        out.print(cell(note))
    out.print(cell(f"{analysis.duration_s:.2f} s; research use only, no diagnosis"))


def _prepare(out: Path) -> None:
    """Make the folder before anything is computed for it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        require_writable(out)
    except OSError as error:
        raise OutputError(f"--out {out}: cannot be written: {error.strerror or error}") from error


def _own_folder(out: Path, file: Path, taken: set[str], in_use: Sequence[str]) -> Path:
    """A folder for one input, named after it and never shared with another.

    Results of an earlier run are removed: the input may be another file of that name, of another patient.
    """
    # The stem of "...dcm" is "..".
    stem = file.stem if file.stem.strip(".") else "file"
    name = stem
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    models = {spec.name for spec in MODELS} | set(in_use)
    pictures = [f"{part}.png" for part in (ResultKind.MONTAGE, *models)]
    objects = [f"{kind}.dcm" for kind in ResultKind if kind is not ResultKind.SINGLE]
    # What this command writes, and nothing else: the folder may be the user's own.
    for earlier in (*pictures, *objects, *(f"{ResultKind.SINGLE}_{model}.dcm" for model in models)):
        (folder / earlier).unlink(missing_ok=True)
    return folder


def _write(analysis: Analysis, folder: Path, settings: "ResultSettings") -> None:
    """Pictures as PNG; for DICOM input the result objects too, of alternatives the preferred one."""
    from PIL import Image

    from scp_node.results.catalog import build_results
    from scp_node.results.overlay import montage, single

    Image.fromarray(montage(analysis, settings.secondary_capture)).save(folder / "montage.png", compress_level=1)
    for prediction in analysis.predictions:
        picture = single(analysis, prediction, settings.secondary_capture)
        Image.fromarray(picture).save(folder / f"{prediction.model}.png", compress_level=1)
    if analysis.header.dataset is None:
        return
    for result in build_results(analysis, settings, made_at=datetime.now().astimezone()):
        if result.rank == 0:
            name = "_".join(part for part in (result.kind.value, result.model) if part)
            result.dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
