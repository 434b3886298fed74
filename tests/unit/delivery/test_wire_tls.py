"""Sockets through TLS: what is a PDU on them and what is not, and names that no certificate can have."""

import socket
import ssl
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AddressInformation

from config.destinations import DicomDestination
from scp_node.delivery.association import NoAssociationError, connect
from scp_node.delivery.wire import Wire
from scp_node.security.authority import TestAuthority

LIMIT_S = 60
CONTEXTS = [(str(Verification), "1.2.840.10008.1.2")]
RELEASE_RP = b"\6\0\0\0\0\4\0\0\0\0"


@pytest.mark.parametrize("name", ["a..b", ".b", "a" * 300])
def test_a_certificate_cannot_have_a_name_that_is_none(name):
    destination = DicomDestination(
        name="pacs", ae_title="PACS", host="127.0.0.1", port=104, timeout_s=LIMIT_S, tls=True, tls_host_name=name
    )
    with pytest.raises(NoAssociationError, match="a certificate cannot have the name"):
        connect(destination, "NODE", CONTEXTS)


def test_what_tls_says_to_itself_is_no_pdu(tmp_path):
    """Session tickets come unasked: who waited for a PDU behind them would send nothing meanwhile."""
    authority = TestAuthority("first", valid_for=timedelta(days=1))
    authority.issue("peer", ["localhost"]).write(tmp_path / "peer.pem", tmp_path / "peer.key")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "peer.pem", tmp_path / "peer.key")
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.check_hostname, calling.verify_mode = False, ssl.CERT_NONE
    association = SimpleNamespace(network_timeout=LIMIT_S, dul=SimpleNamespace(event_queue=None))
    wire = Wire(association, address=AddressInformation("127.0.0.1", 0))
    wire.socket.close()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = socket.create_connection(listener.getsockname(), timeout=LIMIT_S)
        accepted, _ = listener.accept()
    with accepted, plain:
        accepted.settimeout(LIMIT_S)
        secured = []
        thread = threading.Thread(target=lambda: secured.append(serving.wrap_socket(accepted, server_side=True)))
        thread.start()
        wire.socket = calling.wrap_socket(plain)
        thread.join(LIMIT_S)
        wire._is_connected = True
        with secured[0], wire.socket:
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                assert not wire.ready
                time.sleep(0.01)
            secured[0].sendall(RELEASE_RP)
            deadline = time.monotonic() + LIMIT_S
            while not wire.ready:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert wire.recv(6) + wire.recv(4) == RELEASE_RP
