"""Main program of one more acceptor process: a receiver on sockets that listen already. Started by `acceptors.py` only.

Orders are JSON, one a line, over an inherited socket: first the settings, then those to reload, last the order to stop.
"""

import json
import os
import signal
import socket
import sys
from typing import TextIO

import structlog

from config.settings import NodeSettings
from scp_node.errors import StartError
from scp_node.jobs.allocator import share_arenas
from scp_node.jobs.node import Node
from scp_node.jobs.roles import Role
from scp_node.telemetry import logs

_log = structlog.get_logger(__name__)


def main(orders: int, *listeners: str) -> int:
    """Receive until the parent says stop, or dies; ``listeners``: descriptors for plain and for TLS, ``-`` for none."""
    # They reach the whole group of processes; the parent alone decides when this one ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    share_arenas()
    # Read only: a text file for both ways forgets what it has read ahead when something is written.
    with socket.socket(fileno=orders) as connection, connection.makefile("r", encoding="utf-8") as lines:
        settings = NodeSettings.model_validate(json.loads(lines.readline()))
        logs.configure(settings.logging)
        plain, tls = (None if one == "-" else socket.socket(fileno=int(one)) for one in listeners)
        try:
            with Node(settings, roles=[Role.RECEIVER], listeners=(plain, tls)) as node:
                _obey(node, lines)
        except StartError as error:
            _log.error("acceptor not started", reason=str(error))
            return 1
    return 0


def _obey(node: Node, lines: TextIO) -> None:
    for line in lines:
        order = json.loads(line)
        if "stop" in order:
            node.stop(order["stop"])
            return
        node.reload(NodeSettings.model_validate(order))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
