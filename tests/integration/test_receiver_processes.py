"""Several processes accept on one port: who is killed is replaced, and nothing that was answered is lost."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import raw_dicom
import sqlalchemy as sa

from config.receiver import Caller, ReceiverSettings
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.jobs.database import open_engine
from scp_node.jobs.node import Node
from scp_node.jobs.roles import Role
from scp_node.jobs.tables import instance

LIMIT_S = 120


def until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def settings(tmp_path):
    return NodeSettings(
        receiver=ReceiverSettings(ae_title="NODE", processes=2, acse_timeout_s=30),
        spool=SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{tmp_path / 'node.sqlite'}"),
    )


def accepting(port):
    """Open an association and return its client."""
    return raw_dicom.Client(port, associated=True)


def descriptors_of(pid):
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(str(Path(entry.path).readlink()))
    return sum(name.startswith("socket:") for name in found)


def test_connections_spread_a_killed_process_is_replaced_and_nothing_is_lost(settings):
    with Node(settings, roles=[Role.RECEIVER], receiver_port=0) as node:
        port = node.port
        (first,) = node.acceptor_processes
        # It takes connections once it has loaded, and then every now and then.
        idle = descriptors_of(first)

        def has_one():
            with accepting(port):
                return descriptors_of(first) > idle + 2

        until(has_one)

        os.kill(first, signal.SIGKILL)
        second = until(lambda: next((pid for pid in node.acceptor_processes if pid != first), None))
        assert Path(f"/proc/{second}").exists()

        # Objects over many associations, whoever takes them: each answered one is on record.
        def send(number):
            uid = f"1.2.3.{number}"
            with accepting(port) as client:
                client.send(raw_dicom.data(raw_dicom.store_command(uid), 3))
                client.send(raw_dicom.data(raw_dicom.data_set(uid, 50_000), 2))
                if client.status() == 0:
                    stored.append(uid)
                client.send(raw_dicom.RELEASE_RQ)
                client.receive()

        stored = []
        threads = [threading.Thread(target=send, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert len(stored) == 12
        engine = open_engine(settings.database.url)
        with engine.connect() as connection:
            known = set(connection.execute(sa.select(instance.c.sop_instance_uid)).scalars())
        engine.dispose()
        assert known == set(stored)

        # Another list of callers reaches every process.
        only = settings.receiver.model_copy(update={"callers": (Caller(ae_title="OTHER"),)})
        assert node.reload(settings.model_copy(update={"receiver": only}))
        until(lambda: all(refused(port) for _ in range(6)))
    until(lambda: not Path(f"/proc/{second}").exists())


def refused(port):
    try:
        accepting(port).socket.close()
    except (AssertionError, OSError):
        return True
    return False


def test_they_end_with_the_node_however_it_ends(settings):
    """A parent that is killed says nothing: its end of the socket does."""
    from multiprocessing import get_context

    context = get_context("spawn")
    queue = context.Queue()
    parent = context.Process(target=_serve, args=(settings, queue))
    parent.start()
    acceptor = queue.get(timeout=LIMIT_S)
    os.kill(parent.pid, signal.SIGKILL)
    parent.join(LIMIT_S)
    until(lambda: not Path(f"/proc/{acceptor}").exists() or is_zombie(acceptor))


def is_zombie(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def _serve(settings, queue):
    with Node(settings, roles=[Role.RECEIVER], receiver_port=0) as node:
        queue.put(node.acceptor_processes[0])
        threading.Event().wait()
