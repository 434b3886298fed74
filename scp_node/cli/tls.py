"""`scp-node tls`: certificates to try TLS with, and when the ones in use expire."""

import argparse
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, table, write_json
from scp_node.telemetry.escape import escape

if TYPE_CHECKING:
    from config.settings import NodeSettings
    from scp_node.cli.options import Subparsers

_TRIAL = """\
Wrote an authority and two certificates to {folder}, good for {days} days. For trying out only: whoever has ca.key can
make a certificate that this node trusts. For the node, in its configuration:

  [receiver.tls]
  enabled = true
  certificate = "{folder}/node.pem"
  key = "{folder}/node.key"
  authorities = "{folder}/ca.pem"

Then start it, and call it with DCMTK from another terminal:

  scp-node serve --config node.toml
  echoscu +tls {folder}/peer.key {folder}/peer.pem +cf {folder}/ca.pem -aec {title} {host} {port}

SHA-256 fingerprints, for callers and destinations that are bound to one certificate:

  node {node}
  peer {peer}
"""


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``tls make-test-ca|list``."""
    parser = add_command(
        subparsers,
        "tls",
        summary="make certificates to try TLS with, list the ones in use",
        description="""
            Make an authority and certificates to try TLS with, or list the certificates that a configuration names,
            with the days that are left, and say which cannot be used with their keys. docs/tls.md says how TLS is set
            up.
        """,
        examples="""
            scp-node tls make-test-ca tls-trial
            scp-node tls make-test-ca tls-trial --host node.example.org --host 192.0.2.10 --days 90
            scp-node tls list --config node.toml
        """,
    )
    actions = parser.add_subparsers(dest="action", metavar="make-test-ca|list", required=True)
    making = actions.add_parser("make-test-ca", help="write an authority and certificates for a node and a peer")
    making.add_argument("folder", metavar="DIR", type=Path, help="where to; made when missing, nothing is overwritten")
    making.add_argument(
        "--host",
        action="append",
        metavar="NAME",
        help="DNS name or IP address of node or peer; may be given several times (default: this machine and localhost)",
    )
    making.add_argument("--days", type=int, default=90, help="how long they are valid (default: 90)")
    listing = actions.add_parser("list", help="show every certificate in use; exit code 1 when one needs a person")
    listing.add_argument("--json", action="store_true", help="one JSON object per certificate and line")
    for action in (making, listing):
        add_config(action)


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    settings = settings_of(args)
    return _list(settings, args.json) if args.action == "list" else _make(settings, args)


def _make(settings: "NodeSettings", args: argparse.Namespace) -> int:
    # Imported late: other commands need no cryptography.
    from scp_node.security.authority import AuthorityError, make_test_authority

    if args.days < 1:
        raise AuthorityError(f"--days must be at least 1, got {args.days}")
    hosts = args.host or list(dict.fromkeys([socket.gethostname(), "localhost", "127.0.0.1", "::1"]))
    folder = args.folder.absolute()
    made = make_test_authority(folder, hosts, args.days)
    receiver = settings.receiver
    sys.stdout.write(
        _TRIAL.format(
            folder=folder,
            days=args.days,
            title=receiver.ae_title,
            host=args.host[0] if args.host else "localhost",
            port=receiver.tls.port,
            node=made["node"].sha256,
            peer=made["peer"].sha256,
        )
    )
    return 0


def _list(settings: "NodeSettings", as_json: bool) -> int:
    from scp_node.security.certificates import certificates_in_use
    from scp_node.security.contexts import unusable

    now = datetime.now(UTC)
    days = settings.receiver.tls.expiry_warning_days
    shown = table("", "Used for", "Subject", "Expires", ">Days", "SHA-256", "File", "Remark")
    needs_attention = False
    for used in certificates_in_use(settings):
        certificate, warning = used.certificate, used.warning(now, days)
        needs_attention = needs_attention or bool(warning)
        left_days = None if certificate is None else certificate.remaining(now).days
        if as_json:
            write_json(
                {
                    "used_for": used.used_for,
                    "file": str(used.file),
                    "subject": None if certificate is None else certificate.subject,
                    "sha256": None if certificate is None else certificate.sha256,
                    "not_after": None if certificate is None else certificate.not_after.isoformat(),
                    "days": left_days,
                    "warning": warning,
                }
            )
        else:
            shown.add_row(
                cell(used.used_for),
                cell("" if certificate is None else certificate.subject),
                cell("" if certificate is None else f"{certificate.not_after:%Y-%m-%d}"),
                cell("" if left_days is None else left_days),
                cell("" if certificate is None else certificate.sha256),
                cell(used.file),
                cell(warning, "red"),
            )
    if not as_json:
        if shown.row_count:
            console().print(shown)
        else:
            sys.stdout.write("no certificates are configured\n")
    misfits = unusable(settings)
    for used_for, sentence in misfits:
        sys.stderr.write(f"scp-node: {escape(f'{used_for}: {sentence}')}\n")
    return 1 if needs_attention or misfits else 0
