"""What `acceptor`, `upper_layer` and `scp_node.delivery` rely on in pynetdicom's private parts.

A failure after an upgrade is an invitation: read what changed in the functions named, decide whether the subclasses
still say what they must, run tests/integration/test_receive_*.py and tests/unit/delivery, then write the new digests
down here.
"""

import hashlib
import inspect

import pynetdicom
import pytest
from pynetdicom import acse, association, dimse, dimse_messages, dul, fsm, transport

DIGESTS = {
    "Association.__init__": "eb07516b8009",
    "Association._abort_blocking": "10b43ef8c63c",
    "Association._bind_defaults": "4cada43c3a19",
    "Association._run_reactor": "f28838c5559e",
    "Association.kill": "8f9713666a7f",
    "Association.run_reactor": "ed8bbbe3b3d6",
    "Association._check_received_status": "364c3ae215b5",
    "Association._handle_no_response": "6f3d62518395",
    "Association._serve_request": "2f24c1759cdf",
    "Association.release": "c7d713502b77",
    "Association.send_c_store": "fa5a8127f349",
    "ACSE._negotiate_as_acceptor": "fffd360957c4",
    "ACSE.negotiate_release": "e66977c72923",
    "ACSE.send_reject": "700998293bbc",
    "DIMSEServiceProvider.__init__": "bbecd186810e",
    "DIMSEServiceProvider.get_msg": "890e3e04283f",
    "DIMSEServiceProvider.receive_primitive": "5f99c86b14a1",
    "DIMSEServiceProvider.send_msg": "a839cf2fb469",
    "DIMSEMessage.primitive_to_message": "71fd61d5997f",
    "DULServiceProvider.__init__": "c82dafa9438d",
    "DULServiceProvider._decode_pdu": "fc71dd1bf853",
    "DULServiceProvider._is_transport_event": "8725ed03bb8f",
    "DULServiceProvider._read_pdu_data": "19f2d4e38c13",
    "DULServiceProvider.idle_timer_expired": "0150c19fda68",
    "DULServiceProvider.receive_pdu": "fa67339834ca",
    "DULServiceProvider.run_reactor": "e3a10eb3a093",
    "DULServiceProvider.send_pdu": "7cbce5da8594",
    "DULServiceProvider.stop_dul": "28a7e0be126e",
    "StateMachine.do_action": "9a883f44c7f3",
    "AE_6": "385d595ed494",
    "DT_2": "9ec543394e0b",
    "AA_1": "8495a4665f7a",
    "AA_8": "06c83317f088",
    "AR_5": "dc32d2343f42",
    "AssociationServer.__init__": "edacb98bdfb7",
    "AssociationServer.process_request": "4fa44ac5b54b",
    "AssociationServer.server_close": "3fa1b358badb",
    "AssociationSocket.__init__": "1f0325fdef2c",
    "AssociationSocket._shutdown_socket": "e2b2628faa81",
    "AssociationSocket.connect": "aeeeae413bd3",
    "AssociationSocket.close": "c726c8db5381",
    "AssociationSocket.ready": "3eb58e3d39dc",
    "AssociationSocket.recv": "6bc20a33b1b7",
    "AssociationSocket.send": "1ea8158c0b51",
    "RequestHandler._create_association": "05c8d12b7986",
    "RequestHandler.handle": "034823fb4df3",
}


def digest(function: object) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


RELIED_ON = [
    association.Association.__init__,
    association.Association._abort_blocking,
    association.Association._bind_defaults,
    association.Association._run_reactor,
    association.Association.kill,
    association.Association.run_reactor,
    association.Association._check_received_status,
    association.Association._handle_no_response,
    association.Association._serve_request,
    association.Association.release,
    association.Association.send_c_store,
    acse.ACSE._negotiate_as_acceptor,
    acse.ACSE.negotiate_release,
    acse.ACSE.send_reject,
    dimse.DIMSEServiceProvider.__init__,
    dimse.DIMSEServiceProvider.get_msg,
    dimse.DIMSEServiceProvider.receive_primitive,
    dimse.DIMSEServiceProvider.send_msg,
    dimse_messages.DIMSEMessage.primitive_to_message,
    dul.DULServiceProvider.__init__,
    dul.DULServiceProvider._decode_pdu,
    dul.DULServiceProvider._is_transport_event,
    dul.DULServiceProvider._read_pdu_data,
    dul.DULServiceProvider.idle_timer_expired,
    dul.DULServiceProvider.receive_pdu,
    dul.DULServiceProvider.run_reactor,
    dul.DULServiceProvider.send_pdu,
    dul.DULServiceProvider.stop_dul,
    fsm.StateMachine.do_action,
    fsm.AE_6,
    fsm.DT_2,
    fsm.AA_1,
    fsm.AA_8,
    fsm.AR_5,
    transport.AssociationServer.__init__,
    transport.AssociationServer.process_request,
    transport.AssociationServer.server_close,
    transport.AssociationSocket.__init__,
    transport.AssociationSocket._shutdown_socket,
    transport.AssociationSocket.connect,
    transport.AssociationSocket.close,
    transport.AssociationSocket.ready.fget,
    transport.AssociationSocket.recv,
    transport.AssociationSocket.send,
    transport.RequestHandler._create_association,
    transport.RequestHandler.handle,
]


def test_the_version_is_the_one_that_was_read() -> None:
    assert pynetdicom.__version__ == "3.0.4"


@pytest.mark.parametrize("function", RELIED_ON, ids=lambda function: function.__qualname__)
def test_nothing_that_is_relied_on_has_changed(function: object) -> None:
    assert digest(function) == DIGESTS[function.__qualname__]


@pytest.mark.parametrize(
    ("event", "state", "action"),
    [
        ("Evt19", "Sta2", "AA-1"),  # not a PDU, before the association: A-ABORT
        ("Evt19", "Sta3", "AA-8"),
        ("Evt19", "Sta6", "AA-8"),  # the same within it
        ("Evt17", "Sta2", "AA-5"),
        ("Evt17", "Sta6", "AA-4"),
        ("Evt17", "Sta13", "AR-5"),
        ("Evt18", "Sta2", "AA-2"),  # a peer that only connects is ended by the ARTIM timer
        ("Evt18", "Sta13", "AA-2"),
        ("Evt10", "Sta6", "DT-2"),
    ],
)
def test_the_state_machine_does_what_our_events_mean(event: str, state: str, action: str) -> None:
    assert fsm.TRANSITION_TABLE[event, state] == action
