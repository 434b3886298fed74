"""A load generator: radiographs under ever new UIDs, sent by DCMTK over several associations or with open arrival."""

import itertools
import os
import random
import subprocess
import threading
import time
from pathlib import Path

_PLACES = (b"2.25.1" + b"7" * 30, b"2.25.1" + b"8" * 30)
"""Study and SOP Instance UID in the template, replaced in its bytes by others of the same length."""


def template(file: Path, *, rows: int = 3000, columns: int = 3000) -> Path:
    """Write the radiograph of the benchmarks: CR, MONOCHROME1, 15 bits in 16, uncompressed, about 18 MB.

    Its pixels are those of the chest radiograph of pydicom-data, enlarged: what a detector sends is no phantom.
    """
    import cv2
    import numpy as np
    from pydicom import dcmread
    from pydicom.data import get_testdata_file
    from pydicom.uid import UID

    dataset = dcmread(get_testdata_file("RG1_UNCR.dcm"))
    pixels = cv2.resize(dataset.pixel_array, (columns, rows), interpolation=cv2.INTER_LINEAR)
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    study, instance = (UID(place.decode()) for place in _PLACES)
    dataset.StudyInstanceUID = study
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance
    dataset.save_as(file, enforce_file_format=True)
    return file


class Source:
    """Copies of one file with Study and SOP Instance UIDs of their own and otherwise the same bytes."""

    def __init__(self, file: Path, folder: Path) -> None:
        self._content = file.read_bytes()
        self._folder = folder
        self._numbers = itertools.count(int(time.time() * 1000) * 10_000)
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, count: int) -> dict[str, Path]:
        """Write copies; returns their Study Instance UIDs and files."""
        made = {}
        for _ in range(count):
            number = next(self._numbers)
            uids = [f"2.25.{digit}{number:030d}" for digit in (1, 2)]
            content = self._content
            for place, uid in zip(_PLACES, uids, strict=True):
                content = content.replace(place, uid.encode())
            file = self._folder / f"{number}.dcm"
            file.write_bytes(content)
            made[uids[0]] = file
        return made


def send(port: int, ae_title: str, files: list[Path]) -> None:
    """Send files over one association; raises where one was not stored (the exit code alone does not tell)."""
    command = [
        "dcmsend",
        "--verbose",
        "--max-pdu",
        "131072",
        "--max-send-pdu",
        "131072",
        "--aetitle",
        "BENCH",
        "--call",
        ae_title,
    ]
    done = subprocess.run(
        [*command, "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        env=os.environ | {"TCP_NODELAY": "1"},
        check=False,
    )
    stored = done.stderr.count("(Success)") + done.stdout.count("(Success)")
    if done.returncode or stored != len(files):
        raise RuntimeError(f"{stored} of {len(files)} files were stored: {done.stderr[-300:] or done.stdout[-300:]}")


def closed(port: int, ae_title: str, files: list[Path], *, associations: int) -> None:
    """Send one file after another over each association, all associations at once."""
    failed: list[BaseException] = []

    def work(part: list[Path]) -> None:
        try:
            send(port, ae_title, part)
        except (RuntimeError, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(files[start::associations],)) for start in range(associations)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def open_arrival(port: int, ae_title: str, files: dict[str, Path], *, per_s: float) -> dict[str, float]:
    """Send each file over an association of its own, with exponential gaps, whatever became of those before.

    Returns
    -------
    By Study Instance UID: when its sender was started, time.time().
    """
    order = random.Random(1)
    sent: dict[str, float] = {}

    def work(study: str, file: Path) -> None:
        sent[study] = time.time()
        send(port, ae_title, [file])

    threads = []
    due = time.monotonic()
    for study, file in files.items():
        due += order.expovariate(per_s)
        time.sleep(max(0.0, due - time.monotonic()))
        threads.append(threading.Thread(target=work, args=(study, file)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return sent
