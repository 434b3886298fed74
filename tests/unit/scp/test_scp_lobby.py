"""Who has to go when the lobby is full, and that nobody is counted twice or for ever."""

import socket

import pytest

from scp_node.scp.lobby import Lobby


@pytest.fixture
def connect():
    """Pairs of connected sockets: the accepted end and the peer's."""
    opened = []

    def pair():
        opened.append(socket.socketpair())
        return opened[-1]

    yield pair
    for ends in opened:
        for end in ends:
            end.close()


def test_the_longest_waiting_of_the_address_with_most_goes(connect):
    lobby = Lobby(capacity=3, maximum=10)
    visits = {}
    for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.2")):
        here, there = connect()
        assert lobby.enter(here, address) == (True, None)
        visits[name] = (lobby.visit(here), there)
    here, _ = connect()
    is_let_in, sent_away = lobby.enter(here, "10.0.0.3")
    assert is_let_in
    assert sent_away is visits["b"][0]
    assert sent_away.is_turned_away
    assert visits["b"][1].recv(1) == b""
    assert [visit.address for visit in lobby.waiting] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_who_has_an_association_is_never_sent_away(connect):
    lobby = Lobby(capacity=1, maximum=10)
    here, _ = connect()
    lobby.enter(here, "10.0.0.1")
    lobby.seat(lobby.visit(here))
    for _ in range(3):
        lobby.enter(connect()[0], "10.0.0.1")
    assert not lobby.visit(here).is_turned_away
    assert len(lobby.waiting) == 1
    assert len(lobby) == 4


def test_beyond_the_maximum_nobody_comes_in(connect):
    lobby = Lobby(capacity=1, maximum=2)
    first, second = connect()[0], connect()[0]
    assert lobby.enter(first, "10.0.0.1")[0]
    assert lobby.enter(second, "10.0.0.1")[0]
    assert lobby.enter(connect()[0], "10.0.0.1") == (False, None)
    lobby.leave(lobby.visit(first))
    assert lobby.enter(connect()[0], "10.0.0.1")[0]


def test_leaving_twice_is_no_error(connect):
    lobby = Lobby(capacity=2, maximum=2)
    here, _ = connect()
    lobby.enter(here, "10.0.0.1")
    visit = lobby.visit(here)
    lobby.leave(visit)
    lobby.leave(visit)
    assert len(lobby) == 0
    assert lobby.waiting == []
