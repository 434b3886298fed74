"""Who watches over the acceptor processes does not give up, whatever the start of one meets."""

import errno
import socket
import threading

import pytest
import structlog

from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.jobs import acceptors
from scp_node.jobs.acceptors import Acceptors

LIMIT_S = 60


class Process:
    """One that runs until it is told to have died."""

    pid, returncode = 1, None

    def poll(self):
        return self.returncode

    def wait(self, timeout_s):
        return self.returncode


class Started:
    """In place of an acceptor."""

    def __init__(self, *_arguments):
        self.process = Process()

    def tell(self, order):
        pass

    def end(self, timeout_s):
        pass


@pytest.mark.parametrize("trouble", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_one_that_cannot_be_replaced_now_is_replaced_later(monkeypatch, trouble):
    tried, third = [], threading.Event()

    def refuse(*_arguments):
        tried.append(None)
        if len(tried) >= 3:
            third.set()
        raise trouble

    monkeypatch.setattr(acceptors, "_PAUSE_S", 0.01)
    monkeypatch.setattr(acceptors, "_Acceptor", Started)
    watched = Acceptors(NodeSettings(), [None, None], 1)
    watched.start()
    with structlog.testing.capture_logs() as logged:
        first = watched._running[0]
        monkeypatch.setattr(acceptors, "_Acceptor", refuse)
        first.process.returncode = -9
        assert third.wait(LIMIT_S)
        back = threading.Event()

        class Replacement(Started):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                back.set()

        monkeypatch.setattr(acceptors, "_Acceptor", Replacement)
        assert back.wait(LIMIT_S)
        watched.stop(0)
    # Once when it begins, not at each attempt.
    assert [line["event"] for line in logged] == ["acceptor cannot be replaced now", "acceptor ended"]


def test_a_start_that_fails_leaves_no_socket(monkeypatch):
    """A warning of the garbage collector would fail this test."""

    def refuse(*_arguments, **_options):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(acceptors, "start_module", refuse)
    with pytest.raises(OSError, match="temporarily"):
        acceptors._Acceptor(NodeSettings(), [])


def test_an_order_that_comes_while_a_process_loads_is_obeyed(tmp_path):
    """A node that is stopped at once waits for nobody who has not heard of it."""
    settings = NodeSettings(
        spool=SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{tmp_path}/node.sqlite"),
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = acceptors._Acceptor(settings, [listener, None])
        acceptor.tell(settings.model_dump(mode="json"))
        acceptor.tell({"stop": 600.0})
        acceptor.end(LIMIT_S)
    # Ended, not killed.
    assert acceptor.process.returncode == 0
