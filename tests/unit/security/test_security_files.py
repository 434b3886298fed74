"""Certificates as files: what they say, when they are refused, when a person is needed."""

import errno
import shutil
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from config.destinations import DicomDestination
from config.load import load
from config.receiver import ReceiverSettings, ReceiverTlsSettings
from config.settings import NodeSettings
from scp_node.cli import checks
from scp_node.cli.main import main
from scp_node.security.authority import AuthorityError, TestAuthority, make_test_authority
from scp_node.security.certificates import CredentialsError, certificates_in_use, expiring, read_certificates
from scp_node.security.contexts import client_context, server_context
from scp_node.security.credentials import ServerCredentials
from scp_node.security.events import EventKind


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `scp-node tls make-test-ca` writes."""
    folder = tmp_path_factory.mktemp("pki")
    make_test_authority(folder, ["node.example.org", "192.0.2.10"], days=90)
    return folder


@pytest.fixture
def files(made, tmp_path):
    """A copy that a test may change."""
    for file in made.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path


def tls(folder, **settings):
    known = {"certificate": folder / "node.pem", "key": folder / "node.key", "authorities": folder / "ca.pem"}
    return ReceiverTlsSettings.model_validate({"enabled": True, **known, **settings})


def destination(folder, **settings):
    known = {"name": "pacs", "ae_title": "PACS", "host": "node.example.org", "port": 2762, "tls": True}
    return DicomDestination.model_validate({**known, "tls_authorities": folder / "ca.pem", **settings})


def test_the_files_of_the_test_authority(made):
    assert sorted(file.name for file in made.iterdir()) == [
        "ca.key",
        "ca.pem",
        "node.key",
        "node.pem",
        "peer.key",
        "peer.pem",
    ]
    for key in made.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    [node] = read_certificates(made / "node.pem")
    assert node.subject == "CN=scp-node"
    assert node.names == {"scp-node", "node.example.org"}
    assert 89 <= node.remaining(datetime.now(UTC)).days <= 90


def test_nothing_is_overwritten(files):
    before = {file.name: file.read_bytes() for file in files.iterdir()}
    with pytest.raises(AuthorityError, match="exists already; nothing was written"):
        make_test_authority(files, ["localhost"], days=1)
    assert {file.name: file.read_bytes() for file in files.iterdir()} == before


def handshake(server, client, name):
    """Shake hands in memory; return what the server was shown."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    ]
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].getpeercert(binary_form=True)


@pytest.mark.parametrize("host", ["node.example.org", "192.0.2.10"])
def test_both_ends_trust_each_other(made, host):
    to = destination(made, host=host, tls_certificate=made / "peer.pem", tls_key=made / "peer.key")
    context, name = client_context(to)
    assert name == host
    assert handshake(server_context(tls(made)), context, name) is not None


def test_the_contexts_are_as_the_profile_asks(made):
    """RFC 9325 4.2: nothing without forward secrecy and authenticated encryption."""
    for context in (server_context(tls(made)), client_context(destination(made))[0]):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        names = {cipher["name"] for cipher in context.get_ciphers()}
        assert all(name.startswith(("TLS_", "ECDHE-")) for name in names)
        assert all("GCM" in name or "CHACHA20" in name or "CCM" in name for name in names)
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert server_context(tls(made)).verify_mode is ssl.CERT_REQUIRED
    assert server_context(tls(made, require_client_certificate=False)).verify_mode is ssl.CERT_OPTIONAL
    assert server_context(tls(made, minimum_version="1.3")).minimum_version is ssl.TLSVersion.TLSv1_3
    assert client_context(destination(made))[0].check_hostname


def spoil(folder, how):
    match how:
        case "key of another":
            shutil.copy(folder / "peer.key", folder / "node.key")
        case "key for all":
            (folder / "node.key").chmod(0o644)
        case "no key":
            (folder / "node.key").unlink()
        case "certificate as key":
            # As a certificate is made: for all to read.
            (folder / "node.key").write_bytes((folder / "ca.pem").read_bytes())
            (folder / "node.key").chmod(0o644)
        case "no certificate":
            (folder / "node.pem").unlink()
        case "nonsense":
            (folder / "ca.pem").write_text("nonsense", encoding="ascii")
        case "encrypted key":
            key = serialization.load_pem_private_key((folder / "node.key").read_bytes(), None)
            (folder / "node.key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                )
            )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("key of another", "node.pem and .*node.key cannot be used: key values mismatch"),
        ("key for all", r"node.key: others can use this private key \(mode 0644\); run chmod 0600"),
        ("certificate as key", "node.key: is a certificate, no private key"),
        ("no key", "node.key: cannot be read: No such file"),
        ("no certificate", "node.pem: cannot be read: No such file"),
        ("nonsense", "ca.pem: holds no certificate in PEM"),
        ("encrypted key", "node.pem and .*node.key cannot be used"),
    ],
)
def test_files_that_cannot_be_used_are_named(files, how, message):
    spoil(files, how)
    with pytest.raises(CredentialsError, match=message):
        server_context(tls(files))


def test_the_group_may_read_the_key(files):
    (files / "node.key").chmod(0o640)
    server_context(tls(files))


# --- expiry ----------------------------------------------------------------------------------------------------------


def test_certificates_in_use_are_listed_with_what_is_wrong(files):
    authority = TestAuthority("soon", valid_for=timedelta(days=400))
    (files / "node.pem").unlink()
    (files / "node.key").unlink()
    soon = datetime.now(UTC) + timedelta(days=10.5)
    authority.issue("node", not_after=soon).write(files / "node.pem", files / "node.key")
    settings = NodeSettings(
        receiver=ReceiverSettings(tls=tls(files)),
        destinations=(destination(files, tls_authorities=files / "missing.pem"), destination(files, name="two")),
    )
    listed = [(used.used_for, used.certificate is not None) for used in certificates_in_use(settings)]
    assert listed == [
        ("receiver", True),
        ("receiver authority", True),
        ("destination pacs authority", False),
        ("destination two authority", True),
    ]
    sentences = {used.used_for: sentence for used, sentence in expiring(settings)}
    assert set(sentences) == {"receiver", "destination pacs authority"}
    assert sentences["receiver"].endswith("in 10 days")
    later = {used.used_for: sentence for used, sentence in expiring(settings, now=soon + timedelta(days=1))}
    assert later["receiver"].startswith("has expired on")


def test_a_warning_comes_once_a_day(files):
    # In the morning: three hours later it is still the same day.
    morning = datetime.now(UTC).replace(hour=6, minute=0)
    now, events = [morning + timedelta(days=80)], []
    credentials = ServerCredentials(tls(files), events.append, now=lambda: now[0])
    for hours in (0, 1, 2):
        now[0] += timedelta(hours=hours)
        credentials.warn_of_expiry()
    assert [event.kind for event in events] == [EventKind.CERTIFICATE_EXPIRES] * 2
    assert {event.subject for event in events} == {"CN=scp-node", "CN=scp-node test authority"}
    now[0] += timedelta(days=1)
    credentials.warn_of_expiry()
    assert len(events) == 4


def test_a_change_in_two_steps_is_taken_at_the_second(files):
    """A new certificate without its key cannot be used; the former pair stays until both are there."""
    events = []
    credentials = ServerCredentials(tls(files), events.append)
    former = credentials.context
    shutil.copy(files / "peer.pem", files / "node.pem")
    assert not credentials.refresh()
    assert credentials.context is former
    # Nothing has changed since: nothing is said twice.
    assert not credentials.refresh()
    shutil.copy(files / "peer.key", files / "node.key")
    assert credentials.refresh()
    assert credentials.context is not former
    assert [event.kind for event in events] == [EventKind.CREDENTIALS_REFUSED, EventKind.CREDENTIALS_RELOADED]


def test_what_could_not_be_read_is_tried_again_until_it_can(files, monkeypatch):
    """Also when the files stay as they are: the reason may lie elsewhere, in a disk or in what else is open."""
    events, troubles = [], ["Too many open files", "Too many open files", "Input/output error", "Too many open files"]
    credentials = ServerCredentials(tls(files), events.append)
    former = credentials.context

    def read(settings):
        if troubles:
            raise CredentialsError(troubles.pop(0))
        return server_context(settings)

    monkeypatch.setattr("scp_node.security.credentials.server_context", read)
    (files / "node.key").touch()
    for _ in range(4):
        assert not credentials.refresh()
        assert credentials.context is former
    assert credentials.refresh()
    assert credentials.context is not former
    # Each reason once, until the files could be read.
    assert [event.kind for event in events] == [EventKind.CREDENTIALS_REFUSED] * 2 + [EventKind.CREDENTIALS_RELOADED]
    troubles.append("Too many open files")
    (files / "node.key").touch()
    assert not credentials.refresh()
    assert events[-1].kind is EventKind.CREDENTIALS_REFUSED
    assert len(events) == 4


def test_a_key_that_was_written_too_wide_is_taken_when_its_mode_is_right(files):
    events = []
    credentials = ServerCredentials(tls(files), events.append)
    former = credentials.context
    for name in ("pem", "key"):
        (files / f"node.{name}").write_bytes((files / f"peer.{name}").read_bytes())
    (files / "node.key").chmod(0o644)
    assert not credentials.refresh()
    (files / "node.key").chmod(0o600)
    assert credentials.refresh()
    assert credentials.context is not former
    (files / "node.key").chmod(0o644)
    assert not credentials.refresh()


def test_an_operator_who_asks_is_told_each_time(files):
    events = []
    credentials = ServerCredentials(tls(files), events.append)
    (files / "node.key").chmod(0o644)
    for _ in range(2):
        assert not credentials.refresh(is_forced=True)
    assert [event.kind for event in events] == [EventKind.CREDENTIALS_REFUSED] * 2


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_command_makes_files_that_the_node_can_use(tmp_path, capsys):
    folder = tmp_path / "trial"
    assert main(["tls", "make-test-ca", str(folder), "--host", "localhost", "--days", "20"]) == 0
    text = capsys.readouterr().out
    assert f'certificate = "{folder}/node.pem"' in text
    config = tmp_path / "node.toml"
    snippet = [line.strip() for line in text.splitlines() if " = " in line or "[receiver.tls]" in line]
    config.write_text("\n".join(snippet), encoding="utf-8")
    assert main(["config", "check", "--config", str(config)]) == 0
    capsys.readouterr()
    # 20 days are within the warning.
    assert main(["tls", "list", "--json", "--config", str(config)]) == 1
    assert '"used_for": "receiver"' in capsys.readouterr().out
    assert main(["tls", "make-test-ca", str(folder)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_without_certificates_the_list_says_so(capsys):
    assert main(["tls", "list"]) == 0
    assert capsys.readouterr().out == "no certificates are configured\n"


@pytest.mark.parametrize("user", ["receiver", "console", "destination pacs", "audit collector"])
def test_a_key_of_another_certificate_is_found_before_a_start(files, tmp_path, capsys, user):
    """By the list, the doctor and `config check`: as a start would say it."""
    pair = 'certificate = "{0}/node.pem"\n{1}key = "{0}/peer.key"\n'
    console = f"[console]\ntls_{pair.format(files, 'tls_')}"
    sections = {
        "receiver": f'[receiver.tls]\nenabled = true\nauthorities = "{files}/ca.pem"\n{pair.format(files, "")}',
        "console": console,
        "destination pacs": '[[destinations]]\nname = "pacs"\nkind = "dicom"\nae_title = "P"\nhost = "localhost"\n'
        f"port = 1\ntls = true\ntls_{pair.format(files, 'tls_')}",
        "audit collector": f'[audit.syslog]\ntransport = "tls"\n{pair.format(files, "")}',
    }
    config = tmp_path / "node.toml"
    config.write_text(sections[user], encoding="utf-8")
    sentence = f"{files}/node.pem and {files}/peer.key cannot be used: key values mismatch"
    assert main(["tls", "list", "--config", str(config)]) == 1
    assert capsys.readouterr().err == f"scp-node: {user}: {sentence}\n"
    assert main(["config", "check", "--config", str(config)]) == 2
    assert capsys.readouterr().err == f"scp-node: {config}: TLS of {user}: {sentence}\n"
    found = {one.check: (one.level, one.detail) for one in checks.certificates(load(config, {}))}
    assert found == {f"TLS of {user}": ("failed", sentence)}


def test_following_the_files_survives_an_error_that_nobody_foresaw(files, monkeypatch):
    """Years later a certificate would expire that was renewed in time."""
    credentials = ServerCredentials(tls(files), lambda event: None)
    stopping, tried = threading.Event(), []

    def refresh():
        tried.append(None)
        if len(tried) < 4:
            raise OSError(errno.EMFILE, "Too many open files")
        stopping.set()

    monkeypatch.setattr(credentials, "refresh", refresh)
    with capture_logs() as logs:
        credentials.follow(stopping, 0.001)
    assert len(tried) == 4
    # Once when it begins, not at each attempt.
    assert [line["event"] for line in logs] == ["certificates cannot be followed now"]
