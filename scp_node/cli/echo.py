"""`scp-node echo`: does a destination answer? C-ECHO for a DICOM peer, a trial file for a folder."""

import argparse
import re
import sys
from typing import TYPE_CHECKING

from pydantic import ValidationError

from config.destinations import Destination, DicomDestination
from config.load import ConfigError, reason
from config.settings import NodeSettings
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.telemetry import logs
from scp_node.telemetry.escape import escape

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers

_PEER = re.compile(r"(?P<title>[^@]+)@(?P<host>.+):(?P<port>[0-9]+)")


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``echo``."""
    parser = add_command(
        subparsers,
        "echo",
        summary="verify a destination with C-ECHO",
        description="""
            Ask a destination of the configuration, by its name, whether it answers: C-ECHO for a DICOM peer, a trial
            file for a folder. A peer that is not configured can be written as AETITLE@HOST:PORT.
        """,
        examples="""
            scp-node echo pacs --config node.toml
            scp-node echo ORTHANC@127.0.0.1:4242
        """,
    )
    parser.add_argument("destination", metavar="DESTINATION", help="name in the configuration, or AETITLE@HOST:PORT")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Return 0 if it answers, 1 if not."""
    settings = settings_of(args)
    logs.configure(settings.logging, libraries=False)
    destination = find(args.destination, settings)

    from scp_node.delivery.catalog import echo

    outcome = echo(destination, settings.receiver.ae_title)
    line = escape(f"{args.destination}: {outcome.detail} ({outcome.duration_s * 1000:.0f} ms)")
    if not outcome.is_reachable:
        sys.stderr.write(f"scp-node: {line}\n")
        return 1
    sys.stdout.write(f"{line}\n")
    return 0


def find(name: str, settings: NodeSettings) -> Destination:
    """Return the destination of that name, or one made from ``AETITLE@HOST:PORT``.

    Raises
    ------
    ConfigError
        It is neither.
    """
    for destination in settings.destinations:
        if destination.name == name:
            return destination
    if (peer := _PEER.fullmatch(name)) is not None:
        title, host, port = peer.group("title", "host", "port")
        try:
            return DicomDestination(name="peer", ae_title=title, host=host.strip("[]"), port=int(port))
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{name}: {first['loc'][0]}: {reason(first)}") from None
    known = ", ".join(destination.name for destination in settings.destinations) or "none is configured"
    raise ConfigError(f"no destination {name!r} (known: {known}); a peer can be written as AETITLE@HOST:PORT")
