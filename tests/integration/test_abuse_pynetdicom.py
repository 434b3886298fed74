"""The findings M1 to M5, M11 and M12: each attack against pynetdicom as it comes, which falls, and against the node.

The first half of each test states the library's defect. When it fails, the library has mended it: then the node's own
measure can be looked at again.
"""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom import dcmread
from raw_attacks import request, requests
from raw_dicom import (
    ASSOCIATE_AC,
    CLOSED,
    ECHO_COMMAND,
    Client,
    associate_request,
    data,
    data_set,
    store_command,
)

from config.load import load
from scp_node.jobs.admin import Admin
from scp_node.jobs.trace import Event
from scp_node.scp.server import listen
from tests.faults.processes import Program, scp_node, wait_until

PLAIN_SCP = Path(__file__).parents[1] / "support" / "plain_scp.py"
LIMIT_S = 120


class Library:
    """A plain pynetdicom SCP in a process of its own."""

    def __init__(self, *files):
        self.process = subprocess.Popen([sys.executable, PLAIN_SCP, *files], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def resident_bytes(self):
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self):
        self.process.kill()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture
def library():
    started = []

    def start(*files):
        started.append(Library(*files))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def unharmed():
    """One plain SCP for the attacks that cost nobody else anything."""
    one = Library()
    yield one
    one.stop()


def is_served(port, tls=None, limit_s=LIMIT_S):
    """Whether somebody gets an association and the answer to a C-ECHO."""
    context = tls
    with contextlib.ExitStack() as stack:
        try:
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=limit_s))
            if context is not None:
                raw = stack.enter_context(context.wrap_socket(raw, server_hostname="127.0.0.1"))
            raw.sendall(associate_request())
            if raw.recv(1) != bytes([ASSOCIATE_AC]):
                return False
            raw.sendall(data(ECHO_COMMAND, 3, 3))
            raw.settimeout(limit_s)
            return bool(raw.recv(1))
        except (TimeoutError, ConnectionError, ssl.SSLError):
            return False


def test_m1_a_silent_connection_on_the_tls_port(library, receiving, pki):
    """The library shakes hands where it accepts, without a time limit."""
    files = [pki.certificate("node"), pki.key("node"), pki.certificate("first")]
    plain = library(*files)
    assert is_served(plain.port, pki.client())
    with socket.create_connection(("127.0.0.1", plain.port)):
        assert not is_served(plain.port, pki.client(), limit_s=4)
    running = receiving(tls=pki.receiver(only=True, handshake_timeout_s=30))
    with socket.create_connection(("127.0.0.1", running.tls_port)):
        # Before the silent one is ended.
        assert is_served(running.tls_port, pki.client(), limit_s=20)
    running.wait_until_quiet(limit_s=LIMIT_S)


def probe(port):
    """As a port scanner or a load balancer does: connect, close; more often than there are places."""
    for _ in range(15):
        socket.create_connection(("127.0.0.1", port)).close()


def test_m2_connections_that_are_closed_already(library, receiving):
    plain = library()
    assert is_served(plain.port)
    probe(plain.port)
    assert not is_served(plain.port)
    running = receiving(maximum_associations=10, acse_timeout_s=30)
    probe(running.port)
    assert is_served(running.port)
    running.wait_until_quiet(limit_s=LIMIT_S)


@pytest.mark.parametrize("name", ["context id even", "context id 0", "titles blank"])
def test_m3_requests_that_kill_the_thread_that_reads(library, receiving, name):
    content, _ = requests()[name]

    def attack(port):
        for _ in range(15):
            with Client(port) as client:
                client.send(content)
                client.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    client.receive()

    plain = library()
    attack(plain.port)
    assert not is_served(plain.port)
    running = receiving(maximum_associations=10, acse_timeout_s=30)
    attack(running.port)
    assert is_served(running.port)
    running.wait_until_quiet(limit_s=LIMIT_S)


def test_m4_a_pdu_of_any_length(library, receiving):
    """Before anybody has said who it is: the length field is believed."""
    size = 120 * 2**20

    def attack(port):
        with Client(port) as client, contextlib.suppress(OSError):
            client.socket.sendall(b"\1\0" + (2**32 - 1).to_bytes(4, "big"))
            for _ in range(size // 2**20):
                client.socket.sendall(bytes(2**20))
            yield
        yield

    plain = library()
    before = plain.resident_bytes()
    attacking = attack(plain.port)
    next(attacking)
    deadline = time.monotonic() + LIMIT_S
    while plain.resident_bytes() - before < size // 2:
        assert time.monotonic() < deadline, "the library has stopped believing lengths"
        time.sleep(0.05)
    attacking.close()
    running = receiving()
    before = Library.resident_bytes(_Own())
    for _ in attack(running.port):
        assert Library.resident_bytes(_Own()) - before < 50 * 2**20
    running.wait_until_quiet(limit_s=LIMIT_S)


class _Own:
    """This process, in the place of the library's."""

    process = type("process", (), {"pid": os.getpid()})


def test_m4_a_command_set_of_any_length(unharmed, receiving):
    """8 MB; a C-STORE-RQ has below 500 bytes."""

    def attack(port, limit_s):
        with Client(port, associated=True) as client:
            client.socket.settimeout(limit_s)
            try:
                for _ in range(8 * 2**20 // 16000):
                    client.socket.sendall(data(bytes(16000), 1))
                answer = client.receive()
            except TimeoutError:
                return "swallowed"
            except OSError:
                return "ended"
            return "ended" if answer == CLOSED or answer[0] == 7 else "answered"

    assert attack(unharmed.port, 2) == "swallowed"
    running = receiving()
    assert attack(running.port, LIMIT_S) == "ended"
    running.wait_until_quiet(limit_s=LIMIT_S)


def test_m5_a_burst_while_nobody_accepts(library):
    """How many connections the system keeps for a process that is busy."""

    def burst(port):
        waiting = []
        try:
            for _ in range(70):
                waiting.append(socket.create_connection(("127.0.0.1", port), timeout=0.5))
        except TimeoutError:
            pass
        for connection in waiting:
            connection.close()
        return len(waiting)

    plain = library()
    plain.process.send_signal(signal.SIGSTOP)
    try:
        assert burst(plain.port) < 10
    finally:
        plain.process.send_signal(signal.SIGCONT)
    with listen("127.0.0.1", 0) as listener:
        assert burst(listener.getsockname()[1]) == 70


def test_m11_another_object_under_a_known_uid(library, tmp_path, free_port):
    """Of another patient, with other pixels. The library's examples write over the first, and nobody hears of it."""
    first, other = (data_set(filler=size).replace(b"CANARY^Patient  ", name) for size, name in TWO)
    kept = tmp_path / "library"
    kept.mkdir()
    plain = library("--folder", kept)
    assert [store(plain.port, content) for content in (first, other)] == [0, 0]
    (file,) = kept.iterdir()
    assert str(dcmread(file).PatientName) == "OTHER^Patient"
    with receiver_of_a_node(tmp_path / "node", free_port()) as (settings, port):
        assert [store(port, content) for content in (first, other)] == [0, 0]
        with Admin(settings) as admin:
            (record,) = admin.list_instances()
            detail = admin.show(record.sop_instance_uid)
            events = [entry.event for entry in admin.history(record.sop_instance_uid)]
        assert str(dcmread(detail.file).PatientName) == "FIRST^Patient"
        (aside,) = detail.conflicts
        assert str(dcmread(aside.file).PatientName) == "OTHER^Patient"
        assert events == [Event.RECEIVED, Event.CONFLICT]


TWO = ((1000, b"FIRST^Patient   "), (2000, b"OTHER^Patient   "))


def store(port, content):
    """Status of a C-STORE."""
    with Client(port, associated=True) as client:
        client.send(data(store_command(), 3) + data(content, 2))
        return client.status()


@contextlib.contextmanager
def receiver_of_a_node(folder, port):
    """`scp-node serve --role receiver` with spool, database and audit trail of its own."""
    folder.mkdir()
    variables = {
        "SCP_NODE__RECEIVER__PORT": str(port),
        "SCP_NODE__RECEIVER__AE_TITLE": "NODE",
        "SCP_NODE__LOGGING__FORMAT": "json",
        "SCP_NODE__SPOOL__FOLDER": str(folder / "spool"),
        "SCP_NODE__SPOOL__MINIMUM_FREE_BYTES": "0",
        "SCP_NODE__DATABASE__URL": f"sqlite:///{folder / 'node.sqlite'}",
    }
    program = Program("receiver", scp_node("serve", "--role", "receiver"), folder / "log", variables)
    program.start()
    try:
        wait_until(lambda: b'"receiving"' in program.log.read_bytes(), LIMIT_S, "the start of the receiver")
        yield load(None, variables), port
    finally:
        program.terminate()


@pytest.mark.parametrize("instance", ["", None])
def test_m12_an_object_without_a_uid(unharmed, receiving, instance):
    """The library never answers; its sender waits for a time-out."""

    def attack(port, limit_s):
        with Client(port, associated=True) as client:
            client.send(data(store_command(instance=instance), 3) + data(data_set(), 2))
            client.socket.settimeout(limit_s)
            try:
                return client.status()
            except TimeoutError:
                return None

    assert attack(unharmed.port, 3) is None
    running = receiving()
    assert attack(running.port, LIMIT_S) == 0x0117
    running.wait_until_quiet(limit_s=LIMIT_S)


def test_a_good_request_is_served_by_both(unharmed, receiving):
    """What the tests above mean by being served, without an attack."""
    for port in (unharmed.port, receiving().port):
        assert is_served(port)
        with Client(port, associated=True, request=request()):
            pass
