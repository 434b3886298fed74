"""What the parsers of several commands share: help layout, --config, and the settings it leads to."""

import argparse
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from config.load import load, misspelt
from config.settings import NodeSettings

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_CODES = """\
exit codes:
  0    everything asked for was done
  1    something failed or was not found
  2    wrong usage or configuration
  130  interrupted
  141  the reader of the output went away"""


def add_command(
    subparsers: "Subparsers", name: str, *, summary: str, description: str, examples: str, exit_codes: str = EXIT_CODES
) -> argparse.ArgumentParser:
    """Add a command whose help ends with examples and exit codes."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=textwrap.dedent(description).strip(),
        epilog=f"examples:\n{textwrap.indent(textwrap.dedent(examples).strip(), '  ')}\n\n{exit_codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config FILE``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="TOML file; every key can be overridden by SCP_NODE__SECTION__KEY (default: built-in defaults)",
    )


def settings_of(args: argparse.Namespace) -> NodeSettings:
    """Load the settings that ``--config`` and the environment give; raises ConfigError."""
    file: Path | None = args.config
    for variable, meant in misspelt(os.environ):
        sys.stderr.write(f"scp-node: environment variable {variable} is ignored; did you mean {meant}?\n")
    return load(file, os.environ)
