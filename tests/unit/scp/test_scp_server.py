"""A port goes on accepting, whatever one connection or a shortage of descriptors and memory does to it."""

import errno
import socket
import time

import pytest
import structlog

from config.receiver import ReceiverSettings
from scp_node.scp.acceptor import AcceptorServer
from scp_node.scp.lobby import Lobby
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver

LIMIT_S = 60


@pytest.fixture
def receiver(spool):
    made = Receiver(
        ReceiverSettings(ae_title="NODE", acse_timeout_s=30),
        spool,
        lambda _instance: None,
        ["1.2.840.10008.1.2.1"],
        implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
        port=0,
    )
    made.start()
    yield made
    made.stop(0)


def until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def call(receiver):
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=LIMIT_S)


def is_taken(receiver):
    """Whether somebody who calls now is let in."""
    before = receiver.connections
    with call(receiver):
        until(lambda: receiver.connections > before)
    until(lambda: receiver.connections == before)
    return True


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_it_waits_and_does_not_spin(receiver, monkeypatch, number):
    """The connection stays in the queue of the listener, which is readable all the time."""
    real, tried = AcceptorServer.get_request, []

    def short(server):
        tried.append(time.monotonic())
        if len(tried) <= 5:
            raise OSError(number, "short")
        return real(server)

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logged:
        patch.setattr(AcceptorServer, "get_request", short)
        assert is_taken(receiver)
    assert tried[5] - tried[0] > 0.4
    # Once when it begins.
    assert [line["event"] for line in logged] == ["no connection can be accepted for now"]


def test_an_error_while_one_is_let_in_ends_that_connection_only(receiver, monkeypatch):
    real, troubles = Lobby.enter, [MemoryError(), KeyError("x")]

    def enter(lobby, wire, address):
        answer = real(lobby, wire, address)
        if troubles:
            raise troubles.pop()
        return answer

    monkeypatch.setattr(Lobby, "enter", enter)
    for _ in range(2):
        with call(receiver) as connection:
            assert connection.recv(1) == b""
    until(lambda: receiver.connections == 0)
    assert is_taken(receiver)


def test_an_error_while_the_thread_of_a_connection_is_started_ends_that_connection_only(receiver, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("scp_node.scp.acceptor.ThreadedAssociationServer.process_request", _refuse)
        with call(receiver) as connection:
            assert connection.recv(1) == b""
    until(lambda: receiver.connections == 0)
    assert is_taken(receiver)


def _refuse(*_arguments):
    raise MemoryError


def test_an_error_outside_any_connection_does_not_end_the_accepting(receiver, monkeypatch):
    real, troubles = AcceptorServer.get_request, [MemoryError(), RuntimeError("anything")]

    def get_request(server):
        if troubles:
            raise troubles.pop()
        return real(server)

    with structlog.testing.capture_logs() as logged:
        monkeypatch.setattr(AcceptorServer, "get_request", get_request)
        assert is_taken(receiver)
    assert [line["event"] for line in logged] == ["accepting failed and goes on"] * 2
    receiver.stop(0)
    receiver.start()
    assert is_taken(receiver)
