"""To a collector: frames as RFC 5424 has them, over UDP, TCP and TLS; what it cannot take waits and comes later."""

import os
import resource
import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from config.audit import SyslogSettings
from scp_node.audit.entries import Draft
from scp_node.audit.forwarding import Forwarding
from scp_node.audit.syslog import connect, frame

LIMIT_S = 60


def drafts(*names):
    return [Draft(at="2026-11-23T18:00:00.000Z", message=f"<AuditMessage>{name}</AuditMessage>") for name in names]


def make_certificate(folder, name, *, issuer=None):
    """A certificate for 127.0.0.1, signed by itself or by another one; returns files and what signs."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed_by, signing_key = issuer or (subject, key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files[1].chmod(0o600)
    return files, (subject, key)


class Collector:
    """Takes octet-counted messages over TCP, or over TLS from clients with a certificate of its authority."""

    def __init__(self, context=None, port=0):
        self.messages = []
        self._context = context
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def port(self):
        return self._listener.getsockname()[1]

    def wait(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages) >= count, LIMIT_S), self.messages
            return list(self.messages)

    def stop(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def _serve(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(OSError), connection:
                    if self._context is not None:
                        connection = self._context.wrap_socket(connection, server_side=True)
                    self._open.append(connection)
                    self._read(connection)

    def _read(self, connection):
        with connection, connection.makefile("rb") as stream:
            while length := self._length(stream):
                message = stream.read(length)
                with self._changed:
                    self.messages.append(message)
                    self._changed.notify_all()

    @staticmethod
    def _length(stream):
        digits = b""
        while (byte := stream.read(1)) not in (b" ", b""):
            digits += byte
        return int(digits or 0)


@pytest.fixture
def forwarding(trail):
    """Start forwarding to a collector with these settings; stopped at the end."""
    started = []

    def start(**settings):
        made = Forwarding(trail, SyslogSettings(**{"retry_s": 0.05, "timeout_s": LIMIT_S, **settings}))
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        made.stop()


def names(messages):
    return [message.partition(b"<AuditMessage>")[2].partition(b"<")[0].decode() for message in messages]


def test_a_frame_is_as_the_standards_have_it():
    text = frame("<AuditMessage>é</AuditMessage>", "2026-11-23T18:00:00.000Z")
    header, mark, message = text.partition(b"\xef\xbb\xbf")
    priority, time, host, application, process, message_id, data = header.split(b" ")[:7]
    assert priority == b"<85>1"
    assert time == b"2026-11-23T18:00:00.000Z"
    assert (application, message_id, data) == (b"scp-node", b"DICOM+RFC3881", b"-")
    assert process.isdigit()
    assert host
    assert mark
    assert message.decode() == "<AuditMessage>é</AuditMessage>"


def test_over_tcp_what_was_written_before_and_after_arrives_once(trail, forwarding):
    collector = Collector()
    trail.append(drafts("a", "b"))
    running = forwarding(transport="tcp", port=collector.port)
    assert names(collector.wait(2)) == ["a", "b"]
    trail.append(drafts("c"))
    running.wake()
    assert names(collector.wait(3)) == ["a", "b", "c"]
    running.stop()
    assert running.sent() == 3
    collector.stop()


def test_over_udp_each_message_is_a_datagram(trail, forwarding):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(LIMIT_S)
        forwarding(transport="udp", port=listener.getsockname()[1])
        trail.append(drafts("a", "b"))
        assert names([listener.recv(65536), listener.recv(65536)]) == ["a", "b"]


def test_a_collector_that_is_down_gets_everything_later(trail, forwarding, free_port):
    """Also what was written while no forwarding ran, and after the collector went away in between."""
    port = free_port()
    trail.append(drafts("a", "b"))
    running = forwarding(transport="tcp", port=port)
    trail.append(drafts("c"))
    running.stop()
    assert running.sent() == 0

    running = forwarding(transport="tcp", port=port)
    collector = Collector(port=port)
    assert names(collector.wait(3)) == ["a", "b", "c"]
    collector.stop()
    trail.append(drafts("d"))
    running.wake()
    collector = Collector(port=port)
    trail.append(drafts("e"))
    # At least once: the last batch before a break may come twice, nothing may be missing.
    deadline = threading.Event()
    for _ in range(10 * LIMIT_S):
        if names(collector.messages)[-1:] == ["e"]:
            break
        deadline.wait(0.1)
    assert [name for name in names(collector.messages) if name in "de"] == ["d", "e"]
    collector.stop()


def test_only_one_of_two_sends(trail, forwarding):
    collector = Collector()
    first = forwarding(transport="tcp", port=collector.port)
    trail.append(drafts("a"))
    collector.wait(1)
    second = forwarding(transport="tcp", port=collector.port)
    trail.append(drafts("b", "c"))
    assert names(collector.wait(3)) == ["a", "b", "c"]
    first.stop()
    trail.append(drafts("d"))
    second.wake()
    assert names(collector.wait(4)) == ["a", "b", "c", "d"]
    second.stop()
    collector.stop()


def test_a_process_with_many_open_files_still_sends(trail, forwarding):
    """`select` cannot wait for descriptors from 1024 on."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    collector = Collector()
    held = []
    try:
        while not held or held[-1] < 1100:
            held.append(os.open(os.devnull, os.O_RDONLY))
        trail.append(drafts("a", "b"))
        running = forwarding(transport="tcp", port=collector.port)
        assert names(collector.wait(2)) == ["a", "b"]
        running.stop()
        assert running.sent() == 2
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        collector.stop()


class Taken:
    """A collector in memory, and events that a test waits for."""

    def __init__(self):
        self.frames, self.troubles = [], []
        self.has_failed, self.has_some = threading.Event(), threading.Event()

    def connect(self, _settings):
        if self.troubles:
            trouble = self.troubles.pop(0)
            if not self.troubles:
                self.has_failed.set()
            raise trouble
        return self

    def send(self, frames):
        self.frames += frames
        self.has_some.set()

    def close(self):
        pass


@pytest.fixture
def taken(trail):
    """Start forwarding into memory."""
    memory, started = Taken(), []

    def start():
        made = Forwarding(
            trail, SyslogSettings(transport="tcp", retry_s=0.02, timeout_s=LIMIT_S), connect=memory.connect
        )
        started.append(made)
        made.start()
        return memory

    memory.start = start
    yield memory
    for made in started:
        made.stop()


def test_nothing_that_goes_wrong_ends_the_forwarding_and_each_kind_is_logged_once(trail, taken):
    taken.troubles = [ValueError("filedescriptor out of range in select()")] * 3
    taken.troubles += [OSError("no route"), MemoryError(), OSError("refused"), ValueError("again")]
    trail.append(drafts("a"))
    with structlog.testing.capture_logs() as logged:
        taken.start()
        assert taken.has_failed.wait(LIMIT_S)
        assert taken.has_some.wait(LIMIT_S)
    assert names(taken.frames) == ["a"]
    troubles = [line["error"] for line in logged if line["log_level"] == "warning"]
    assert troubles == ["filedescriptor out of range in select()", "no route", ""]


def test_a_lock_that_cannot_be_opened_now_is_opened_later(trail, taken):
    lock = trail.file.with_suffix(".lock")
    lock.mkdir()
    trail.append(drafts("a"))
    with structlog.testing.capture_logs() as logged:
        taken.start()
        deadline = time.monotonic() + LIMIT_S
        while not logged:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        lock.rmdir()
        assert taken.has_some.wait(LIMIT_S)
    assert names(taken.frames) == ["a"]


def test_a_trail_that_was_moved_away_begins_again_for_the_collector_too(trail, taken):
    """The number of what was sent is of the old trail: the new one's would be passed over until they reach it."""
    trail.append(drafts("old"))
    trail.file.with_suffix(".sent").write_text("5000", encoding="ascii")
    trail.file.unlink()
    trail.append(drafts("a", "b"))
    with structlog.testing.capture_logs() as logged:
        taken.start()
        assert taken.has_some.wait(LIMIT_S)
    assert names(taken.frames) == ["a", "b"]
    assert "audit trail begins anew" in [line["event"] for line in logged]


def test_a_line_that_is_being_written_is_no_new_trail(trail, taken):
    trail.append(drafts("a", "b", "c"))
    trail.file.with_suffix(".sent").write_text("3", encoding="ascii")
    content = trail.file.read_bytes()
    trail.file.write_bytes(content[:-20])
    assert trail.newest() == 2
    trail.file.write_bytes(content)
    assert trail.newest() == 3
    taken.start()
    trail.append(drafts("d"))
    assert taken.has_some.wait(LIMIT_S)
    assert names(taken.frames) == ["d"]


@pytest.fixture
def authority(tmp_path):
    (file, _), signer = make_certificate(tmp_path, "authority")
    return file, signer


def test_over_tls_both_sides_show_a_certificate(trail, forwarding, tmp_path, authority):
    file, signer = authority
    server, _ = make_certificate(tmp_path, "collector", issuer=signer)
    client, _ = make_certificate(tmp_path, "node", issuer=signer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    context.load_verify_locations(file)
    context.verify_mode = ssl.CERT_REQUIRED
    collector = Collector(context)
    trail.append(drafts("a", "b"))
    running = forwarding(transport="tls", port=collector.port, authorities=file, certificate=client[0], key=client[1])
    assert names(collector.wait(2)) == ["a", "b"]
    trail.append(drafts("c"))
    assert names(collector.wait(3)) == ["a", "b", "c"]
    running.stop()
    collector.stop()


def test_a_collector_with_a_foreign_certificate_gets_nothing(tmp_path, authority):
    server, _ = make_certificate(tmp_path, "stranger")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    collector = Collector(context)
    settings = SyslogSettings(transport="tls", port=collector.port, authorities=authority[0], timeout_s=LIMIT_S)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(settings)
    assert collector.messages == []
    collector.stop()
