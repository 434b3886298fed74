"""The bell that ends a wait for a socket."""

import select
import socket
import threading

import pytest

from scp_node.bell import Bell

LIMIT_S = 60.0
NOT_AT_ALL_S = 0.0


@pytest.fixture
def bell():
    made = Bell()
    yield made
    made.close()


@pytest.fixture
def wires():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_ring_ends_a_wait_that_lasts(bell):
    found = []
    waiter = threading.Thread(target=lambda: found.append(bell.wait(2 * LIMIT_S)), daemon=True)
    waiter.start()
    bell.ring()
    waiter.join(LIMIT_S)
    assert found == [False]


def test_a_ring_is_kept_for_the_next_wait_and_heard_once(bell):
    """However often it rang: otherwise who waits would turn without end."""
    bell.ring()
    bell.ring()
    assert not bell.wait(LIMIT_S)
    assert select.select([bell._bell], [], [], NOT_AT_ALL_S)[0] == []


@pytest.mark.parametrize("is_rung", [False, True])
def test_what_can_be_read_is_said_rung_or_not(bell, wires, is_rung):
    ours, theirs = wires
    bell.watch(ours)
    assert not bell.wait(NOT_AT_ALL_S)
    theirs.send(b"x")
    if is_rung:
        bell.ring()
    assert bell.wait(LIMIT_S)
    assert bell.wait(LIMIT_S)
    ours.recv(1)
    assert not bell.wait(NOT_AT_ALL_S)


def test_the_end_of_a_connection_can_be_read(bell, wires):
    ours, theirs = wires
    bell.watch(ours)
    theirs.close()
    assert bell.wait(LIMIT_S)


def test_ringing_never_blocks_and_never_fails(bell):
    """Nobody listens; nobody can any more."""
    for _ in range(10_000):
        bell.ring()
    assert not bell.wait(LIMIT_S)
    bell.close()
    bell.ring()
