"""`scp-node demo`: one radiograph through a node and a stand-in PACS on this machine, with everything shown."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from scp_node.cli.options import EXIT_CODES, add_command, add_config, settings_of
from scp_node.cli.output import cell, console, predictions_table, size, table
from scp_node.telemetry import logs
from scp_node.telemetry.escape import escape

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers
    from scp_node.demo.run import Outcome, Progress

NOTICE = "Research use only; not a medical device. The models' output is no diagnosis."
_MARKER = ".scp-node-demo"


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``demo``."""
    parser = add_command(
        subparsers,
        "demo",
        summary="one radiograph through node and stand-in PACS, on this machine",
        description="""
            Start a node (SQLite, data in a temporary folder) and a stand-in PACS on ports of this machine's choice,
            send a chest radiograph by C-STORE, wait for the results and show what came back. DICOM objects, PNG
            previews and the node's log are left in the output folder. Without --input a real CR from the package
            pydicom-data is sent.
        """,
        examples="""
            scp-node demo
            scp-node demo --input chest1.dcm chest2.dcm --out results
        """,
        exit_codes=EXIT_CODES.replace(
            "everything asked for was done", "for every file a Secondary Capture and an SR came back that refer to it"
        ),
    )
    parser.add_argument("--input", metavar="FILE", nargs="+", type=Path, help="DICOM files to send instead")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("demo-out"), help="default: demo-out")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Send every file; return 0 only if each came back as picture and report."""
    settings = settings_of(args)
    out: Path = args.out
    _prepare(out)
    screen = console()
    screen.print(cell(NOTICE, "bold"))
    complete = True
    with (out / "node.log").open("w", encoding="utf-8") as log, _progress(screen) as progress:
        logs.configure(settings.logging, log)
        progress("loading")

        from scp_node.demo.run import Demo, open_source, sample

        files: list[Path] = args.input or [sample()]
        for file in files:
            open_source(file)
        with Demo(settings, progress) as demo:
            for number, file in enumerate(files, 1):
                outcome = demo.run(file, out if len(files) == 1 else out / f"{number:02}-{file.stem}")
                _show(screen, outcome)
                complete = complete and outcome.is_complete
            progress("stopping")
    screen.print(cell(NOTICE, "bold"))
    return 0 if complete else 1


def _prepare(out: Path) -> None:
    """Make the folder; remove what an earlier demonstration left there, and nothing else."""
    if (out / _MARKER).exists():
        for file in (*out.rglob("*-secondary-capture.*"), *out.rglob("*-report.dcm"), *out.rglob("*-object.dcm")):
            file.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()


@contextmanager
def _progress(screen: Console) -> "Iterator[Progress]":
    """Show what goes on: a spinner on a terminal, one line per change elsewhere."""
    started = time.monotonic()
    shown = ""

    def line(text: str) -> None:
        nonlocal shown
        if text != shown:
            shown = text
            sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {escape(text)}\n")
            sys.stderr.flush()

    if not screen.is_terminal:
        yield line
        return
    with screen.status("") as status:
        yield lambda text: status.update(cell(f"{time.monotonic() - started:.0f} s  {text}"))


def _show(screen: Console, outcome: "Outcome") -> None:
    from scp_node.demo.run import describe

    screen.print()
    screen.print(cell(f"{outcome.source.name}, sent by {outcome.sender}"))
    if problem := describe(outcome.instance):
        screen.print(cell(problem, "bold red"), soft_wrap=True)
    if outcome.statements:
        rows = ((s.model, s.version, s.probability, s.threshold, s.is_positive) for s in outcome.statements)
        screen.print(predictions_table("What the report says (p of pneumonia)", rows))
    if outcome.arrivals:
        came = table("What came back", "SOP Class", "Series", ">Size", "Refers to source", "File")
        for arrival in outcome.arrivals:
            belongs = cell("yes", "green") if arrival.belongs else cell("NO", "bold red")
            series = cell(f"{arrival.series_number} {arrival.series_description}")
            came.add_row(arrival.sop_class, series, size(arrival.stored.size_bytes), belongs, f"{arrival.label}.dcm")
        screen.print(came)
    if outcome.seconds is not None:
        screen.print(cell(f"{outcome.seconds:.2f} s from last byte sent to last result stored"))
    pictures = sorted(str(outcome.folder / f"{a.label}.png") for a in outcome.arrivals if a.is_secondary_capture)
    if pictures:
        screen.print("pictures:")
    for picture in pictures:
        screen.print(cell(f"  {picture}"), soft_wrap=True)
