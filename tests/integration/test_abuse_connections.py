"""Connections that come to nothing, on the plain and on the TLS port; somebody else is served meanwhile."""

import contextlib
import os
import socket
import ssl
import struct
import threading

import pytest
from raw_dicom import associate_request

from scp_node.security.events import EventKind

pytestmark = pytest.mark.usefixtures("nothing_is_kept")


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
