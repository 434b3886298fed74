"""`scp-node console`: the web console beside a node, and the users who may log in."""

import argparse
import getpass
import secrets
import sys
from typing import TYPE_CHECKING

from config.console import ConsoleUser, Role
from scp_node.cli import signals
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.telemetry import logs

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``console serve|add-user``."""
    parser = add_command(
        subparsers,
        "console",
        summary="the web console, and its users",
        description="""
            `scp-node serve` runs the console too. `console serve` runs it alone, beside a node on the same database
            and spool. `console add-user` prints lines for the configuration; nothing is stored.
        """,
        examples="""
            scp-node console serve --config node.toml
            scp-node console add-user anna --role operator >> node.toml
        """,
    )
    actions = parser.add_subparsers(dest="action", metavar="serve|add-user", required=True)
    serve = actions.add_parser("serve", help="run the console alone until stopped", description="Run the console.")
    add_config(serve)
    add = actions.add_parser(
        "add-user",
        help="print a user for the configuration",
        description="Ask for a password, or read it from standard input, and print the user as TOML.",
    )
    add.add_argument("name", metavar="NAME", help="letters, digits, . _ @ -")
    add.add_argument("--role", choices=[role.value for role in Role], default=Role.VIEWER.value)
    add.add_argument("--generate", action="store_true", help="make a password and show it on standard error")


def run(args: argparse.Namespace) -> int:
    """Do what ``args.action`` says."""
    return _add_user(args) if args.action == "add-user" else _serve(args)


def _add_user(args: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from config.load import ConfigError, reason
    from scp_node.console.access import hash_password

    try:
        user = ConsoleUser(name=args.name, role=Role(args.role))
    except ValidationError as error:
        raise ConfigError(f"{args.name}: {reason(error.errors()[0])}") from None
    password = _password(generate=args.generate)
    try:
        hashed = hash_password(password)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    sys.stdout.write(
        f'\n[[console.users]]\nname = "{user.name}"\nrole = "{user.role.value}"\npassword_hash = "{hashed}"\n'
    )
    return 0


def _password(*, generate: bool) -> str:
    from config.load import ConfigError

    if generate:
        made = secrets.token_urlsafe(15)
        sys.stderr.write(f"password: {made}\n")
        return made
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("password: ")
    if getpass.getpass("once more: ") != password:
        raise ConfigError("the two are not the same")
    return password


def _serve(args: argparse.Namespace) -> int:
    asked = signals.catch()
    settings = settings_of(args)
    logs.configure(settings.logging)

    from scp_node.console.server import Server
    from scp_node.jobs import database

    engine = database.open_engine(settings.database.url, create_folder=False)
    server = Server(settings, engine)
    server.start()
    try:
        while not asked.stop.wait(0.5):
            if asked.reload.is_set():
                asked.reload.clear()
                server.refresh_certificates()
    finally:
        server.stop(settings.service.stop_timeout_s)
        engine.dispose()
    return 0
