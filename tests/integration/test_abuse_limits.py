"""Who takes too long, too many places or too much memory, on the plain and on the TLS port."""

import contextlib
import socket
import threading
import time

import pytest
from bystander import ATTACKER, LIMIT_S
from raw_attacks import request
from raw_dicom import (
    ASSOCIATE_AC,
    ECHO_COMMAND,
    RELEASE_RQ,
    associate_request,
    data,
    data_set,
    resident_bytes,
    store_command,
)

from scp_node.security.events import EventKind

pytestmark = pytest.mark.usefixtures("nothing_is_kept")


def attack(place, pieces, is_noticed):
    """Send slowly until the receiver hangs up, once more if this machine was so slow that another rule was broken."""
    deadline = time.monotonic() + LIMIT_S
    while not is_noticed():
        with drained(place) as client, contextlib.suppress(OSError):
            for piece in pieces():
                client.socket.sendall(piece)
                time.sleep(0.05)
                assert time.monotonic() < deadline
                if is_noticed():
                    return


@contextlib.contextmanager
def drained(place):
    """An association whose answers are read by a thread of their own."""
    with place.client(associated=True) as client:
        reader = threading.Thread(target=drain, args=(client.socket,))
        reader.start()
        try:
            yield client
        finally:
            # Closing is not enough while another thread reads.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(client.socket, socket.SHUT_RDWR)
            reader.join()


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

    def told():
        # Of a bystander too, when this machine itself takes too long.
        return [event for event in place.running.events if (event.reason, event.address) == (reason, ATTACKER)]

    with place.attacked() as bystander:
        sender = threading.Thread(target=attack, args=(place, pieces, told))
        sender.start()
        with drained(place):
            deadline = time.monotonic() + LIMIT_S
            while not told():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            bystander.wait_for(2)
        sender.join()
    assert {(event.kind, event.calling_ae_title) for event in told()} == {(EventKind.LIMIT_REACHED, "SCU")}


def drain(connection):
    with contextlib.suppress(OSError, ValueError):
        while connection.recv(65536):
            pass


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
