"""A running receiver that writes down what it takes."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bystander import LIMIT_S, Arena
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from raw_dicom import resident_bytes

from config.receiver import ReceiverSettings
from config.storage import SpoolSettings
from scp_node.records import Intake, ReceivedInstance
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver
from scp_node.security.authority import TestAuthority
from scp_node.security.events import SecurityEvent
from scp_node.spool.store import Spool

TRANSFER_SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2K,
    RLELossless,
)
GROWTH_LIMIT_BYTES = 300 * 2**20


class Running:
    """A receiver on a port from the system, with an intake that stores at once."""

    def __init__(self, folder: Path, minimum_free_bytes: int, **settings: Any) -> None:
        self.spool = Spool(
            SpoolSettings(folder=folder / "spool", minimum_free_bytes=minimum_free_bytes, retention_days=1)
        )
        self.spool.create()
        self.instances: dict[str, ReceivedInstance] = {}
        self.stored: dict[str, Path] = {}
        self.events: list[SecurityEvent] = []
        self.before_accept: Callable[[ReceivedInstance], None] = lambda instance: None
        # No time-out of a receiver ends what a test waits for, unless it says so.
        self.settings = ReceiverSettings.model_validate({"ae_title": "NODE", "acse_timeout_s": 30.0, **settings})
        self.receiver = Receiver(
            self.settings,
            self.spool,
            self._accept,
            TRANSFER_SYNTAXES,
            implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
            port=settings.get("port", 0),
            tls_port=0,
            sink=self.events.append,
        )
        self.receiver.start()
        self.port = 0 if self.settings.tls.only else self.receiver.port
        self.tls_port = self.receiver.tls_port if self.settings.tls.enabled else 0

    def _accept(self, instance: ReceivedInstance) -> Intake:
        self.before_accept(instance)
        name = self.spool.adopt(instance.file, instance.sha256)
        self.instances[instance.sop_instance_uid] = instance
        self.stored[instance.sop_instance_uid] = self.spool.path(name)
        return Intake.FILED

    def temporary_files(self) -> list[str]:
        return [path.name for path in self.spool.incoming.iterdir()]

    def wait_until_quiet(self, limit_s: float = 60) -> None:
        """All connections have ended, with their threads and temporary files."""
        deadline = time.monotonic() + limit_s
        while self.receiver.connections or self.temporary_files():
            assert time.monotonic() < deadline, f"{self.receiver.connections} connections, {self.temporary_files()}"
            time.sleep(0.005)


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a receiver with settings of one's choice; afterwards no file and no thread of it may be left."""
    before = set(threading.enumerate())
    started: list[Running] = []

    def start(minimum_free_bytes: int = 0, **settings: Any) -> Running:
        started.append(Running(tmp_path / str(len(started)), minimum_free_bytes, **settings))
        return started[-1]

    yield start
    for running in started:
        running.receiver.stop(timeout_s=5)
        running.wait_until_quiet()
    deadline = time.monotonic() + 60
    while left := [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


class Pki:
    """Files of two authorities that do not know each other, and contexts for clients.

    ``node``, ``peer``: of the first; ``expired`` too, but no longer valid; ``stranger``: of the second.
    """

    HOSTS = ("localhost", "127.0.0.1")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first = TestAuthority("first", valid_for=timedelta(days=90))
        self.second = TestAuthority("second", valid_for=timedelta(days=90))
        past = datetime.now(UTC) - timedelta(days=2)
        issued = {
            "first": self.first.issued,
            "second": self.second.issued,
            "node": self.first.issue("node", self.HOSTS),
            "peer": self.first.issue("peer", self.HOSTS),
            "expired": self.first.issue("peer", self.HOSTS, not_before=past - timedelta(days=1), not_after=past),
            "stranger": self.second.issue("peer", self.HOSTS),
        }
        self.issued = issued
        for name, made in issued.items():
            made.write(self.certificate(name), self.key(name))

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def receiver(self, **settings: Any) -> dict[str, Any]:
        """``receiver.tls`` of a node."""
        files = {"certificate": self.certificate("node"), "key": self.key("node")}
        # The longest that is allowed: a machine that is held up is no peer that is silent.
        known = {"enabled": True, "handshake_timeout_s": 30, "authorities": self.certificate("first")}
        return {**known, **files, **settings}

    def client(self, name: str | None = "peer") -> ssl.SSLContext:
        """A client that trusts the first authority."""
        context = ssl.create_default_context(cafile=self.certificate("first"))
        if name is not None:
            context.load_cert_chain(self.certificate(name), self.key(name))
        return context


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates for the tests of this folder."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(params=["plain", "TLS"])
def arena(request: pytest.FixtureRequest, receiving: Callable[..., Running], pki: Pki) -> Callable[..., Arena]:
    """Start a receiver with settings of one's choice to be attacked, on its plain or on its TLS port."""
    tls = request.param == "TLS"

    def make(**settings: Any) -> Arena:
        chosen = {"maximum_associations": 20, "network_timeout_s": 30, **settings}
        if tls:
            chosen["tls"] = pki.receiver(only=True)
        return Arena(receiving(**chosen), pki.client() if tls else None)

    return make


@pytest.fixture(scope="module")
def nothing_is_kept() -> Iterator[None]:
    """Memory, threads and descriptors after all tests of a module are those before them."""
    memory, threads = resident_bytes(), threading.active_count()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert resident_bytes() - memory < GROWTH_LIMIT_BYTES
    deadline = time.monotonic() + LIMIT_S
    while threading.active_count() > threads or len(list(Path("/proc/self/fd").iterdir())) > descriptors + 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
