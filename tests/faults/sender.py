"""Modalities as one process: several associations at once, each repeats what was not acknowledged until it is.

python -m tests.faults.sender --port PORT --folder FILES --record FILE [--associations 4] [--pause SECONDS]
"""

import argparse
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.association import Association

from scp_node.delivery.messages import Messages
from tests.faults.records import Record

_AGAIN_S = 0.3


def send_all(
    files: Sequence[Path],
    *,
    address: tuple[str, int],
    called: str,
    calling: str,
    record: Record,
    pause_s: float,
    seed: int,
) -> None:
    """Send each file until it is answered with 0x0000; swear to each answer."""
    chance = random.Random(seed)
    datasets = [dcmread(file) for file in files]
    waiting = deque(datasets)
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    ae.connection_timeout = 60
    for context in sorted({(str(d.SOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in datasets}):
        ae.add_requested_context(*context)
    while waiting:
        association = ae.associate(*address, ae_title=called)
        if association.is_established:
            # Else pynetdicom's own thread takes an answer now and then.
            association.dimse = Messages(association)
            _send(association, waiting, record, chance, pause_s)
        if association.is_established:
            association.release()
        if waiting:
            time.sleep(_AGAIN_S)


def _send(association: Association, waiting: deque, record: Record, chance: random.Random, pause_s: float) -> None:
    while waiting and association.is_established:
        dataset = waiting[0]
        uid = str(dataset.SOPInstanceUID)
        begun = time.time()
        try:
            status = association.send_c_store(dataset).get("Status")
        except (RuntimeError, ValueError):
            status = None  # the association ended under it
        record.write(uid=uid, status=status, begun=begun, at=time.time())
        waiting.popleft()
        if status != 0x0000:
            waiting.append(dataset)
            if status is None:
                association.abort()
                return
        if pause_s:
            time.sleep(chance.uniform(0, 2 * pause_s))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--called", default="SCP_NODE")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--associations", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0, help="mean pause after each object, seconds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    record = Record(arguments.record)
    files = sorted(arguments.folder.glob("*.dcm"))
    threads = [
        threading.Thread(
            target=send_all,
            args=(files[number :: arguments.associations],),
            kwargs={
                "address": ("127.0.0.1", arguments.port),
                "called": arguments.called,
                "calling": f"MODALITY{number}",
                "record": record,
                "pause_s": arguments.pause,
                "seed": arguments.seed + number,
            },
        )
        for number in range(arguments.associations)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
