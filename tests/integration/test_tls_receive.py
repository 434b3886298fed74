"""TLS on the node's port: DCMTK and OpenSSL as clients, and who is turned away."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from pydicom.data import get_testdata_file
from raw_dicom import ASSOCIATE_AC, CLOSED, ECHO_COMMAND, RELEASE_RQ, Client, associate_request, data, echo_seconds

from scp_node.security.events import EventKind

needs_dcmtk = pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK is not installed")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

RG1 = get_testdata_file("RG1_UNCR.dcm")


def wait_for(condition, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def patient(monkeypatch):
    """A peer that this machine holds up reads its alert all the same: the receiver waits until it goes."""
    monkeypatch.setattr("scp_node.scp.acceptor._LINGER_S", 30.0)


def dcmtk(program, pki, running, *arguments, name="peer", authority="first"):
    identity = ["+tls", pki.key(name), pki.certificate(name)] if name else ["+tla"]
    command = [program, *identity, "+cf", pki.certificate(authority), "-aec", "NODE"]
    command += ["127.0.0.1", str(running.tls_port), *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.integration
@needs_dcmtk
def test_storescu_stores_through_tls(receiving, pki):
    running = receiving(tls=pki.receiver())
    done = dcmtk("storescu", pki, running, RG1)
    assert done.returncode == 0, done.stderr
    assert len(running.instances) == 1
    assert dcmtk("echoscu", pki, running).returncode == 0
    running.wait_until_quiet()


@pytest.mark.integration
@needs_dcmtk
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("name", "authority", "reason"),
    [
        (None, "first", "peer did not return a certificate"),
        ("stranger", "first", "certificate not trusted"),
        ("expired", "first", "certificate not trusted"),
        ("peer", "second", "alert"),
    ],
    ids=["no certificate", "foreign authority", "expired", "the peer does not trust the node"],
)
def test_dcmtk_without_trust_is_refused(receiving, pki, name, authority, reason):
    running = receiving(tls=pki.receiver())
    assert dcmtk("echoscu", pki, running, name=name, authority=authority).returncode != 0
    wait_for(lambda: running.events)
    assert running.events[0].kind is EventKind.TLS_FAILED
    assert reason in running.events[0].reason
    assert running.events[0].is_tls
    assert dcmtk("echoscu", pki, running).returncode == 0
    running.wait_until_quiet()


def s_client(pki, running, *arguments, name="peer"):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{running.tls_port}", "-CAfile", pki.certificate("first")]
    command += ["-verify_return_error", *arguments]
    if name is not None:
        command += ["-cert", pki.certificate(name), "-key", pki.key(name)]
    # Until the server closes: in TLS 1.3 its alert about the certificate comes after the handshake.
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            process.stdin.write(associate_request())
            process.stdin.flush()
        except BrokenPipeError:
            pass
        try:
            out, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    return out.decode("latin-1")


@pytest.mark.integration
@needs_openssl
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(receiving, pki, version):
    """The client may speak them: security level 0. RFC 8996."""
    running = receiving(tls=pki.receiver())
    out = s_client(pki, running, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in out
    wait_for(lambda: running.events)
    assert running.events[0].reason == "unsupported protocol"


@pytest.mark.integration
@needs_openssl
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("name", "alert"),
    [(None, "alert"), ("stranger", "alert unknown ca"), ("expired", "alert certificate expired")],
)
def test_a_client_without_a_trusted_certificate_gets_an_alert(receiving, pki, version, name, alert):
    running = receiving(tls=pki.receiver())
    out = s_client(pki, running, version, name=name)
    wait_for(lambda: running.events)
    # In TLS 1.3 the client has spoken by then, and the reset that answers what it said may overtake the alert.
    assert alert in out or version == "-tls1_3"
    assert "certificate" in running.events[0].reason
    assert running.instances == {}
    running.wait_until_quiet()


@pytest.mark.integration
@needs_openssl
@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-SHA384", "DHE-RSA-AES256-GCM-SHA384"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(receiving, pki, cipher):
    running = receiving(tls=pki.receiver())
    assert "handshake failure" in s_client(pki, running, "-tls1_2", "-cipher", cipher)


@pytest.mark.integration
@needs_openssl
def test_a_client_cannot_renegotiate(receiving, pki):
    running = receiving(tls=pki.receiver())
    with Client(running.tls_port, tls=pki.client()) as client:
        assert client.socket.version() == "TLSv1.3"
    command = ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{running.tls_port}"]
    command += ["-cert", pki.certificate("peer"), "-key", pki.key("peer")]
    done = subprocess.run([str(part) for part in command], input=b"R\n", capture_output=True, timeout=120, check=False)
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in done.stdout + done.stderr
    running.wait_until_quiet()


def test_both_versions_store_and_the_plain_port_is_still_there(receiving, pki):
    running = receiving(tls=pki.receiver())
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = pki.client()
        context.minimum_version = context.maximum_version = version
        with Client(running.tls_port, associated=True, tls=context) as client:
            client.send(data(ECHO_COMMAND, 3, 3))
            assert client.status() == 0
            client.send(RELEASE_RQ)
            assert client.receive()[0] == 6
    assert echo_seconds(running.port) < 20
    running.wait_until_quiet()


def test_the_plain_port_can_be_switched_off(receiving, pki):
    running = receiving(tls=pki.receiver(only=True))
    with pytest.raises(RuntimeError, match="no such port"):
        assert running.receiver.port
    with Client(running.tls_port, associated=True, tls=pki.client()):
        pass


def test_plain_dicom_on_the_tls_port_is_ended(receiving, pki):
    running = receiving(tls=pki.receiver())
    with Client(running.tls_port) as client:
        client.send(associate_request())
        # A TLS alert, or nothing; never an A-ASSOCIATE-AC.
        assert client.socket.recv(1) in (b"", b"\x15")
    running.wait_until_quiet()
    assert running.events[0].kind is EventKind.TLS_FAILED


def test_a_record_in_pieces_and_records_without_data_are_waited_for(receiving, pki):
    """A key update is a record, but no data: the association must still be able to send."""
    running = receiving(tls=pki.receiver())
    with Client(running.tls_port, associated=True, tls=pki.client()) as client:
        content = data(ECHO_COMMAND, 3, 3)
        for position in range(len(content)):
            client.socket.sendall(content[position : position + 1])
        assert client.status() == 0


def test_many_pdus_in_one_record_are_all_read(receiving, pki):
    """What OpenSSL has decrypted already makes no descriptor readable."""
    running = receiving(tls=pki.receiver())
    with Client(running.tls_port, associated=True, tls=pki.client()) as client:
        client.socket.sendall(data(ECHO_COMMAND, 3, 3) * 5)
        assert [client.status() for _ in range(5)] == [0] * 5


def test_a_silent_handshake_is_ended(receiving, pki):
    running = receiving(tls=pki.receiver(handshake_timeout_s=0.5))
    with Client(running.tls_port) as client:
        assert client.socket.recv(1) == CLOSED
    wait_for(lambda: running.events)
    assert running.events[0].reason == "handshake took too long"
    running.wait_until_quiet()


def test_a_handshake_that_trickles_is_ended(receiving, pki):
    """The limit is for all of it, not for each byte."""
    running = receiving(tls=pki.receiver(handshake_timeout_s=0.5))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = pki.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    sent = 0
    with Client(running.tls_port) as client, contextlib.suppress(OSError):
        content = outgoing.read()
        for position in range(len(content)):
            client.socket.sendall(content[position : position + 1])
            sent += 1
            time.sleep(0.05)
    assert 0 < sent < len(content)
    running.wait_until_quiet()


# --- who may talk ----------------------------------------------------------------------------------------------------


def rejection(client, request=None):
    client.send(request or associate_request())
    answer = client.receive()
    return "accepted" if answer[:1] == bytes([ASSOCIATE_AC]) else tuple(answer[7:10])


@pytest.mark.parametrize("binding", ["sha256", "name"])
def test_a_caller_can_be_bound_to_a_certificate(receiving, pki, binding):
    other = pki.folder / f"other-{binding}.pem"
    made = pki.first.issue("another", ["another.example.org"])
    made.write(other, other.with_suffix(".key"))
    bound = {"ae_title": "SCU"}
    if binding == "sha256":
        bound["certificate_sha256"] = [pki.issued["peer"].sha256.upper()]
    else:
        bound["certificate_names"] = ["PEER"]
    running = receiving(tls=pki.receiver(), callers=[bound])
    with Client(running.tls_port, tls=pki.client()) as client:
        assert rejection(client) == "accepted"
    context = pki.client(None)
    context.load_cert_chain(other, other.with_suffix(".key"))
    with Client(running.tls_port, tls=context) as client:
        assert rejection(client) == (1, 1, 3)
    with Client(running.port) as client:
        assert rejection(client) == (1, 1, 3)
    running.wait_until_quiet()
    assert [(event.reason, event.subject, event.is_tls) for event in running.events] == [
        ("certificate", "CN=another", True),
        ("certificate", "", False),
    ]


def test_callers_can_be_changed_while_associations_are_open(receiving, pki):
    running = receiving(callers=[{"ae_title": "SCU"}])
    with Client(running.port, associated=True) as client:
        changed = running.settings.model_validate({"ae_title": "NODE", "callers": [{"ae_title": "OTHER"}]})
        assert running.receiver.reload(changed)
        with Client(running.port) as newcomer:
            assert rejection(newcomer) == (1, 1, 3)
        client.send(data(ECHO_COMMAND, 3, 3))
        assert client.status() == 0
    assert EventKind.CALLERS_RELOADED in [event.kind for event in running.events]


# --- certificates that change ----------------------------------------------------------------------------------------


def replace(folder, name, issued):
    """As a certificate client does it: new files under other names, then renamed."""
    for suffix in (".pem", ".key"):
        (folder / f"new{suffix}").unlink(missing_ok=True)
    issued.write(folder / "new.pem", folder / "new.key")
    os.replace(folder / "new.pem", folder / f"{name}.pem")  # noqa: PTH105 - what is shown is the rename
    os.replace(folder / "new.key", folder / f"{name}.key")  # noqa: PTH105


def own_files(folder, pki):
    """A receiver's files that a test may change."""
    for name in ("node.pem", "node.key", "first.pem"):
        shutil.copy(pki.folder / name, folder / name)
    return {
        "enabled": True,
        "certificate": folder / "node.pem",
        "key": folder / "node.key",
        "authorities": folder / "first.pem",
    }


def shown(running, context):
    with Client(running.tls_port, tls=context) as client:
        return ssl.DER_cert_to_PEM_cert(client.socket.getpeercert(binary_form=True))


def test_a_renewed_certificate_is_used_without_ending_associations(receiving, pki, tmp_path, monkeypatch):
    monkeypatch.setattr("scp_node.scp.server._WATCH_S", 0.05)
    running = receiving(tls=own_files(tmp_path, pki))
    with Client(running.tls_port, associated=True, tls=pki.client()) as client:
        before = shown(running, pki.client())
        replace(tmp_path, "node", pki.first.issue("renewed", pki.HOSTS))
        wait_for(lambda: shown(running, pki.client()) != before)
        assert (tmp_path / "node.pem").read_text().strip() == shown(running, pki.client()).strip()
        client.send(data(ECHO_COMMAND, 3, 3))
        assert client.status() == 0
    # Told after it is in use.
    wait_for(lambda: EventKind.CREDENTIALS_RELOADED in [event.kind for event in running.events])


def test_files_that_cannot_be_used_change_nothing(receiving, pki, tmp_path):
    running = receiving(tls=own_files(tmp_path, pki))
    before = shown(running, pki.client())
    (tmp_path / "node.pem").write_text("nonsense", encoding="ascii")
    assert not running.receiver.reload(running.settings)
    assert shown(running, pki.client()) == before
    assert EventKind.CREDENTIALS_REFUSED in [event.kind for event in running.events]


def test_authorities_are_read_again_too(receiving, pki, tmp_path):
    running = receiving(tls=own_files(tmp_path, pki))
    with Client(running.tls_port, tls=pki.client("stranger")) as client:
        assert rejection(client) == ()
    shutil.copy(pki.certificate("second"), tmp_path / "first.pem")
    assert running.receiver.reload(running.settings)
    with Client(running.tls_port, tls=pki.client("stranger")) as client:
        assert rejection(client) == "accepted"


def test_a_certificate_that_expires_soon_is_told_at_the_start(receiving, pki, tmp_path):
    files = own_files(tmp_path, pki)
    replace(tmp_path, "node", pki.first.issue("soon", pki.HOSTS, not_after=datetime.now(UTC) + timedelta(days=3.5)))
    running = receiving(tls=files)
    wait_for(lambda: running.events)
    event = running.events[0]
    assert event.kind is EventKind.CERTIFICATE_EXPIRES
    assert event.subject == "CN=soon"
    assert "in 3 days" in event.reason


def test_a_silent_connection_holds_up_nobody(receiving, pki):
    """M1: the library shakes hands in the accepting thread."""
    running = receiving(tls=pki.receiver())
    with Client(running.tls_port), Client(running.tls_port):
        answered = threading.Event()

        def echo():
            with Client(running.tls_port, associated=True, tls=pki.client()) as client:
                client.send(data(ECHO_COMMAND, 3, 3))
                assert client.status() == 0
            answered.set()

        thread = threading.Thread(target=echo)
        thread.start()
        # The silent ones are ended after 30 s: before that somebody else was answered.
        assert answered.wait(20)
        thread.join()


def test_nothing_listens_when_the_certificate_cannot_be_used(receiving, pki, tmp_path, free_port):
    from scp_node.security.certificates import CredentialsError

    key = tmp_path / "open.key"
    shutil.copy(pki.key("node"), key)
    key.chmod(0o644)
    port = free_port()
    with pytest.raises(CredentialsError, match="chmod 0600"):
        receiving(tls=pki.receiver(key=key), port=port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
