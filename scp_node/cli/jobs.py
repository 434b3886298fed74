"""`scp-node jobs`: list, show, retry and cancel what was received; works beside a running node and without one."""

import argparse
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, predictions_table, size, table, write_json
from scp_node.records import InstanceState

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers
    from scp_node.jobs.admin import Admin
    from scp_node.jobs.records import DeliveryRecord, InstanceDetail, InstanceRecord

_SHOWN = 100
_STYLES = {
    InstanceState.DELIVERED: "green",
    InstanceState.NOT_ELIGIBLE: "yellow",
    InstanceState.DEAD_LETTER: "bold red",
}


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``jobs list|show|retry|cancel``."""
    parser = add_command(
        subparsers,
        "jobs",
        summary="list, show, retry and cancel what was received",
        description="""
            What became of every received instance. States: received, analysing, delivering, and finally delivered,
            not_eligible (with a reason) or dead_letter (with a reason; can be retried). ID is the SOP Instance UID
            or the number in the list.
        """,
        examples="""
            scp-node jobs list --state dead_letter
            scp-node jobs list --json | jq -r 'select(.state != "delivered") | .sop_instance_uid'
            scp-node jobs show 1.2.840.113619.2.5.1
            scp-node jobs retry 17
        """,
    )
    actions = parser.add_subparsers(dest="action", metavar="list|show|retry|cancel", required=True)
    listing = actions.add_parser("list", help="one line per received instance")
    listing.add_argument("--json", action="store_true", help="one JSON object a line, in order of arrival")
    listing.add_argument("--state", choices=[state.value for state in InstanceState], help="only these")
    listing.add_argument("--limit", type=_positive, help=f"at most this many (table: newest {_SHOWN}; JSON: all)")
    add_config(listing)
    for name, summary in (
        ("show", "all that is known of one instance"),
        ("retry", "take up again what was given up; send waiting deliveries now"),
        ("cancel", "give up by hand; what was delivered stays delivered"),
    ):
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("id", metavar="ID", help="SOP Instance UID, or the number in the list")
        add_config(action)


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    settings = settings_of(args)

    from scp_node.jobs.admin import Admin

    with Admin(settings) as admin:
        match args.action:
            case "list" if args.json:
                for record in islice(admin.list_instances(_state(args)), args.limit):
                    write_json(record.as_json())
            case "list":
                _print_list(admin, _state(args), args.limit or _SHOWN)
            case "show":
                _print_detail(admin.show(args.id))
            case "retry":
                _print_state(admin.retry(args.id))
            case _:
                _print_state(admin.cancel(args.id))
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _state(args: argparse.Namespace) -> InstanceState | None:
    return InstanceState(args.state) if args.state else None


def _print_list(admin: "Admin", state: InstanceState | None, limit: int) -> None:
    counts = admin.counts()
    total = sum(counts.values()) if state is None else counts[state]
    shown = table("", ">ID", "SOP Instance UID", "From", "Received", "State", "Reason", "Deliveries")
    for record in islice(admin.list_instances(state, newest_first=True), limit):
        shown.add_row(
            str(record.id),
            cell(record.sop_instance_uid),
            cell(record.calling_ae_title),
            _time(record.received_at),
            cell(record.state.value, _STYLES.get(record.state, "")),
            cell(record.reason or ""),
            cell(", ".join(_delivery(delivery) for delivery in record.deliveries)),
        )
    out = console()
    out.print(shown)
    summary = ", ".join(f"{count} {name.value}" for name, count in counts.items() if count) or "nothing received yet"
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
        ("SOP Class UID", instance.sop_class_uid),
        ("Transfer Syntax UID", detail.transfer_syntax_uid),
        ("State", instance.state.value),
        ("Reason", f"{instance.reason}: {instance.detail}" if instance.reason else ""),
        ("From", f"{instance.calling_ae_title} at {instance.peer_address} to {detail.called_ae_title}"),
        ("Received", _time(instance.received_at)),
        ("File", f"{detail.file} ({size(detail.size_bytes)}, sha256 {detail.sha256})"),
        ("Analysed", f"{_time(detail.analysed_at)} in {detail.duration_s or 0:.1f} s" if detail.analysed_at else ""),
        ("Window", detail.window),
        ("Notes", "; ".join(detail.notes)),
        ("Crashes", detail.crashes or ""),
        ("Job", detail.job_id),
    ):
        if value != "":
            facts.add_row(name, cell(value))
    out.print(facts)
    if detail.predictions:
        rows = ((p.title, p.version, p.probability, p.threshold, p.is_positive) for p in detail.predictions)
        out.print(predictions_table("What the models say", rows))
    if instance.deliveries:
        deliveries = table("Deliveries", "Destination", "State", ">Attempts", "Next attempt", "Last error")
        for delivery in instance.deliveries:
            due = _time(delivery.next_attempt_at) if delivery.next_attempt_at else ""
            error = cell(delivery.last_error)
            deliveries.add_row(cell(delivery.destination), delivery.state.value, str(delivery.attempts), due, error)
        out.print(deliveries)
    if detail.results:
        results = table("Results", "Kind", "Model", "SOP Instance UID", ">Size", "Confirmed by")
        for result in detail.results:
            by = ", ".join(f"{word.destination}: {word.verdict.value}" for word in result.confirmations)
            results.add_row(
                result.kind.value, cell(result.model or ""), cell(result.sop_instance_uid), size(result.size_bytes), by
            )
        out.print(results)
    for conflict in detail.conflicts:
        out.print(
            cell(
                f"conflict: another object under this UID from {conflict.calling_ae_title} at {conflict.peer_address}, "
                f"{_time(conflict.received_at)}, kept in {conflict.file}"
            )
        )


def _print_state(record: "InstanceRecord") -> None:
    console().print(cell(f"{record.sop_instance_uid} is {record.state.value}"))


def _time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
