"""`scp-node config`: check a configuration, show what is in use, write the commented example."""

import argparse
import sys
from typing import TYPE_CHECKING

from config.write import example, in_use
from scp_node.cli.main import OK, USAGE, fail
from scp_node.cli.options import add_command, add_config, settings_of

if TYPE_CHECKING:
    from config.settings import NodeSettings
    from scp_node.cli.options import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``config check|show|example``."""
    parser = add_command(
        subparsers,
        "config",
        summary="check, show or write the configuration",
        description="""
            Check a configuration, show the one in use (passwords hidden), or write a commented example. check reads
            what a start reads, too: manifests and weights of the models, certificates and keys; and it compares ports.
            Nothing is connected to: `scp-node doctor` does that.
        """,
        examples="""
            scp-node config example > node.toml
            scp-node config check --config node.toml
            SCP_NODE__RECEIVER__PORT=11113 scp-node config show --config node.toml
        """,
    )
    actions = parser.add_subparsers(dest="action", metavar="check|show|example", required=True)
    for name, summary in (
        ("check", "say whether a node can start with the configuration"),
        ("show", "print every setting in use as TOML, passwords hidden"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        add_config(action)
    actions.add_parser("example", help="print every setting with its default and a comment, as TOML")


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    if args.action == "example":
        sys.stdout.write(example())
        return OK
    settings = settings_of(args)
    if args.action == "show":
        sys.stdout.write(in_use(settings))
        return OK
    place = args.config if args.config is not None else "defaults and environment"
    return _check(settings, str(place))


def _check(settings: "NodeSettings", place: str) -> int:
    # Only here: `config show` reads no other file.
    from scp_node.cli.faults import faults

    found = list(faults(settings))
    for fault in found:
        fail(f"{place}: {fault}")
    if found:
        return USAGE
    receiver = settings.receiver
    names = ", ".join(destination.name for destination in settings.destinations) or "none"
    sys.stdout.write(
        f"{place}: can be used ({receiver.ae_title} on {receiver.bind}:{receiver.port}, destinations: {names})\n"
    )
    return OK
