"""Clients that break the rules, byte by byte: nobody else waits, nothing is kept, memory stays small.

Whole tables of broken messages are in test_abuse_messages.py.
"""

import contextlib
import socket
import struct
import threading
import time

import pytest
from raw_dicom import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CLOSED,
    ECHO_COMMAND,
    INSTANCE,
    RELEASE_RQ,
    Client,
    assert_echo_is_quick,
    associate_request,
    data,
    data_set,
    pdu,
    resident_bytes,
    store_command,
)

from scp_node.scp.connection import Connection

# --- nobody else waits -----------------------------------------------------------------------------------------------


def test_idle_connections_take_no_place(receiving):
    """Four times as many as there are places for associations."""
    running = receiving(maximum_associations=10, acse_timeout_s=30)
    idle = [Client(running.port) for _ in range(40)]
    assert_echo_is_quick(running.port)
    assert running.receiver.connections >= 40
    for client in idle:
        client.socket.close()
    running.wait_until_quiet()


def test_an_idle_connection_is_ended(receiving):
    running = receiving(acse_timeout_s=0.3)
    with Client(running.port) as client:
        assert client.receive() == CLOSED
    running.wait_until_quiet()


def test_quick_connections_take_no_place(receiving):
    running = receiving(maximum_associations=10)
    for _ in range(200):
        Client(running.port).socket.close()
    assert_echo_is_quick(running.port)
    running.wait_until_quiet()


def test_idle_associations_cost_next_to_nothing(receiving):
    """Archives keep associations open; the processor belongs to the models. The library's threads would take 0.3 s."""
    running = receiving()
    clients = [Client(running.port, associated=True) for _ in range(10)]
    # The best of a few: what else this process does is noise, which only ever adds.
    assert min(share_of_the_processor(1) for _ in range(5)) < 0.15
    for client in clients:
        client.send(RELEASE_RQ)
        assert client.receive()[0] == 6
        client.socket.close()


def share_of_the_processor(seconds):
    """Of this process, while it waits; on a busy machine for longer than it was told."""
    before, begun = time.process_time(), time.monotonic()
    time.sleep(seconds)
    return (time.process_time() - before) / (time.monotonic() - begun)


def test_the_connection_that_has_waited_longest_makes_room(receiving, monkeypatch):
    """Silent connections may fill the lobby; who comes next is served all the same."""
    monkeypatch.setattr("scp_node.scp.acceptor._EXTRA_CONNECTIONS", 3)
    running = receiving(maximum_associations=2, acse_timeout_s=30)
    idle = []
    deadline = time.monotonic() + 60
    for number in range(3):
        idle.append(Client(running.port))
        while running.receiver.connections <= number:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert_echo_is_quick(running.port)
    assert idle[0].receive() == CLOSED
    for client in idle:
        client.socket.close()
    running.wait_until_quiet()


# --- lengths and limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("associated", "kind", "length"),
    [(False, 1, 2**32 - 1), (False, 1, 2**20), (True, 4, 2**32 - 1), (True, 4, 131072 + 1025), (True, 5, 2**20)],
)
def test_a_pdu_beyond_its_limit_ends_the_association(receiving, associated, kind, length):
    running = receiving()
    before = resident_bytes()
    with Client(running.port, associated=associated) as client:
        client.send(struct.pack(">BBL", kind, 0, length))
        assert client.receive()[0] == ABORT
        client.send(bytes(2**20))
    running.wait_until_quiet()
    assert resident_bytes() - before < 50 * 2**20


def test_what_follows_an_abort_is_not_stored_in_memory(receiving):
    """The peer goes on sending at full speed until the ARTIM time-out."""
    running = receiving(acse_timeout_s=0.5)
    before = resident_bytes()
    with Client(running.port) as client:
        client.send(struct.pack(">BBL", 1, 0, 2**32 - 1))
        deadline = time.monotonic() + 60
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                client.socket.sendall(bytes(2**20))
        assert time.monotonic() < deadline
    running.wait_until_quiet()
    assert resident_bytes() - before < 50 * 2**20


def test_a_pdu_that_trickles_in_is_not_waited_for(receiving):
    """One byte now and then resets no clock."""
    running = receiving(network_timeout_s=0.5, dimse_timeout_s=30)
    with Client(running.port, associated=True) as client:
        # For a minute, if nobody minds.
        content, sent = data(bytes(600), 1), 0
        with contextlib.suppress(ConnectionError):
            for position in range(len(content)):
                client.socket.sendall(content[position : position + 1])
                sent += 1
                time.sleep(0.1)
        assert sent < len(content)
    running.wait_until_quiet()


def test_half_a_request_is_not_waited_for(receiving):
    running = receiving(acse_timeout_s=0.3, network_timeout_s=30)
    with Client(running.port) as client:
        client.send(associate_request()[:50])
        assert client.receive() == CLOSED
    running.wait_until_quiet()


def test_silence_within_an_object_is_not_waited_for(receiving):
    running = receiving(network_timeout_s=0.3, dimse_timeout_s=30)
    with Client(running.port, associated=True) as client:
        client.send(data(store_command(), 3) + data(data_set()[:100], 0))
        assert client.is_aborted()
    running.wait_until_quiet()
    assert running.instances == {}


def test_requests_without_waiting_for_answers_are_limited(receiving):
    """Each waiting object is a file; nobody may pile them up."""
    running = receiving()
    opened = []
    open_incoming = running.spool.open_incoming
    running.spool.open_incoming = lambda header: opened.append(header) or open_incoming(header)
    blocked = threading.Event()
    running.before_accept = lambda instance: blocked.wait(60) and None
    with Client(running.port, associated=True) as client:
        client.send((data(store_command(), 3) + data(data_set(), 2)) * 40)
        assert client.is_aborted()
    blocked.set()
    running.wait_until_quiet()
    assert 1 <= len(opened) <= 10


def test_an_answer_that_the_peer_cannot_take_ends_its_association_only(receiving):
    """Maximum lengths from 1 to 6 leave no room for any answer."""
    running = receiving()
    for length in (1, 5, 6, 7):
        with Client(running.port) as client:
            client.send(associate_request(maximum_length=length))
            assert client.receive()[0] == ASSOCIATE_AC
            client.send(data(ECHO_COMMAND, 3, 3))
            client.receive()
    running.wait_until_quiet()
    assert_echo_is_quick(running.port)


# --- answers and files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (store_command(instance=None), 0x0117),
        (store_command(instance=""), 0x0117),
        (store_command(instance="../../../tmp/x"), 0x0117),
        (store_command(instance="1.2.\x1b[31m"), 0x0117),
        (store_command(instance="1" * 65), 0x0117),
        (store_command(sop_class=None), 0x0122),
        (store_command(sop_class="1.2.840.10008.5.1.4.1.1.2"), 0x0122),
        (store_command(instance="9.9"), 0xA900),
    ],
)
def test_a_bad_request_is_answered_at_once_and_the_association_goes_on(receiving, command, status):
    # Long before a time-out: nobody would hear from this receiver within what the client waits.
    running = receiving(dimse_timeout_s=600, network_timeout_s=600)
    with Client(running.port, associated=True) as client:
        client.send(data(command, 3) + data(data_set(), 2))
        assert client.status() == status
        client.send(data(store_command(), 3) + data(data_set(), 2))
        assert client.status() == 0
        client.send(RELEASE_RQ)
        assert client.receive()[0] == 6
    running.wait_until_quiet()
    assert list(running.instances) == [INSTANCE]


def test_a_request_without_data_set_is_answered(receiving):
    running = receiving()
    with Client(running.port, associated=True) as client:
        client.send(data(store_command(data_set_type=0x0101), 3))
        assert client.status() == 0xC000
        client.send(data(store_command(), 3) + data(b"", 2))
        assert client.status() == 0xC000


@pytest.mark.parametrize("ending", ["abort", "close", "reset", "release"])
def test_an_object_that_breaks_off_leaves_nothing(receiving, ending):
    running = receiving()
    with Client(running.port, associated=True) as client:
        client.send(data(store_command(), 3) + data(data_set(filler=50000)[:40000], 0))
        deadline = time.monotonic() + 60
        while not running.temporary_files():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if ending == "abort":
            client.send(pdu(7, bytes(4)))
        elif ending == "release":
            client.send(RELEASE_RQ)
            client.receive()
        elif ending == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    running.wait_until_quiet()
    assert running.instances == {}
    assert running.stored == {}


def test_fragments_of_any_size_make_the_same_object(receiving):
    running = receiving()
    content = data_set(filler=300)
    with Client(running.port, associated=True) as client:
        command = store_command()
        client.send(b"".join(data(command[i : i + 1], 1) for i in range(len(command))) + data(b"", 3))
        client.send(b"".join(data(content[i : i + 1], 0) for i in range(len(content))) + data(b"", 2))
        assert client.status() == 0
        client.send(RELEASE_RQ)
        assert client.receive()[0] == 6
    assert running.stored[INSTANCE].read_bytes().endswith(content)
    assert running.instances[INSTANCE].size_bytes == len(content)


def test_parallel_associations_do_not_mix(receiving):
    running = receiving()
    uids = [f"1.2.{number}" for number in range(8)]
    clients = [Client(running.port, associated=True) for _ in uids]
    contents = [data_set(uid, filler=60000) for uid in uids]
    for uid, client in zip(uids, clients, strict=True):
        client.send(data(store_command(uid), 3))
    for start in range(0, max(map(len, contents)), 10000):
        for client, content in zip(clients, contents, strict=True):
            client.send(data(content[start : start + 10000], 0))
    for client in clients:
        client.send(data(b"", 2))
        assert client.status() == 0
        client.socket.close()
    for uid, content in zip(uids, contents, strict=True):
        assert running.stored[uid].read_bytes().endswith(content)


# --- many PDUs at once, and answers in pieces ------------------------------------------------------------------------


def test_a_data_set_in_pieces_of_one_byte_is_stored(receiving):
    """Thirty thousand PDUs, of which dozens arrive with each read."""
    running = receiving()
    content = data_set(filler=30_000)
    with Client(running.port, associated=True) as client:
        pieces = [data(content[place : place + 1], 0) for place in range(len(content))]
        client.send(data(store_command(), 3) + b"".join(pieces) + data(b"", 2))
        assert client.status() == 0
    assert running.instances[INSTANCE].size_bytes == len(content)


def test_a_malformed_pdu_among_good_ones_ends_the_association(receiving):
    """All of it arrives at once."""
    running = receiving()
    with Client(running.port, associated=True) as client:
        client.send(data(store_command(), 3) + data(data_set(), 0) + pdu(4, b"\0\0\0\xff\1\0") + data(b"", 2))
        assert client.is_aborted()
    running.wait_until_quiet()
    assert not running.instances


@pytest.fixture
def opened(monkeypatch):
    """All connections from now on."""
    opened = []

    class Counted(Connection):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            opened.append(self)

    monkeypatch.setattr("scp_node.scp.acceptor.Connection", Counted)
    return opened


def test_a_connection_that_has_ended_keeps_no_memory(receiving, opened):
    """Without waiting for the garbage collector: some senders open an association for each object."""
    running = receiving()
    with Client(running.port, associated=True) as client:
        client.send(data(store_command(), 3) + data(data_set(filler=100_000), 2))
        assert client.status() == 0
        (connection,) = opened
        assert connection._buffer.nbytes > 100_000
    running.wait_until_quiet()
    assert connection._buffer.nbytes == 0


def test_who_is_rejected_fills_no_memory(receiving, opened):
    """A megabyte behind the request, from somebody whom nobody knows: it stays out of the connection's buffer."""
    running = receiving(callers=[{"ae_title": "OTHER"}])
    with Client(running.port) as client:
        client.send(associate_request() + bytes(2**20))
        assert client.receive()[:1] in {CLOSED, bytes([ASSOCIATE_RJ]), bytes([ABORT])}
    running.wait_until_quiet()
    (connection,) = opened
    assert connection.received_bytes < len(associate_request()) + 100


@pytest.mark.parametrize("maximum_length", [7, 20, 100, 0])
def test_an_answer_comes_in_pieces_that_the_peer_takes(receiving, maximum_length):
    running = receiving()
    with Client(running.port, associated=True, request=associate_request(maximum_length)) as client:
        client.send(data(store_command(), 3) + data(data_set(), 2))
        content = b""
        while True:
            answer = client.receive()
            assert not maximum_length or len(answer) - 6 <= maximum_length
            content += answer[12:]
            if answer[11] == 3:
                break
            assert answer[11] == 1
    assert content.endswith(struct.pack("<HHL", 0, 0x1000, 10) + INSTANCE.encode() + b"\0")


def test_a_peer_that_takes_no_answer_at_all_is_aborted(receiving):
    running = receiving()
    with Client(running.port, associated=True, request=associate_request(6)) as client:
        client.send(data(ECHO_COMMAND, 3, 3))
        assert client.is_aborted()
    assert_echo_is_quick(running.port)
