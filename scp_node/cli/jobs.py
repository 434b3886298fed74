"""`scp-node jobs`: what was received, and what an operator can do about it; beside a running node and without one."""

import argparse
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from config.settings import NodeSettings
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, moment, predictions_table, size, table, write_json
from scp_node.garbage import importing
from scp_node.records import InstanceState

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers
    from scp_node.jobs.reading import Reader
    from scp_node.jobs.records import DeliveryRecord, InstanceDetail, InstanceFilter, InstanceRecord

_SHOWN = 100
_STYLES = {
    InstanceState.DELIVERED: "green",
    InstanceState.NOT_ELIGIBLE: "yellow",
    InstanceState.DEAD_LETTER: "bold red",
}


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``jobs list|show|retry|cancel|resend|export|purge``."""
    parser = add_command(
        subparsers,
        "jobs",
        summary="list, show, retry, cancel, export and purge what was received",
        description="""
            What became of every received instance. States: received, analysing, delivering, and finally delivered,
            not_eligible (with a reason) or dead_letter (with a reason; can be retried). ID is the SOP Instance UID
            or the number in the list. Objects that came under the UID of another one are conflicts: they are kept
            aside, listed by list --conflicts, and exported and purged with --conflict SHA256.
        """,
        examples="""
            scp-node jobs list --state dead_letter --since 2026-11-01
            scp-node jobs list --uid 1.2.840.113619.2.5      all images of a study
            scp-node jobs list --accession A-4711
            scp-node jobs list --json | jq -r 'select(.state != "delivered") | .sop_instance_uid'
            scp-node jobs show 1.2.840.113619.2.5.1
            scp-node jobs retry 17
            scp-node jobs resend 17 --destination archive
            scp-node jobs export 17 dead-letter.zip
            scp-node jobs purge 17
        """,
    )
    actions = parser.add_subparsers(dest="action", metavar="list|show|retry|cancel|resend|export|purge", required=True)
    listing = actions.add_parser("list", help="one line per received instance")
    listing.add_argument("--json", action="store_true", help="one JSON object a line, in order of arrival")
    listing.add_argument("--state", choices=[state.value for state in InstanceState], help="only these")
    listing.add_argument("--reason", type=_reason, help="only with this reason, lateral for example")
    listing.add_argument(
        "--uid", metavar="PREFIX", default="", help="only of images or studies whose UID begins like this"
    )
    listing.add_argument("--accession", metavar="NUMBER", help="only of this Accession Number")
    listing.add_argument("--from", metavar="AE", dest="caller", help="only what this AE title sent")
    listing.add_argument("--since", type=_time_of, metavar="TIME", help="received at this time or later (ISO 8601)")
    listing.add_argument("--until", type=_time_of, metavar="TIME", help="received before this time")
    listing.add_argument("--conflicts", action="store_true", help="objects that came under the UID of another one")
    listing.add_argument("--limit", type=_positive, help=f"at most this many (table: newest {_SHOWN}; JSON: all)")
    add_config(listing)
    for name, summary in (
        ("show", "all that is known of one instance"),
        ("retry", "take up again what was given up; send waiting deliveries now"),
        ("cancel", "give up by hand; what was delivered stays delivered"),
        ("resend", "send again what was confirmed, for a destination that has lost it"),
        ("export", "write the received file (patient data!) and all that is known to a new folder or ZIP file"),
        ("purge", "remove for good what is final: row and files; the trace stays"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("id", metavar="ID", help="SOP Instance UID, or the number in the list")
        if name == "show":
            action.add_argument("--json", action="store_true", help="one JSON object")
        if name == "resend":
            action.add_argument("--destination", metavar="NAME", help="only to this one")
        if name == "export":
            action.add_argument("to", metavar="TO", type=Path, help="a new folder, or a new file that ends in .zip")
        if name in ("export", "purge"):
            action.add_argument(
                "--conflict", metavar="SHA256", help="the object set aside with this digest (beginning)"
            )
        add_config(action)


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    settings = settings_of(args)
    if args.action in ("list", "show"):
        _look(settings, args)
    else:
        _act(settings, args)
    return 0


def _look(settings: NodeSettings, args: argparse.Namespace) -> None:
    with importing():
        from scp_node.jobs.reading import Reader

    with Reader(settings) as reader:
        match args.action:
            case "list" if args.conflicts:
                _print_conflicts(reader, args)
            case "list" if args.json:
                for record in islice(reader.list_instances(_filter(settings, args)), args.limit):
                    write_json(record.as_json())
            case "list":
                _print_list(reader, _filter(settings, args), args.limit or _SHOWN)
            case _ if args.json:
                from scp_node.jobs.export import describe

                write_json(describe(reader.show(args.id), ()))
            case _:
                _print_detail(reader.show(args.id))


def _act(settings: NodeSettings, args: argparse.Namespace) -> None:
    # Loads the durable engine: not for a mere list.
    from scp_node.jobs.admin import Admin

    with Admin(settings) as admin:
        match args.action:
            case "retry":
                _print_state(admin.retry(args.id))
            case "cancel":
                _print_state(admin.cancel(args.id))
            case "resend":
                _print_state(admin.resend(args.id, args.destination))
            case "export":
                console().print(cell(f"{admin.export(args.id, args.to, sha256=args.conflict)} written"))
            case _ if args.conflict is not None:
                admin.purge(args.id, sha256=args.conflict)
                digest = f"{args.conflict[:12]}..."
                console().print(cell(f"only the object set aside under {args.id} (SHA-256 {digest}) is removed"))
            case _:
                admin.purge(args.id)
                console().print(cell(f"{args.id} is removed"))


def _filter(settings: NodeSettings, args: argparse.Namespace) -> "InstanceFilter":
    from scp_node.jobs.records import InstanceFilter

    return InstanceFilter(
        states=(InstanceState(args.state),) if args.state else (),
        reason=args.reason,
        uid_prefix=args.uid,
        accession_pseudonym=None if args.accession is None else _pseudonym(settings, args.accession),
        calling_ae_title=args.caller,
        received_from=args.since,
        received_before=args.until,
    )


def _pseudonym(settings: NodeSettings, accession_number: str) -> str:
    from scp_node.jobs.accession import KEY_FILE, Pseudonyms

    folder = settings.spool.folder
    # The first number that arrives makes the key: until then nothing can be found, and a search makes none.
    return (Pseudonyms(folder).of(accession_number) if (folder / KEY_FILE).exists() else None) or "none"


def _time_of(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2026-11-23 or 2026-11-23T14:05") from error


def _reason(text: str) -> str:
    # Imported only when asked for: the first comes with numpy and pydicom.
    from inference.records import Reason
    from scp_node.jobs.states import DeadLetterReason

    known = [*(reason.value for reason in Reason), *(reason.value for reason in DeadLetterReason)]
    if text not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(known)}")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _print_list(reader: "Reader", which: "InstanceFilter", limit: int) -> None:
    counts = reader.counts(which)
    total = sum(counts.values())
    shown = table("", ">ID", "SOP Instance UID", "From", "Received", "State", "Reason", "Deliveries")
    for record in islice(reader.list_instances(which, newest_first=True), limit):
        shown.add_row(
            str(record.id),
            cell(record.sop_instance_uid),
            cell(record.calling_ae_title),
            moment(record.received_at),
            cell(record.state.value, _STYLES.get(record.state, "")),
            cell(record.reason or ""),
            cell(", ".join(_delivery(delivery) for delivery in record.deliveries)),
        )
    out = console()
    out.print(shown)
    summary = ", ".join(f"{count} {name.value}" for name, count in counts.items() if count) or "nothing of this kind"
    out.print(summary if total <= limit else f"{summary}; the newest {limit} of {total} are shown (--limit)")


def _delivery(delivery: "DeliveryRecord") -> str:
    tries = f" after {delivery.attempts}" if delivery.attempts > 1 else ""
    return f"{delivery.destination}: {delivery.state.value}{tries}"


def _print_detail(detail: "InstanceDetail") -> None:
    out = console()
    instance = detail.instance
    facts = table("", "Instance", str(instance.id))
    for name, value in (
        ("SOP Instance UID", instance.sop_instance_uid),
        ("Study Instance UID", instance.study_instance_uid),
        ("SOP Class UID", instance.sop_class_uid),
        ("Transfer Syntax UID", detail.transfer_syntax_uid),
        ("State", instance.state.value),
        ("Reason", f"{instance.reason}: {instance.detail}" if instance.reason else ""),
        ("From", f"{instance.calling_ae_title} at {instance.peer_address} to {detail.called_ae_title}"),
        ("Received", moment(instance.received_at)),
        ("File", f"{detail.file} ({size(detail.size_bytes)}, sha256 {detail.sha256})"),
        ("Analysed", f"{moment(detail.analysed_at)} in {detail.duration_s or 0:.1f} s" if detail.analysed_at else ""),
        ("Window", detail.window),
        ("Notes", "; ".join(detail.notes)),
        ("Crashes", detail.crashes or ""),
        ("Causes", "\n".join(detail.causes)),
        ("Job", detail.job_id),
    ):
        if value != "":
            facts.add_row(name, Text("\n").join(cell(line) for line in str(value).split("\n")))
    out.print(facts)
    if detail.predictions:
        rows = ((p.title, p.version, p.probability, p.threshold, p.is_positive) for p in detail.predictions)
        out.print(predictions_table("What the models say", rows))
    if instance.deliveries:
        deliveries = table("Deliveries", "Destination", "State", ">Attempts", "Next attempt", "Last error")
        for delivery in instance.deliveries:
            due = moment(delivery.next_attempt_at) if delivery.next_attempt_at else ""
            error = cell(delivery.last_error)
            deliveries.add_row(cell(delivery.destination), delivery.state.value, str(delivery.attempts), due, error)
        out.print(deliveries)
    if detail.results:
        results = table("Results", "Kind", "Model", "SOP Instance UID", ">Size", "Confirmed by")
        for result in detail.results:
            by = ", ".join(f"{word.destination}: {word.word}" for word in result.confirmations)
            by += " (superseded)" if result.is_superseded else ""
            results.add_row(
                result.kind.value, cell(result.model or ""), cell(result.sop_instance_uid), size(result.size_bytes), by
            )
        out.print(results)
    for conflict in detail.conflicts:
        out.print(
            cell(
                f"conflict: another object under this UID from {conflict.calling_ae_title} at {conflict.peer_address}, "
                f"{moment(conflict.received_at)}, kept in {conflict.file}"
            )
        )


def _print_state(record: "InstanceRecord") -> None:
    console().print(cell(f"{record.sop_instance_uid} is {record.state.value}"))


def _print_conflicts(reader: "Reader", args: argparse.Namespace) -> None:
    found = reader.conflicts(args.limit)
    if args.json:
        for record in found:
            write_json(
                {
                    "sop_instance_uid": record.sop_instance_uid,
                    "sha256": record.sha256,
                    "calling_ae_title": record.calling_ae_title,
                    "received_at": record.received_at.isoformat(),
                }
            )
        return
    shown = table("", "SOP Instance UID", "SHA-256", "From", "Received", "File")
    for record in found:
        sender = f"{record.calling_ae_title} at {record.peer_address}"
        values = (record.sop_instance_uid, record.sha256, sender, moment(record.received_at), record.file)
        shown.add_row(*(cell(value) for value in values))
    console().print(shown)
