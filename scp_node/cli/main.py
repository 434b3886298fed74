"""Entry point `scp-node`: finds a command's module by name and runs it; imports nothing heavy itself.

A command is one line in ``COMMANDS`` and one module with ``add_parser(subparsers)`` and ``run(args) -> int``. Only the
module of the command that was asked for is imported, so ``scp-node echo`` never loads torch.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from inference.errors import InferenceError
from scp_node.errors import NodeError
from scp_node.garbage import importing
from scp_node.telemetry.escape import escape

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141


class CommandModule(Protocol):
    """What the module of a command offers."""

    def add_parser(self, subparsers: "Subparsers") -> object:
        """Add the command's own parser, with its arguments, to ``subparsers``."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; return the exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of `scp-node`."""

    name: str
    module: str
    summary: str


COMMANDS: tuple[Command, ...] = (
    Command(name="serve", module="scp_node.cli.serve", summary="receive, analyse and deliver until stopped"),
    Command(name="analyze", module="scp_node.cli.analyze", summary="analyse files (DICOM, PNG, JPEG) without a server"),
    Command(
        name="demo",
        module="scp_node.cli.demo",
        summary="one radiograph through node and stand-in PACS, on this machine",
    ),
    Command(name="echo", module="scp_node.cli.echo", summary="verify a destination with C-ECHO"),
    Command(
        name="jobs", module="scp_node.cli.jobs", summary="list, show, retry, cancel, export and purge what was received"
    ),
    Command(name="audit", module="scp_node.cli.audit", summary="show what happened to an instance, check the record"),
    Command(name="recall", module="scp_node.cli.recall", summary="list what a model version said, have it said anew"),
    Command(
        name="destinations",
        module="scp_node.cli.destinations",
        summary="how each destination does; resume what waits",
    ),
    Command(name="console", module="scp_node.cli.console", summary="the web console alone, and its users"),
    Command(name="models", module="scp_node.cli.models", summary="list the models and check their weights"),
    Command(name="config", module="scp_node.cli.config", summary="check, show or write the configuration"),
    Command(name="doctor", module="scp_node.cli.doctor", summary="check everything the node depends on"),
    Command(name="tls", module="scp_node.cli.tls", summary="make certificates to try TLS with, list the ones in use"),
    Command(name="train", module="scp_node.cli.train", summary="train a model"),
    Command(name="evaluate", module="scp_node.cli.evaluate", summary="measure checkpoints on labelled radiographs"),
)

_EXAMPLES = """examples:
  scp-node demo                            see it work, nothing to set up
  scp-node analyze chest.dcm --json        one JSON object per file
  scp-node serve --config node.toml        run the node
  scp-node echo pacs --config node.toml    does the PACS answer?"""


def fail(message: str, code: int = FAILED) -> int:
    """Write one sentence to standard error and return the exit code; it may quote files, databases and peers."""
    sys.stderr.write(f"scp-node: {escape(message)}\n")
    return code


class _Version(argparse.Action):
    """Looks the version up when it is asked for: reading the installation's metadata takes longer than the parser."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        parser.exit(0, f"scp-node {version('scp-node')}\n")


class _OneLineParser(argparse.ArgumentParser):
    """Reports wrong usage as one sentence instead of a usage block, and points to the help of the command in use."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - as the base class has it
        """As the base class does; but a command refuses what it does not know itself, and not in the program's name."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def build_parser(chosen: str | None) -> tuple[argparse.ArgumentParser, CommandModule | None]:
    """Make the parser; only the chosen command's module is imported, the others are known by name and summary."""
    from scp_node.cli.options import EXIT_CODES

    parser: argparse.ArgumentParser = _OneLineParser(
        prog="scp-node",
        description="DICOM node that answers chest radiographs with Grad-CAM pictures and structured reports.",
        epilog=f"{_EXAMPLES}\n\n{EXIT_CODES}\n\nResearch use only; not a medical device.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    module: CommandModule | None = None
    for command in COMMANDS:
        if command.name == chosen:
            module = cast("CommandModule", importlib.import_module(command.module))
            module.add_parser(subparsers)
        else:
            subparsers.add_parser(command.name, help=command.summary)
    return parser, module


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED)


def _run(argv: Sequence[str]) -> int:
    with importing():
        # Here and not above, where Ctrl-C would be a traceback: it takes a tenth of a second.
        from config.load import ConfigError
    arguments = list(argv)
    # The top-level options take no value, so the first word that is no option is the command.
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        with importing():
            parser, module = build_parser(chosen)
        args = parser.parse_args(arguments)
        assert module is not None  # noqa: S101 - argparse has refused an unknown command by now
        code = module.run(args)
        sys.stdout.flush()
    except ConfigError as error:
        for sentence in error.sentences:
            fail(sentence)
        return USAGE
    except (NodeError, InferenceError) as error:
        return fail(str(error))
    except BrokenPipeError:
        # Python flushes standard output once more at exit; without this that would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    else:
        return code
