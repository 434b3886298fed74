"""What is said of a peer is what it did."""

import time

import pytest
from raw_dicom import ABORT, Client, pdu
from structlog.testing import capture_logs

LIMIT_S = 60


@pytest.mark.integration
def test_a_state_machine_that_stumbles_accuses_nobody_of_a_malformed_request(receiving):
    """An answer that comes when the association has just been aborted, for example."""
    running = receiving()
    with Client(running.port, associated=True) as client:
        deadline = time.monotonic() + LIMIT_S
        while not (associations := running.receiver._plain.associations) or not associations[0].is_established:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Of no meaning within an association.
        associations[0].dul.event_queue.put("Evt1")
        associations[0].dul.socket.ring()
        assert client.receive()[0] == ABORT
    running.wait_until_quiet()
    assert not [event for event in running.events if "A-ASSOCIATE-RQ" in event.reason]


@pytest.mark.integration
def test_an_association_that_ends_in_an_error_is_not_forgotten(receiving):
    """For example by an A-ABORT whose source is none: no event, but whoever looks for the reason finds one."""
    running = receiving()
    with capture_logs() as logged, Client(running.port, associated=True) as client:
        client.send(pdu(ABORT, b"\0\0\5\0"))
        assert client.is_aborted()
        running.wait_until_quiet()
    assert not running.events
    assert [line["error"] for line in logged if line["event"] == "connection ended"] == ["ValueError"]
