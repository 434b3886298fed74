"""`scp-node destinations`: how each does, whether it answers now, and letting what waits go on at once."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.load import ConfigError
from config.settings import NodeSettings
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.cli.output import cell, console, moment, table, write_json

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers
    from scp_node.delivery.records import EchoOutcome
    from scp_node.jobs.health import DestinationHealth

_STYLES = {"closed": "green", "half_open": "yellow", "open": "bold red"}
_WORDS = {"closed": "up", "half_open": "on trial", "open": "down"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    health: "DestinationHealth"
    echo: "EchoOutcome | None"


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``destinations [resume NAME]``."""
    parser = add_command(
        subparsers,
        "destinations",
        summary="how each destination does; resume what waits",
        description="""
            Each destination with its state, what waits for it and its last error. up: deliveries are attempted. down:
            it is asked by C-ECHO every few seconds whether it is back, and nothing else is sent. on trial: it answered,
            and one delivery shows whether it takes objects again. Nothing of this needs a person; `resume` is for
            somebody who has just mended a PACS and does not want to wait.

            --json has the states of the circuit breaker: closed (up), open (down), half_open (on trial).
        """,
        examples="""
            scp-node destinations --config node.toml
            scp-node destinations --echo                ask each, now
            scp-node destinations --json | jq -r 'select(.state == "open") | .name'     those that are down
            scp-node destinations --json | jq -r 'select(.state != "closed") | .last_error'
            scp-node destinations resume pacs           send what waits for it, now
        """,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--echo", action="store_true", help="ask each destination now; exit code 1 if one is away")
    add_config(parser)
    actions = parser.add_subparsers(dest="action", metavar="[resume NAME]")
    resume = actions.add_parser("resume", help="attempt all deliveries to a destination again, now")
    resume.add_argument("name", metavar="NAME", help="name in the configuration")
    # Accepted behind the action too, without taking back what stood before it.
    resume.add_argument("--config", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="as above")


def run(args: argparse.Namespace) -> int:
    """Return 0; 1 if a destination that was asked is away."""
    settings = settings_of(args)
    from scp_node.jobs.overview import Overview

    with Overview(settings) as overview:
        if args.action == "resume":
            if args.name not in {destination.name for destination in settings.destinations}:
                raise ConfigError(f"no destination {args.name!r} is configured")
            waiting = overview.resume(args.name)
            console().print(cell(f"{args.name}: {waiting} waiting deliveries are attempted now"))
            return 0
        found = overview.health()
    echoes = _echo(settings) if args.echo else {}
    lines = [_Line(health=one, echo=echoes.get(one.name)) for one in found]
    if args.json:
        for line in lines:
            write_json(_as_json(line))
    else:
        _print(lines, with_echo=args.echo)
    return 1 if any(not echo.is_reachable for echo in echoes.values()) else 0


def _echo(settings: NodeSettings) -> "dict[str, EchoOutcome]":
    # Only here is anything sent or logged.
    from scp_node.delivery.catalog import echo
    from scp_node.telemetry import logs

    logs.configure(settings.logging, libraries=False)
    if not settings.destinations:
        return {}
    # At once: a black hole takes all of its time limit.
    with ThreadPoolExecutor(max_workers=len(settings.destinations)) as pool:
        outcomes = pool.map(lambda one: echo(one, settings.receiver.ae_title), settings.destinations)
        return {one.name: outcome for one, outcome in zip(settings.destinations, outcomes, strict=True)}


def _as_json(line: _Line) -> dict[str, object]:
    record = line.health.as_json()
    if line.echo is not None:
        record["echo"] = {
            "is_reachable": line.echo.is_reachable,
            "duration_s": round(line.echo.duration_s, 3),
            "detail": line.echo.detail,
        }
    return record


def _print(lines: list[_Line], *, with_echo: bool) -> None:
    columns = ["Destination", "State", "Since", ">Waiting", "Oldest", "Next question", "Last error"]
    shown = table("", *columns, *(["C-ECHO now"] if with_echo else []))
    for line in lines:
        one = line.health
        row = [
            cell(one.name),
            cell(_WORDS[one.state.value], _STYLES[one.state.value]),
            cell(moment(one.since) if one.since else ""),
            cell(one.waiting),
            cell(moment(one.oldest_waiting_at) if one.oldest_waiting_at else ""),
            cell(moment(one.next_probe_at) if one.next_probe_at else ""),
            cell(f"{moment(one.last_error_at)} {one.last_error}" if one.last_error_at else ""),
        ]
        if with_echo:
            style = "" if line.echo is None else "green" if line.echo.is_reachable else "bold red"
            row.append(cell("" if line.echo is None else line.echo.detail, style))
        shown.add_row(*row)
    out = console()
    out.print(shown)
    if not lines:
        out.print("no destination is configured")
