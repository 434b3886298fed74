"""`scp-node serve`: run the node until a signal asks it to stop."""

import argparse
import os
from typing import TYPE_CHECKING

import structlog

from config.load import ConfigError
from scp_node.cli import signals
from scp_node.cli.options import add_command, add_config, settings_of
from scp_node.garbage import importing
from scp_node.telemetry import logs

if TYPE_CHECKING:
    from scp_node.cli.options import Subparsers
    from scp_node.jobs.node import Node


_ROLES = ("receiver", "worker", "console")
"""As in `scp_node.jobs.roles.Role`, which is imported late; a test compares them."""


def add_parser(subparsers: "Subparsers") -> None:
    """Add ``serve``."""
    parser = add_command(
        subparsers,
        "serve",
        summary="receive, analyse and deliver until stopped",
        description="""
            Run the node: receive by C-STORE, analyse, deliver results. Without a file it serves on 127.0.0.1:11112
            as SCP_NODE and keeps its data under ./scp-node-data. SIGTERM or Ctrl-C stops it: running work ends, the
            rest is taken up at the next start. A second signal stops at once; nothing acknowledged is lost. SIGHUP
            reads the list of callers and the certificates again, without ending an association.
        """,
        examples="""
            scp-node serve
            scp-node serve --config node.toml
            scp-node serve --config node.toml --role receiver
            SCP_NODE__LOGGING__FORMAT=json scp-node serve --config node.toml
        """,
    )
    add_config(parser)
    parser.add_argument(
        "--role",
        action="append",
        choices=[*_ROLES, "all"],
        help="what this process does; may be given several times (default: all)",
    )


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; return 0 after an orderly stop.

    Raises
    ------
    StartError
        Something is not as configured, or the models cannot be loaded at the first attempt. What was received until
        then is kept and analysed by the next start.
    """
    asked = signals.catch()
    settings = settings_of(args)
    logs.configure(settings.logging)
    # For what libraries make too: the database's file, caches, temporary files. Folders of results in a share included.
    os.umask(0o077)
    log = structlog.get_logger(__name__)

    with importing():
        # Imported late: a wrong configuration is reported before the engine loads.
        from scp_node.jobs.allocator import share_arenas
        from scp_node.jobs.node import Node
        from scp_node.jobs.roles import Role

        share_arenas()
        names = args.role or ["all"]
        node = Node(settings, roles=None if "all" in names else [Role(name) for name in names])
        node.start()
    try:
        log.info("serving", roles=[role.value for role in node.roles])
        if Role.RECEIVER in node.roles:
            log.info(
                "receiving",
                ae_title=settings.receiver.ae_title,
                bind=settings.receiver.bind,
                port=None if settings.receiver.tls.only else node.port,
                tls_port=settings.receiver.tls.port if settings.receiver.tls.enabled else None,
                destinations=[destination.name for destination in settings.destinations],
            )
        is_ready = False
        # Waiting with a limit lets Python run the signal handler on every platform.
        while not asked.stop.wait(0.5):
            # Models load while objects are already received. Once they have, children that die are replaced for ever.
            is_ready = is_ready or node.wait_ready(0)
            if asked.reload.is_set():
                asked.reload.clear()
                _reload(node, args)
        log.info("stopping")
    finally:
        node.stop()
    log.info("stopped")
    return 0


def _reload(node: "Node", args: argparse.Namespace) -> None:
    log = structlog.get_logger(__name__)
    try:
        settings = settings_of(args)
    except ConfigError as error:
        log.error("not reloaded", reason=str(error))  # noqa: TRY400 - the sentence says all there is to say
        return
    if node.reload(settings):
        log.info("reloaded", callers=len(settings.receiver.callers))
