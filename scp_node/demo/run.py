"""The demonstration: a node and a stand-in PACS on this machine, radiographs in by C-STORE, results back.

Every run has data folders of its own and ports from the operating system, so runs never meet each other or a real node.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pydicom
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.errors import InvalidDicomError

from config.destinations import DicomDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings
from scp_node.demo.arrivals import Arrival, Statement, read, save_preview, statements
from scp_node.demo.modality import send
from scp_node.demo.pacs import StandInPacs
from scp_node.errors import NodeError
from scp_node.jobs.admin import Admin
from scp_node.jobs.node import Node
from scp_node.jobs.records import InstanceRecord
from scp_node.records import InstanceState

SAMPLE = "RG1_UNCR.dcm"
"""A real chest radiograph (CR) that comes with the package pydicom-data."""

_LIMIT_S = 300.0

Progress = Callable[[str], None]


class DemoError(NodeError):
    """The demonstration cannot run: no such file, not DICOM, models that do not load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one radiograph.

    Parameters
    ----------
    seconds
        From the last byte of the source at the node to the last result stored by the PACS; None when nothing came.
    folder
        Where the objects that came back lie, and their previews.
    """

    source: Path
    sender: str
    instance: InstanceRecord
    arrivals: tuple[Arrival, ...]
    statements: tuple[Statement, ...]
    seconds: float | None
    folder: Path

    @property
    def is_complete(self) -> bool:
        """Whether a picture and a report came back, and all that came belongs to the source."""
        kinds = {(arrival.is_secondary_capture, arrival.is_report) for arrival in self.arrivals}
        return {(True, False), (False, True)} <= kinds and all(arrival.belongs for arrival in self.arrivals)


def sample() -> Path:
    """The radiograph that is sent when no other is named."""
    found = get_testdata_file(SAMPLE, download=False)
    if found is None:
        raise DemoError(f"{SAMPLE} is not installed: pip install pydicom-data, or name a file with --input")
    return Path(str(found))


def open_source(file: Path) -> Dataset:
    """Read the attributes of a radiograph that is to be sent; raises DemoError when it cannot be."""
    try:
        return pydicom.dcmread(file, stop_before_pixels=True)
    except OSError as error:
        raise DemoError(f"{file}: {error.strerror or error}") from None
    except InvalidDicomError:
        raise DemoError(f"{file}: is no DICOM file (for PNG and JPEG see `scp-node analyze`)") from None


class Demo:
    """A running node and its PACS; use it as a context manager.

    Parameters
    ----------
    settings
        What analysis and results use; receiver, spool, database and destinations are the demonstration's own.
    progress
        Gets a short sentence whenever something new goes on.
    """

    def __init__(self, settings: NodeSettings, progress: Progress) -> None:
        self._progress = progress
        self._work = Path(tempfile.mkdtemp(prefix="scp-node-demo-"))
        self._pacs = StandInPacs(self._work / "pacs")
        self._base = settings
        self._settings = settings
        self._node: Node | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        self._pacs.start()
        self._settings = self._own_settings()
        node = Node(self._settings, receiver_port=0)
        self._progress("starting the node")
        node.start()
        self._node = node
        self._progress("loading the models")
        if not node.wait_ready(_LIMIT_S):
            raise DemoError(f"the models did not load within {_LIMIT_S:.0f} s")

    def close(self) -> None:
        """Stop node and PACS and remove their data."""
        if self._node is not None:
            self._node.stop()
            self._node = None
        self._pacs.stop()
        shutil.rmtree(self._work, ignore_errors=True)

    def run(self, file: Path, folder: Path, *, timeout_s: float = _LIMIT_S) -> Outcome:
        """Send one radiograph, wait for its final state, keep in ``folder`` what came back.

        Raises
        ------
        DemoError
            The file cannot be read, or nothing is final within the limit.
        SendError
            The node does not take it.
        """
        if self._node is None:
            raise DemoError("the demonstration is not running")
        source = open_source(file)
        self._progress(f"sending {file.name}")
        receiver = self._settings.receiver
        sender = send(file, host=receiver.bind, port=self._node.port, called_ae_title=receiver.ae_title)
        instance = self._wait(str(source.SOPInstanceUID), timeout_s)
        self._progress("reading what came back")
        arrivals: list[Arrival] = []
        said: list[Statement] = []
        folder.mkdir(parents=True, exist_ok=True)
        for stored in self._pacs.objects:
            arrival, dataset = read(stored, source)
            if not arrival.belongs and dataset.StudyInstanceUID != source.StudyInstanceUID:
                continue
            arrivals.append(arrival)
            said += statements(dataset)
            shutil.copyfile(stored.file, folder / f"{arrival.label}.dcm")
            if arrival.is_secondary_capture:
                save_preview(dataset, folder / f"{arrival.label}.png")
        last = max((arrival.stored.stored_at for arrival in arrivals), default=None)
        return Outcome(
            source=file,
            sender=sender,
            instance=instance,
            arrivals=tuple(arrivals),
            statements=tuple(said),
            seconds=None if last is None else (last - instance.received_at).total_seconds(),
            folder=folder,
        )

    def _wait(self, sop_instance_uid: str, timeout_s: float) -> InstanceRecord:
        deadline = time.monotonic() + timeout_s
        with Admin(self._settings) as admin:
            while True:
                instance = admin.show(sop_instance_uid).instance
                self._progress(f"{instance.state.value}, {len(self._pacs.objects)} objects at the PACS")
                if instance.state.is_final:
                    return instance
                if time.monotonic() > deadline:
                    raise DemoError(f"still {instance.state.value} after {timeout_s:.0f} s")
                time.sleep(0.1)

    def _own_settings(self) -> NodeSettings:
        base = self._base
        return base.model_copy(
            update={
                "receiver": base.receiver.model_copy(update={"bind": "127.0.0.1", "callers": ()}),
                "spool": base.spool.model_copy(
                    update={"folder": self._work / "spool", "minimum_free_bytes": 64 * 2**20}
                ),
                "database": DatabaseSettings(url=f"sqlite:///{self._work / 'node.sqlite'}"),
                "destinations": (
                    DicomDestination(
                        name="pacs", kind="dicom", ae_title=self._pacs.ae_title, host="127.0.0.1", port=self._pacs.port
                    ),
                ),
            }
        )


def describe(instance: InstanceRecord) -> str:
    """Why there are no results, in a sentence; empty when they were delivered."""
    if instance.state is InstanceState.DELIVERED:
        return ""
    reason = f": {instance.detail}" if instance.detail else ""
    errors = "; ".join(delivery.last_error for delivery in instance.deliveries if delivery.last_error)
    return f"{instance.state.value} ({instance.reason}){reason}" + (f"; {errors}" if errors else "")
