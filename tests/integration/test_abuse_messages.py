"""Messages and objects that break the rules, on the plain and on the TLS port; somebody else is served meanwhile.

What belongs to one rule of the receiver is in test_receive_hostile.py; here every attack is the same test.
"""

import contextlib
import os
import socket
import struct

import pytest
from raw_attacks import ACCEPTED, ENDED, messages, requests
from raw_dicom import (
    ABORT,
    ASSOCIATE_AC,
    CLOSED,
    ECHO_COMMAND,
    RELEASE_RQ,
    data,
    data_set,
    pdu,
    resident_bytes,
    store_command,
)

pytestmark = pytest.mark.usefixtures("nothing_is_kept")


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
    place = arena(network_timeout_s=3)
    with place.attacked() as bystander, place.client(associated=True) as client:
        client.socket.settimeout(1)
        with contextlib.suppress(OSError):
            for _ in range(3000):
                client.socket.sendall(data(ECHO_COMMAND, 3, 3) * 20)
        bystander.wait_for(3)
