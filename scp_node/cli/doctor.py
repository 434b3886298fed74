"""`scp-node doctor`: check everything the node depends on, and say what is wrong in sentences."""

import argparse
from typing import TYPE_CHECKING

from scp_node.cli.options import EXIT_CODES, add_command, add_config, settings_of
from scp_node.cli.output import cell, console, write_json
from scp_node.telemetry import logs

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``doctor``."""
    parser = add_command(
        subparsers,
        "doctor",
        summary="check everything the node depends on",
        description="""
            Check versions, disk, database, weights, decoders, certificates; ask the node's own receiver and every
            destination with C-ECHO, whether the console listens, and each destination which result objects it takes.
            Nothing is sent or changed.
        """,
        examples="""
            scp-node doctor --config node.toml
            scp-node doctor --json | jq 'select(.level == "failed")'
        """,
        exit_codes=EXIT_CODES.replace(
            "something failed or was not found", "something that is configured does not work"
        ),
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line: check, level, detail")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Run all checks; return 1 if one failed."""
    settings = settings_of(args)
    logs.configure(settings.logging, libraries=False)

    from scp_node.cli.checks import CHECKS, Level

    styles = {Level.OK: "green", Level.NOTE: "yellow", Level.FAILED: "bold red"}
    out = console()
    failed = False
    for check in CHECKS:
        # Each finding is shown when it is known: a dead destination takes its timeout.
        for finding in check(settings):
            failed = failed or finding.level is Level.FAILED
            if args.json:
                write_json({"check": finding.check, "level": finding.level.value, "detail": finding.detail})
                continue
            line = cell(f"{finding.level.value:7}", styles[finding.level])
            line.append_text(cell(f"{finding.check}: {finding.detail}", "default"))
            out.print(line, soft_wrap=True)
    return 1 if failed else 0
