"""How associations end: with silent clients, and when the receiver stops."""

import contextlib
import socket
import threading
import time

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from receive_clients import CR, associate, radiograph, store


def test_a_slow_intake_is_not_taken_for_a_silent_peer(receiving):
    running = receiving(dimse_timeout_s=0.3, network_timeout_s=0.3)
    running.before_accept = lambda instance: time.sleep(0.6)
    association = associate(running.port, (CR, ExplicitVRLittleEndian))
    for _ in range(2):
        assert association.send_c_store(radiograph()).Status == 0
    association.release()
    assert association.is_released


def test_a_silent_association_is_aborted(receiving):
    running = receiving(dimse_timeout_s=0.3)
    association = associate(running.port)
    running.wait_until_quiet(limit_s=5)
    association.join(60)
    assert association.is_aborted


def test_stopping_lets_an_object_under_way_be_answered(receiving):
    running = receiving()
    entered, go_on = threading.Event(), threading.Event()

    def wait(instance):
        entered.set()
        assert go_on.wait(60)

    running.before_accept = wait
    dataset = radiograph()
    answers = []
    sender = threading.Thread(target=lambda: answers.append(store(running.port, dataset)))
    sender.start()
    assert entered.wait(60)
    stopper = threading.Thread(target=running.receiver.stop, kwargs={"timeout_s": 60})
    stopper.start()
    deadline = time.monotonic() + 60
    # Refused; or reset, for one that waited to be accepted when the listener closed. Between the two its queue may be
    # full, and nobody answers.
    with pytest.raises(ConnectionError):
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                socket.create_connection(("127.0.0.1", running.port), timeout=1).close()
    go_on.set()
    stopper.join(60)
    sender.join(60)
    assert not stopper.is_alive()
    assert answers[0].Status == 0
    assert dataset.SOPInstanceUID in running.stored


def test_stopping_aborts_who_does_not_leave(receiving):
    running = receiving()
    association = associate(running.port)
    begun = time.monotonic()
    running.receiver.stop(timeout_s=0.2)
    assert time.monotonic() - begun < 15
    association.join(60)
    assert association.is_aborted


def test_a_receiver_can_be_stopped_twice_and_has_no_port_then(receiving):
    running = receiving()
    running.receiver.stop()
    running.receiver.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = running.receiver.port
