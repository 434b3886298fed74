"""The console's own TLS: real https clients, what they refuse, what it refuses, and certificates that change."""

import http.client
import shutil
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from config.console import ConsoleSettings, ConsoleUser, Role
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.console.access import hash_password
from scp_node.console.server import Server
from scp_node.errors import StartError
from scp_node.jobs import database
from scp_node.jobs.migrations import migrate
from scp_node.security.authority import TestAuthority
from scp_node.security.events import EventKind

PASSWORD = "a long enough password"  # noqa: S105 - of no user but these tests
HOSTS = ("localhost", "127.0.0.1")


class Secured:
    """A console with a certificate of a test authority."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "console.pem", folder / "console.key"
        self.authority, self.other = folder / "ca.pem", folder / "other.pem"
        self.first = TestAuthority("first", valid_for=timedelta(days=90))
        self.first.issued.write(self.authority, folder / "ca.key")
        TestAuthority("other", valid_for=timedelta(days=90)).issued.write(self.other, folder / "other.key")
        self.issue()
        settings = NodeSettings(
            console=ConsoleSettings(
                tls_certificate=self.certificate,
                tls_key=self.key,
                users=(ConsoleUser(name="anna", role=Role.ADMINISTRATOR, password_hash=hash_password(PASSWORD)),),
            ),
            database=DatabaseSettings(url=f"sqlite:///{folder}/node.sqlite"),
            spool=SpoolSettings(folder=folder / "spool", minimum_free_bytes=0),
        )
        settings.spool.folder.mkdir()
        self.engine = database.open_engine(settings.database.url)
        migrate(self.engine)
        self.events = []
        self.server = Server(settings, self.engine, port=0, sink=self.events.append)

    def issue(self, **values) -> None:
        """A new certificate and key under the same names, as a renewal leaves them."""
        issued = self.first.issue("console", HOSTS, **values)
        # Renamed, as careful programs do: the key never has another mode.
        fresh = self.certificate.with_suffix(".new"), self.key.with_suffix(".newkey")
        issued.write(*fresh)
        fresh[0].replace(self.certificate)
        fresh[1].replace(self.key)

    def context(self, authority: Path | None = None) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=authority or self.authority)

    def client(self, authority: Path | None = None) -> httpx.Client:
        address = f"https://localhost:{self.server.port}"
        return httpx.Client(base_url=address, verify=self.context(authority), timeout=60)

    def shown(self, context: ssl.SSLContext | None = None) -> tuple[str, str | None]:
        """Serial number of the certificate that a new connection sees, and the TLS version."""
        with (
            socket.create_connection(("127.0.0.1", self.server.port), timeout=60) as plain,
            (context or self.context()).wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert()["serialNumber"], secured.version()


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    made = Secured(tmp_path_factory.mktemp("secured"))
    made.server.start()
    yield made
    made.server.stop(10)
    made.engine.dispose()


def test_people_log_in_over_tls(secured):
    with secured.client() as client:
        answer = client.post("/login", data={"name": "anna", "password": PASSWORD})
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"]
        # The prefix makes browsers insist on Secure, on this host and on the path.
        assert cookie.startswith("__Host-scp-node=")
        assert {"secure", "httponly", "samesite=strict", "path=/"} <= {one.strip().lower() for one in cookie.split(";")}
        assert "max-age" in answer.headers["strict-transport-security"]
        page = client.get("/operations")
        assert page.status_code == 200
        assert "console.pem" in page.text


def test_a_client_that_does_not_trust_the_authority_goes_away(secured):
    with secured.client(secured.other) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        client.get("/health/live")
    with socket.create_connection(("127.0.0.1", secured.server.port), timeout=60) as plain:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = plain
        connection.request("GET", "/health/live")
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_today_are_spoken(secured, version):
    context = secured.context()
    context.minimum_version = context.maximum_version = version
    assert secured.shown(context)[1] == version.name.replace("v1_", "v1.")


def test_ciphers_without_forward_secrecy_are_not(secured):
    context = secured.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES256-GCM-SHA384:AES256-SHA")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        secured.shown(context)


def test_a_renewed_certificate_is_taken_up_and_half_a_renewal_is_not(secured):
    before, _ = secured.shown()
    with secured.client() as open_before:
        assert open_before.get("/health/live").status_code == 200
        secured.issue()
        assert secured.server.refresh_certificates()
        renewed, _ = secured.shown()
        assert renewed != before
        assert open_before.get("/health/live").status_code == 200
    kept = secured.key.read_bytes()
    other = secured.first.issue("console", HOSTS)
    other.write(secured.certificate.with_suffix(".x"), secured.key.with_suffix(".xkey"))
    shutil.copyfile(secured.key.with_suffix(".xkey"), secured.key)
    assert not secured.server.refresh_certificates()
    assert secured.shown()[0] == renewed
    secured.key.write_bytes(kept)
    assert secured.server.refresh_certificates()
    kinds = [one.kind for one in secured.events if one.kind is not EventKind.CERTIFICATE_EXPIRES]
    assert kinds == [EventKind.CREDENTIALS_RELOADED, EventKind.CREDENTIALS_REFUSED, EventKind.CREDENTIALS_RELOADED]


def test_a_key_that_others_can_read_is_refused(tmp_path):
    made = Secured(tmp_path)
    made.key.chmod(0o644)
    with pytest.raises(StartError, match="others can use this private key"):
        made.server.start()
    made.engine.dispose()


def test_a_certificate_that_ends_soon_is_told_of(tmp_path):
    made = Secured(tmp_path)
    ends = datetime.now(UTC) + timedelta(days=10.5)
    made.issue(not_after=ends)
    made.server.start()
    try:
        with made.client() as client:
            client.post("/login", data={"name": "anna", "password": PASSWORD})
            assert "ends soon" in client.get("/operations").text
    finally:
        made.server.stop(10)
        made.engine.dispose()
    assert [one.reason for one in made.events if one.kind is EventKind.CERTIFICATE_EXPIRES] == [
        f"certificate of console expires on {ends:%Y-%m-%d}, in 10 days"
    ]
