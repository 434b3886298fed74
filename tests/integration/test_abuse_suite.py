"""Attacks on the protocol, on the plain and on the TLS port; somebody else is served before, during and after each.

What belongs to one rule of the receiver is in test_receive_hostile.py; here every attack is the same test.
"""

import contextlib
import os
import socket
import ssl
import statistics
import struct
import threading
import time
from pathlib import Path

import pytest
from raw_attacks import ACCEPTED, ENDED, messages, request, requests
from raw_dicom import (
    ABORT,
    ASSOCIATE_AC,
    CLOSED,
    ECHO_COMMAND,
    RELEASE_RQ,
    Client,
    associate_request,
    data,
    data_set,
    pdu,
    resident_bytes,
    store_command,
)

from scp_node.security.events import EventKind

ATTACKER, BYSTANDER = "127.0.0.3", "127.0.0.2"
GROWTH_LIMIT_BYTES = 300 * 2**20
LIMIT_S = 30
"""For what takes milliseconds on a quiet machine."""


@pytest.fixture(scope="module", autouse=True)
def nothing_is_kept():
    """Memory, threads and descriptors after all attacks are those before them."""
    memory, threads = resident_bytes(), threading.active_count()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert resident_bytes() - memory < GROWTH_LIMIT_BYTES
    deadline = time.monotonic() + LIMIT_S
    while threading.active_count() > threads or len(list(Path("/proc/self/fd").iterdir())) > descriptors + 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Bystander(threading.Thread):
    """Somebody else: opens an association, sends a C-ECHO, releases, over and over, and takes the time."""

    def __init__(self, arena):
        super().__init__(name="bystander")
        self.seconds: list[float] = []
        self.error: BaseException | None = None
        self._arena = arena
        self._is_over = threading.Event()
        self._served = threading.Condition()

    def run(self):
        try:
            while not self._is_over.is_set():
                begun = time.monotonic()
                with self._arena.client(associated=True, source=BYSTANDER) as client:
                    client.send(data(ECHO_COMMAND, 3, 3))
                    assert client.status() == 0
                    taken = time.monotonic() - begun
                    client.send(RELEASE_RQ)
                    assert client.receive()[0] == 6
                with self._served:
                    self.seconds.append(taken)
                    self._served.notify_all()
                self._is_over.wait(0.002)
        except BaseException as error:
            with self._served:
                self.error = error
                self._served.notify_all()

    def wait_for(self, echoes=3):
        """Return when so many more have been answered."""
        with self._served:
            wanted = len(self.seconds) + echoes
            assert self._served.wait_for(lambda: self.error or len(self.seconds) >= wanted, LIMIT_S)
            assert self.error is None, repr(self.error)

    def __enter__(self):
        self.start()
        self.wait_for(1)
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self.join()


class Arena:
    """A receiver with one open port."""

    def __init__(self, running, tls):
        self.running = running
        self.tls = tls
        self.port = running.tls_port if tls else running.port

    def client(self, associated=False, *, source=ATTACKER, request=None):
        return Client(self.port, associated, tls=self.tls, source=source, request=request)

    def bare(self):
        """A TCP connection: on the TLS port, without a handshake."""
        return Client(self.port, source=ATTACKER)

    @contextlib.contextmanager
    def attacked(self):
        """Somebody else is served within a second, in the middle, while the attack goes on and after it."""
        with Bystander(self) as bystander:
            yield bystander
            bystander.wait_for()
        assert statistics.median(bystander.seconds) < 1
        self.running.wait_until_quiet(limit_s=LIMIT_S)


@pytest.fixture(params=["plain", "TLS"])
def arena(request, receiving, pki):
    tls = request.param == "TLS"

    def make(**settings):
        chosen = {"maximum_associations": 20, "network_timeout_s": 5, **settings}
        if tls:
            chosen["tls"] = pki.receiver(only=True)
        return Arena(receiving(**chosen), pki.client() if tls else None)

    return make


# --- messages that break the rules -----------------------------------------------------------------------------------


def test_first_messages_that_break_the_rules(arena):
    """Together many times more than there are places: none is kept. On the TLS port a handshake comes before each."""
    place = arena()
    with place.attacked() as bystander:
        for name, (content, expected) in requests().items():
            for _ in range(2 if place.tls else 5):
                with place.client() as client:
                    client.send(content)
                    answer = client.receive()
                    kind = answer[0] if answer else None
                    assert kind in (None, ASSOCIATE_AC, 3, ABORT), name
                    assert expected != ENDED or kind != ASSOCIATE_AC, name
                    assert expected != ACCEPTED or kind == ASSOCIATE_AC, name
            bystander.wait_for(1)


def test_messages_that_break_the_rules(arena):
    place = arena()
    with place.attacked() as bystander:
        for name, (content, expected) in messages().items():
            for _ in range(2):
                with place.client(associated=True) as client:
                    client.send(content)
                    if expected == ENDED:
                        answer = client.receive()
                        # A release within an object is answered before the end.
                        assert answer == CLOSED or answer[0] in (6, ABORT), name
            bystander.wait_for(1)
    assert set(place.running.instances) <= {"1.2.3.4.5"}
    assert place.running.temporary_files() == []


# --- connections -----------------------------------------------------------------------------------------------------


def test_silent_connections(arena):
    """Six times as many as there are places; on the TLS port they never begin to shake hands (M1, M2)."""
    place = arena()
    with place.attacked() as bystander:
        silent = [place.bare() for _ in range(60)]
        bystander.wait_for(5)
        for client in silent:
            client.socket.close()


def test_more_silent_connections_than_the_lobby_holds(arena):
    place = arena(acse_timeout_s=30)
    with place.attacked() as bystander:
        silent = [place.bare() for _ in range(200)]
        bystander.wait_for(5)
        assert EventKind.LIMIT_REACHED in {event.kind for event in place.running.events}
        for client in silent:
            client.socket.close()


def test_silence_after_the_handshake(arena):
    place = arena()
    with place.attacked() as bystander:
        silent = [place.client() for _ in range(20)]
        bystander.wait_for(5)
        for client in silent:
            client.socket.close()


def test_half_a_first_message(arena):
    place = arena()
    half = associate_request()[:50]
    with place.attacked() as bystander:
        clients = [place.client() for _ in range(20)]
        for client in clients:
            client.send(half)
        bystander.wait_for(5)
        for client in clients:
            client.socket.close()


# A reset between two system calls of `ssl` leaves a socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_burst_of_connections(arena, ending):
    place = arena()
    with place.attacked():
        for _ in range(200):
            with place.bare() as client:
                if ending == "reset":
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_burst_at_the_same_moment(arena):
    place = arena()
    start = threading.Barrier(21)

    def connect():
        start.wait()
        for _ in range(10):
            with contextlib.suppress(OSError), place.bare() as client:
                client.send(associate_request()[:10])

    with place.attacked():
        threads = [threading.Thread(target=connect) for _ in range(20)]
        for thread in threads:
            thread.start()
        start.wait()
        for thread in threads:
            thread.join()


def test_half_a_handshake(arena, pki):
    """On the plain port it is just no DICOM."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = pki.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    content = outgoing.read()
    place = arena()
    with place.attacked() as bystander:
        clients = [place.bare() for _ in range(30)]
        for number, client in enumerate(clients):
            client.send(content[: len(content) // 2] if number % 2 else content)
        bystander.wait_for(5)
        for client in clients:
            client.socket.close()


def test_noise_instead_of_a_handshake(arena):
    place = arena()
    with place.attacked():
        for content in (
            os.urandom(5000),
            b"GET / HTTP/1.0\r\n\r\n",
            bytes(5000),
            b"\x16\x03\x01\xff\xff" + bytes(70000),
        ):
            for _ in range(5):
                with place.bare() as client:
                    client.send(content)
                    with contextlib.suppress(OSError):
                        client.socket.shutdown(socket.SHUT_WR)
                    client.receive()


# --- within objects --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["abort", "close", "reset"])
def test_objects_that_break_off(arena, ending):
    place = arena()
    with place.attacked():
        for _ in range(15):
            with place.client(associated=True) as client:
                client.send(data(store_command(), 3) + data(data_set(filler=60000)[:50000], 0))
                if ending == "abort":
                    client.send(pdu(ABORT, bytes(4)))
                elif ending == "reset":
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert place.running.instances == {}
    assert place.running.temporary_files() == []


@pytest.mark.parametrize(
    ("command", "content", "status"),
    [
        (store_command(instance=None), data_set(), 0x0117),
        (store_command(instance=""), data_set(), 0x0117),
        (store_command(instance="1" * 65), data_set(), 0x0117),
        (store_command(sop_class=None), data_set(), 0x0122),
        (store_command(), b"", 0xC000),
        (store_command(data_set_type=0x0101), None, 0xC000),
        (store_command(instance="9.9"), data_set(), 0xA900),
        (store_command(), os.urandom(3000), None),
    ],
    ids=["no UID", "empty UID", "long UID", "no class", "empty", "no Data Set", "another UID", "random"],
)
def test_a_bad_request_is_answered(arena, command, content, status):
    """M12: the library leaves some of these without an answer until a time-out."""
    place = arena()
    with place.attacked(), place.client(associated=True) as client:
        for _ in range(10):
            client.send(data(command, 3) + (b"" if content is None else data(content, 2)))
            answered = client.status()
            assert answered == status if status is not None else answered >= 0xA000
        client.send(RELEASE_RQ)
        assert client.receive()[0] == 6
    assert place.running.instances == {}


def test_a_data_set_without_end(arena):
    """16 times the limit, then nobody listens any more; memory and disk do not grow."""
    place = arena(maximum_object_bytes=2**20)
    before = resident_bytes()
    piece = data(bytes(2**16), 0)
    with place.attacked(), place.client(associated=True) as client:
        client.send(data(store_command(), 3))
        with contextlib.suppress(OSError):
            for _ in range(16 * 40):
                client.socket.sendall(piece)
        assert client.is_aborted()
    assert resident_bytes() - before < 50 * 2**20
    assert "a Data Set without end" in {event.reason for event in place.running.events}


def test_who_never_reads_answers(arena):
    """Echoes are asked for until nothing more fits into any buffer."""
    place = arena(network_timeout_s=1)
    with place.attacked() as bystander, place.client(associated=True) as client:
        client.socket.settimeout(1)
        with contextlib.suppress(OSError):
            for _ in range(3000):
                client.socket.sendall(data(ECHO_COMMAND, 3, 3) * 20)
        bystander.wait_for(3)


# --- slow and long ---------------------------------------------------------------------------------------------------


def send_slowly(client, pieces, pause_s=0.05):
    """Until the receiver hangs up."""
    deadline = time.monotonic() + LIMIT_S
    with contextlib.suppress(OSError):
        for piece in pieces:
            client.socket.sendall(piece)
            time.sleep(pause_s)
            assert time.monotonic() < deadline


def endlessly(piece):
    while True:
        yield piece


@pytest.mark.parametrize(
    ("settings", "pieces", "reason"),
    [
        (
            {"network_timeout_s": 1, "minimum_bytes_per_s": 10000},
            lambda: [data(store_command(), 3), *[data(b"\0", 0)] * 10000],
            "an object arrives too slowly",
        ),
        ({"progress_timeout_s": 3}, lambda: endlessly(data(ECHO_COMMAND, 3, 3)), "nothing was stored for too long"),
        (
            {"association_limit_s": 1},
            lambda: endlessly(data(ECHO_COMMAND, 3, 3)),
            "the association has lasted too long",
        ),
        ({"dimse_timeout_s": 0.5}, lambda: [b""] * 10000, "silent for too long"),
    ],
    ids=["a byte now and then", "echoes without end", "too long in any case", "silence"],
)
def test_a_place_is_not_kept_for_ever(arena, settings, pieces, reason):
    """SEC-37: time-outs per read do not see these. What bystanders do takes less than all these limits."""
    place = arena(**settings)
    with place.attacked() as bystander:
        with place.client(associated=True) as one, place.client(associated=True) as another:
            for client in (one, another):
                threading.Thread(target=drain, args=(client.socket,), daemon=True).start()
            sender = threading.Thread(target=send_slowly, args=(one, pieces()))
            sender.start()
            deadline = time.monotonic() + LIMIT_S
            while reason not in {event.reason for event in place.running.events}:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            bystander.wait_for(2)
        sender.join()
    event = next(event for event in place.running.events if event.reason == reason)
    assert (event.kind, event.address, event.calling_ae_title) == (EventKind.LIMIT_REACHED, ATTACKER, "SCU")


def drain(connection):
    with contextlib.suppress(OSError, ValueError):
        while connection.recv(65536):
            pass


# --- limits ----------------------------------------------------------------------------------------------------------


def test_one_address_cannot_take_all_places(arena):
    place = arena(maximum_associations_per_address=2)
    with contextlib.ExitStack() as stack, place.attacked():
        held = [stack.enter_context(place.client(associated=True)) for _ in range(2)]
        for _ in range(3):
            with place.client() as client:
                client.send(associate_request())
                assert tuple(client.receive()[7:10]) == (2, 3, 2)
        held[0].send(RELEASE_RQ)
        assert held[0].receive()[0] == 6
        held[0].socket.close()
        deadline = time.monotonic() + LIMIT_S
        while True:
            with place.client() as client:
                client.send(associate_request())
                if client.receive()[0] == ASSOCIATE_AC:
                    break
            assert time.monotonic() < deadline
        stack.close()
    assert {event.reason for event in place.running.events} == {"address_limit"}


def test_one_title_cannot_take_all_places(arena):
    place = arena(maximum_associations_per_title=2)
    many = request(calling=b"MANY")
    with contextlib.ExitStack() as stack, place.attacked():
        for _ in range(2):
            stack.enter_context(place.client(associated=True, request=many))
        with place.client(source="127.0.0.4") as client:
            client.send(many)
            assert tuple(client.receive()[7:10]) == (2, 3, 2)
        stack.close()
    assert {(event.reason, event.calling_ae_title) for event in place.running.events} == {("title_limit", "MANY")}


def test_large_objects_in_parallel_stay_out_of_memory(arena):
    """SEC-39: twenty at the same time, 160 MB in all."""
    place = arena(maximum_associations=30)
    before, pixels = resident_bytes(), data(bytes(2**16), 0)
    grown = []

    def send(number):
        uid = f"1.2.{number}"
        with place.client(associated=True) as client:
            client.send(data(store_command(uid), 3) + data(data_set(uid), 0))
            for _ in range(128):
                client.send(pixels)
            grown.append(resident_bytes() - before)
            client.send(data(b"", 2))
            client.receive()

    with place.attacked():
        senders = [threading.Thread(target=send, args=(number,)) for number in range(20)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert len(place.running.instances) == 20
    assert max(grown) < 80 * 2**20
