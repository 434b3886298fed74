"""How associations end: with silent clients, and when the receiver stops."""

import contextlib
import socket
import threading
import time

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from raw_dicom import RELEASE_RP, RELEASE_RQ, Client
from receive_clients import CR, associate, radiograph, store

from scp_node.scp.association import ServedAssociation


def test_a_slow_intake_is_not_taken_for_a_silent_peer(receiving):
    running = receiving(dimse_timeout_s=1.0, network_timeout_s=1.0)
    running.before_accept = lambda instance: time.sleep(2.0)

    def two_are_stored():
        association = associate(running.port, (CR, ExplicitVRLittleEndian))
        for dataset in (radiograph(), radiograph()):
            if not association.is_established or association.send_c_store(dataset).get("Status") != 0:
                association.abort()
                return False
        association.release()
        return association.is_released

    # Once more when this machine was so busy that the peer was silent indeed, between two objects.
    assert any(two_are_stored() for _ in range(5))


def test_a_silent_association_is_aborted(receiving):
    running = receiving(dimse_timeout_s=0.3)
    association = associate(running.port)
    running.wait_until_quiet()
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
    """Long before it would be ended for its silence."""
    running = receiving(dimse_timeout_s=600, network_timeout_s=600)
    association = associate(running.port)
    begun = time.monotonic()
    running.receiver.stop(timeout_s=0.2)
    assert time.monotonic() - begun < 60
    association.join(60)
    assert association.is_aborted


def test_a_receiver_can_be_stopped_twice_and_has_no_port_then(receiving):
    running = receiving()
    running.receiver.stop()
    running.receiver.stop()
    with pytest.raises(RuntimeError, match="not running"):
        _ = running.receiver.port


@pytest.mark.parametrize("limit", ["maximum_associations_per_title", "maximum_associations_per_address"])
def test_who_may_have_one_association_may_have_the_next_as_soon_as_it_is_released(receiving, monkeypatch, limit):
    """Modalities open one after the other; the connection of the last may still be taken down on a busy machine."""

    def slowly(association):
        time.sleep(0.3)
        hang_up(association)

    hang_up = ServedAssociation.hang_up
    monkeypatch.setattr(ServedAssociation, "hang_up", slowly)
    running = receiving(**{limit: 1})
    for _ in range(5):
        with Client(running.port, associated=True) as client:
            client.send(RELEASE_RQ)
            assert client.receive()[0] == RELEASE_RP
    running.wait_until_quiet()
