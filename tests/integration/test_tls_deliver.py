"""TLS from the node to a destination: DCMTK's storescp, and peers that are not who they should be."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from config.destinations import DicomDestination
from scp_node.delivery.catalog import echo, send
from scp_node.records import Outgoing, Verdict

RG1 = get_testdata_file("RG1_UNCR.dcm")
LIMIT_S = 60
"""For what takes milliseconds on a quiet machine."""


@contextlib.contextmanager
def storescp(pki, folder, port, name="peer"):
    """DCMTK's Storage SCP with a certificate, which wants one of its callers too."""
    folder.mkdir()
    command = ["storescp", "+tls", pki.key(name), pki.certificate(name), "+cf", pki.certificate("first")]
    command += ["-od", folder, "-aet", "PACS", str(port)]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + LIMIT_S
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S).close()
                    break
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield
        finally:
            process.terminate()
            process.wait(timeout=LIMIT_S)


def destination(pki, port, **settings):
    known = {
        "name": "pacs",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "port": port,
        "timeout_s": LIMIT_S,
        "tls": True,
        "tls_authorities": pki.certificate("first"),
        "tls_certificate": pki.certificate("node"),
        "tls_key": pki.key("node"),
    }
    return DicomDestination.model_validate(
        {key: value for key, value in {**known, **settings}.items() if value is not None}
    )


def deliver(to):
    item = Outgoing(
        sop_instance_uid="1.3.6.1.4.1.5962.1.1.11.1.5.20040826185730.5457",
        sop_class_uid=str(ComputedRadiographyImageStorage),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        file=Path(RG1),
        group="picture",
    )
    [outcome] = send([item], to, calling_ae_title="NODE")
    return outcome


needs_dcmtk = pytest.mark.skipif(shutil.which("storescp") is None, reason="DCMTK is not installed")


@pytest.mark.integration
@needs_dcmtk
@pytest.mark.parametrize("way", ["authority and host name", "fingerprint", "another name"])
def test_storescp_takes_objects_through_tls(pki, tmp_path, free_port, way):
    port = free_port()
    settings = {
        "authority and host name": {},
        "fingerprint": {"tls_authorities": None, "tls_sha256": pki.issued["peer"].sha256},
        "another name": {"tls_host_name": "localhost"},
    }[way]
    with storescp(pki, tmp_path / "pacs", port):
        to = destination(pki, port, **settings)
        assert deliver(to).verdict is Verdict.CONFIRMED
        assert echo(to, calling_ae_title="NODE").is_reachable
    assert len(list((tmp_path / "pacs").iterdir())) == 1


@pytest.mark.integration
@needs_dcmtk
@pytest.mark.parametrize(
    "case",
    [
        ("stranger", {}, "certificate not trusted"),
        ("expired", {}, "certificate not trusted: certificate has expired"),
        ("peer", {"tls_host_name": "pacs.example.org"}, "certificate not trusted: Hostname mismatch"),
        ("peer", {"tls_sha256": "ab" * 32}, "fingerprint"),
        ("peer", {"tls_certificate": None, "tls_key": None}, "alert"),
    ],
    ids=["foreign authority", "expired", "another host", "another fingerprint", "no certificate of our own"],
)
def test_a_result_stays_queued_while_there_is_no_trust(pki, tmp_path, free_port, case):
    """Whatever is wrong with certificates can be mended: the result must wait, and say why."""
    peer, settings, detail = case
    port = free_port()
    with storescp(pki, tmp_path / "pacs", port, peer):
        outcome = deliver(destination(pki, port, **settings))
    assert outcome.verdict is Verdict.TRANSIENT
    assert f"no TLS with PACS at 127.0.0.1:{port}" in outcome.detail
    assert detail in outcome.detail
    assert list((tmp_path / "pacs").iterdir()) == []


def test_a_result_stays_queued_while_a_file_is_missing(pki, tmp_path, free_port):
    outcome = deliver(destination(pki, free_port(), tls_authorities=tmp_path / "missing.pem"))
    assert outcome.verdict is Verdict.TRANSIENT
    assert "missing.pem: cannot be read: No such file" in outcome.detail


@pytest.mark.parametrize("peer", ["plain", "silent"])
def test_a_peer_that_speaks_no_tls_is_given_up_in_time(pki, peer):
    """It reads what it gets and answers with DICOM, or not at all; no descriptor stays open."""
    ended = threading.Event()

    def serve(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            if peer == "plain":
                connection.sendall(b"\x07\0\0\0\0\x04\0\0\0\0")
            ended.wait(LIMIT_S)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        outcome = deliver(destination(pki, listening.getsockname()[1], timeout_s=1))
        ended.set()
        thread.join()
    assert outcome.verdict is Verdict.TRANSIENT
    assert "no TLS with PACS" in outcome.detail


def test_nothing_is_sent_to_a_peer_with_another_certificate(pki):
    """Not even titles: the fingerprint is compared before the first byte of DICOM."""
    received = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.certificate("stranger"), pki.key("stranger"))

    def serve(listening):
        connection, _ = listening.accept()
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
            received.append(secured.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        port = listening.getsockname()[1]
        outcome = deliver(destination(pki, port, tls_authorities=None, tls_sha256=pki.issued["peer"].sha256))
        thread.join()
    assert outcome.verdict is Verdict.TRANSIENT
    assert received in ([], [b""])
