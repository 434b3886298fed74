"""`scp-node audit`: what happened to an instance, also long after it is gone, and whether the record of it is whole."""

import argparse
import json
import re
from typing import TYPE_CHECKING

from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, moment, table, write_json
from scp_node.errors import UnknownJobError

if TYPE_CHECKING:
    from config.settings import NodeSettings
    from scp_node.cli.options import Subparsers
    from scp_node.jobs.reading import Reader


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``audit show|verify``."""
    parser = add_command(
        subparsers,
        "audit",
        summary="show what happened to an instance, and check that the record is whole",
        description="""
            The trace of the node: one record per event, kept when rows and files are gone, no patient data beyond
            UIDs. show takes the SOP Instance UID of what was received or of any result, or the number in `scp-node
            jobs list`. verify computes the seals again, whose digests are in the log too, as `trace sealed`, and
            follows the chain of the audit trail (audit.file).
        """,
        examples="""
            scp-node audit show 1.2.840.113619.2.5.1
            scp-node audit show 2.25.318 --json | jq -r 'select(.event == "acknowledged")'
            scp-node audit verify --expect 1042:5f0c...
        """,
    )
    actions = parser.add_subparsers(dest="action", metavar="show|verify", required=True)
    show = actions.add_parser("show", help="all that is recorded of one instance")
    show.add_argument("id", metavar="UID", help="SOP Instance UID of the instance or of a result, or the number")
    show.add_argument("--json", action="store_true", help="one JSON object per record")
    add_config(show)
    verify = actions.add_parser("verify", help="whether trace and audit trail are as they were written")
    verify.add_argument("--json", action="store_true", help="one JSON object")
    verify.add_argument(
        "--expect",
        metavar="NUMBER:DIGEST",
        type=_seal,
        action="append",
        default=[],
        help="a seal as it was noted elsewhere; may be given several times",
    )
    add_config(verify)


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says; `verify` returns 1 when the trace is not whole."""
    settings = settings_of(args)

    from scp_node.jobs.reading import Reader

    with Reader(settings) as reader:
        if args.action == "verify":
            return _verify(reader, settings, args)
        _show(reader, args)
    return 0


def _show(reader: "Reader", args: argparse.Namespace) -> None:
    records = reader.history(args.id)
    if not records:
        raise UnknownJobError(f"nothing is recorded of {args.id!r}")
    if args.json:
        for record in records:
            write_json(record.as_json())
        return
    shown = table("", ">Record", "Time", "Event", "SOP Instance UID", "Detail")
    for record in records:
        detail = json.dumps(record.detail, ensure_ascii=False)
        shown.add_row(
            f"{record.id}{'' if record.is_sealed else '*'}",
            moment(record.at),
            record.event.value,
            cell(record.sop_instance_uid),
            cell(detail),
        )
    out = console()
    out.print(shown)
    if not all(record.is_sealed for record in records):
        out.print("* not sealed yet")


def _verify(reader: "Reader", settings: "NodeSettings", args: argparse.Namespace) -> int:
    # Imported here: `audit show` has nothing to do with the trail.
    from scp_node.audit.auditor import open_trail

    found = reader.verify(dict(args.expect))
    trail = open_trail(settings)
    trail_faults = [f"{trail.file.name}: {fault}" for fault in trail.faults()] if trail.file.exists() else []
    faults = [*found.faults, *trail_faults]
    if args.json:
        write_json(
            {
                "is_whole": not faults,
                "records": found.records,
                "unsealed": found.unsealed,
                "last_seal": found.last_seal,
                "digest": found.digest,
                "faults": faults,
            }
        )
    else:
        out = console()
        for fault in faults:
            out.print(cell(fault, "bold red"))
        out.print(
            cell(
                f"{found.records} records, {found.unsealed} not sealed yet; last seal {found.last_seal}:{found.digest}"
            )
        )
        out.print("the record is NOT as it was written" if faults else "trace and audit trail are whole")
    return 1 if faults else 0


def _seal(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"([1-9]\d{0,17}):([0-9a-f]{64})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no NUMBER:DIGEST, as the log has it")
    return int(match[1]), match[2]
