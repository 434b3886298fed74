"""A running receiver that writes down what it takes."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
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

from config.receiver import ReceiverSettings
from config.storage import SpoolSettings
from scp_node.records import Intake, ReceivedInstance
from scp_node.scp.part10 import Implementation
from scp_node.scp.server import Receiver
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


class Running:
    """A receiver on a port from the system, with an intake that stores at once."""

    def __init__(self, folder: Path, minimum_free_bytes: int, **settings: Any) -> None:
        self.spool = Spool(
            SpoolSettings(folder=folder / "spool", minimum_free_bytes=minimum_free_bytes, retention_days=1)
        )
        self.spool.create()
        self.instances: dict[str, ReceivedInstance] = {}
        self.stored: dict[str, Path] = {}
        self.before_accept: Callable[[ReceivedInstance], None] = lambda instance: None
        self.settings = ReceiverSettings.model_validate({"ae_title": "NODE", **settings})
        self.receiver = Receiver(
            self.settings,
            self.spool,
            self._accept,
            TRANSFER_SYNTAXES,
            implementation=Implementation(class_uid="2.25.1", version_name="NODE"),
            port=0,
        )
        self.receiver.start()
        self.port = self.receiver.port

    def _accept(self, instance: ReceivedInstance) -> Intake:
        self.before_accept(instance)
        name = self.spool.adopt(instance.file, instance.sha256)
        self.instances[instance.sop_instance_uid] = instance
        self.stored[instance.sop_instance_uid] = self.spool.path(name)
        return Intake.FILED

    def temporary_files(self) -> list[str]:
        return [path.name for path in self.spool.incoming.iterdir()]

    def wait_until_quiet(self, limit_s: float = 5) -> None:
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
    deadline = time.monotonic() + 5
    while left := [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
