"""A destination as a process of its own: it writes down every object that it takes, durably, before it answers 0x0000.

python -m tests.faults.pacs --port PORT --ae-title PACS --record FILE
"""

import argparse
import hashlib
import threading
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from tests.faults.records import Record

SOP_CLASSES = (
    SecondaryCaptureImageStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    BasicTextSRStorage,
)


class RecordingPacs:
    """A Storage SCP that keeps of each object who it is, what it refers to and when it came."""

    def __init__(self, record: Path, ae_title: str) -> None:
        self._record = Record(record)
        self._ae = AE(ae_title=ae_title)
        self._ae.maximum_associations = 50
        self._ae.add_supported_context(Verification)
        for sop_class in SOP_CLASSES:
            self._ae.add_supported_context(
                sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit]
            )

    def start(self, port: int) -> ThreadedAssociationServer:
        """Listen in threads of this process; shut the server down to end it."""
        return self._ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._on_store)])

    def _on_store(self, event: evt.Event) -> int:
        content = event.encoded_dataset(include_meta=False)
        dataset = dcmread(DicomBytesIO(event.encoded_dataset()), stop_before_pixels=True)
        self._record.write(
            uid=str(event.request.AffectedSOPInstanceUID),
            sop_class=str(event.request.AffectedSOPClassUID),
            sha256=hashlib.sha256(content).hexdigest(),
            study=str(dataset.get("StudyInstanceUID", "")),
            series=str(dataset.get("SeriesNumber", "")),
            instance=str(dataset.get("InstanceNumber", "")),
            references=sorted({str(e.value) for e in dataset.iterall() if e.keyword == "ReferencedSOPInstanceUID"}),
            at=time.time(),
        )
        return 0x0000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ae-title", required=True)
    parser.add_argument("--record", type=Path, required=True)
    arguments = parser.parse_args()
    RecordingPacs(arguments.record, arguments.ae_title).start(arguments.port)
    threading.Event().wait()


if __name__ == "__main__":
    main()
