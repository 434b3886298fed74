"""`scp-node recall`: which results a model version made, and reports that replace them."""

import argparse
import re
from collections import Counter
from typing import TYPE_CHECKING

from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, moment, table, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scp_node.cli.options import Subparsers
    from scp_node.jobs.recall import Affected, ModelVersion, Recall

_SHOWN = 100


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``recall``."""
    parser = add_command(
        subparsers,
        "recall",
        summary="list what a model version said, and have it said anew",
        description="""
            List every result that a version of a model took part in, from the trace: also those whose rows and files
            retention has removed. With --supersede each instance whose file is still there is analysed again by the
            checkpoints in use, after everything that is new; the new reports name the ones that they replace
            (Predecessor Documents Sequence) and go to the same destinations. What was sent stays as it is. Install
            the new checkpoints and restart the node first. Repeating the command makes nothing twice.
        """,
        examples="""
            scp-node recall --model resnet18 --version 1.0.0
            scp-node recall --model resnet18 --weights 5f0c1a --json
            scp-node recall --model resnet18 --version 1.0.0 --supersede --dry-run
            scp-node recall --model resnet18 --version 1.0.0 --supersede
        """,
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="name in the catalog, see `scp-node models`")
    parser.add_argument("--version", metavar="V", help="version of the checkpoint")
    parser.add_argument("--weights", metavar="SHA256", type=_digest, help="digest of the weights, or its beginning")
    parser.add_argument("--supersede", action="store_true", help="order new analyses and reports that replace these")
    parser.add_argument("--dry-run", action="store_true", help="with --supersede: only say what would be ordered")
    parser.add_argument("--json", action="store_true", help="one JSON object per result")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """List, and order what is asked for; what the trace does not know is an error."""
    settings = settings_of(args)

    from scp_node.jobs.recall import ModelVersion, Recall

    which = ModelVersion(model=args.model, version=args.version, weights_sha256=args.weights)
    with Recall(settings) as recall:
        recall.require_known(which)
        if args.supersede:
            recall.require_other_checkpoints(which)
        found = recall.affected(which)
        if args.json:
            for one in _ordered(recall, which, found, args):
                write_json(one)
        else:
            _print(recall, which, found, args)
    return 0


def _ordered(
    recall: "Recall", which: "ModelVersion", found: "Iterator[Affected]", args: argparse.Namespace
) -> "Iterator[dict[str, object]]":
    for one in found:
        yield {**one.as_json(), "ordered": _order(recall, which, one, args)}


def _order(recall: "Recall", which: "ModelVersion", one: "Affected", args: argparse.Namespace) -> bool:
    from scp_node.jobs.recall import Standing

    if not args.supersede or one.standing is not Standing.REPLACEABLE:
        return False
    return args.dry_run or recall.supersede(which, one)


def _print(recall: "Recall", which: "ModelVersion", found: "Iterator[Affected]", args: argparse.Namespace) -> None:
    shown = table("", "SOP Instance UID", "Analysed", "Version", ">Probability", "Sent to", "Standing")
    standings: Counter[str] = Counter()
    ordered = 0
    for one in found:
        was_ordered = _order(recall, which, one, args)
        ordered += was_ordered
        standings[one.standing.value] += 1
        if standings.total() <= _SHOWN:
            # The last object that a destination took tells when it had the result.
            sent = {word.destination: moment(word.at) for word in one.acknowledgements if word.verdict == "confirmed"}
            shown.add_row(
                cell(one.sop_instance_uid),
                moment(one.analysed_at),
                cell(one.version),
                f"{one.probability:.4f}",
                cell(", ".join(f"{name} {time}" for name, time in sent.items())),
                cell(("ordered" if was_ordered else one.standing.value), "green" if was_ordered else ""),
            )
    out = console()
    out.print(shown)
    total = standings.total()
    summary = ", ".join(f"{count} {name}" for name, count in sorted(standings.items()))
    out.print(cell(f"{summary}{f'; the first {_SHOWN} are shown (--json: all)' if total > _SHOWN else ''}"))
    if args.supersede:
        out.print(f"{ordered} new analyses {'would be ordered' if args.dry_run else 'ordered'}")


def _digest(text: str) -> str:
    if re.fullmatch(r"[0-9A-Fa-f]{1,64}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no beginning of a SHA-256: up to 64 hexadecimal digits")
    return text.lower()
