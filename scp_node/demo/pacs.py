"""A stand-in PACS: a Storage SCP that keeps what it gets as Part 10 files; for the demo and for tests, not for use.

It takes every Storage SOP Class in the transfer syntaxes given and looks at nothing but the identity of an object.
"""

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import Verification

from scp_node.scp.statuses import Status

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object that arrived.

    Parameters
    ----------
    stored_at
        When its file was complete, UTC.
    """

    file: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    size_bytes: int
    stored_at: datetime


class StandInPacs:
    """A Storage SCP on this machine; use it as a context manager.

    Parameters
    ----------
    folder
        Gets one file per object, numbered in order of arrival; created when missing.
    port
        0: the operating system chooses, see ``port``.
    sop_classes
        Accepted Storage SOP Class UIDs; None: all that pynetdicom knows.
    answer
        Status for an object, from its SOP Instance UID; an object that is answered with a failure is not kept.
        None: always success.
    """

    verification = True
    """Whether it answers C-ECHO; there are some that do not."""

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "PACS",
        bind: str = "127.0.0.1",
        port: int = 0,
        sop_classes: Sequence[str] | None = None,
        transfer_syntaxes: Sequence[str] = SYNTAXES,
        answer: Callable[[str], int] | None = None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self._bind = bind
        self._port = port
        self._sop_classes = sop_classes
        self._transfer_syntaxes = list(transfer_syntaxes)
        self._answer = answer
        self._changed = threading.Condition()
        self._objects: list[StoredObject] = []
        self._received = 0
        self._server: Any = None
        self.ae: Any = None
        """pynetdicom's; with it a test changes whom the PACS knows while it runs."""

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port if self._server is None else int(self._server.server_address[1])

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """What arrived so far, in order."""
        with self._changed:
            return tuple(self._objects)

    def start(self) -> None:
        """Listen; raises OSError when the port is taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ae = self.ae = AE(ae_title=self.ae_title)
        if self.verification:
            ae.add_supported_context(Verification)
        wanted = self._sop_classes
        if wanted is None:
            wanted = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
        for uid in wanted:
            ae.add_supported_context(uid, self._transfer_syntaxes)
        self._server = ae.start_server(
            (self._bind, self._port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)]
        )
        self._port = self.port

    def stop(self) -> None:
        """Close the port; associations that are open are aborted."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_for(self, condition: Callable[[Sequence[StoredObject]], bool], timeout_s: float) -> bool:
        """Wait until ``condition`` is true of the objects so far; False when that takes longer."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(tuple(self._objects)), timeout_s)

    def _on_store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = int(Status.SUCCESS) if self._answer is None else self._answer(uid)
        if not _is_stored(status):
            return status
        with self._changed:
            self._received += 1
            number = self._received
        # Numbered, not named after a UID: no attribute of an object becomes part of a path.
        file = self.folder / f"{number:04}.dcm"
        partial = file.with_suffix(".part")
        # pynetdicom's chunked receive, if a receiver in this process switched it on, leaves the object in a file.
        if (received := event.dataset_path) is not None:
            shutil.copyfile(received, partial)
        else:
            partial.write_bytes(event.encoded_dataset())
        partial.rename(file)
        stored = StoredObject(
            file=file,
            sop_class_uid=str(event.request.AffectedSOPClassUID),
            sop_instance_uid=uid,
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae_title=str(event.assoc.requestor.ae_title),
            size_bytes=file.stat().st_size,
            stored_at=datetime.now(UTC),
        )
        with self._changed:
            self._objects.append(stored)
            self._changed.notify_all()
        return status


def _is_stored(status: int) -> bool:
    """Success or a warning, 0xBxxx (PS3.4 Table B.2-1)."""
    return status == Status.SUCCESS or status >> 12 == 0xB
