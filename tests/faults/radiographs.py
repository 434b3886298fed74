"""Instances for a fault run: distinct, small, and of every fate that an instance can have."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from scp_node.demo.phantoms import chest_array, cr, uid
from scp_node.records import InstanceState

_PICTURES = 8
"""Drawn once each; instances differ by noise of their own, and by their UIDs."""


def write(folder: Path, count: int, *, seed: int, knees: int = 10) -> dict[str, InstanceState]:
    """Write `count` files; return the state that each SOP Instance UID must end in.

    One of `knees` is a knee, not eligible. Three are a real radiograph; two, cut off in their pixels, dead letters.
    """
    rows, columns = 256, 224
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, InstanceState] = {}
    pictures = [
        chest_array(rows, columns, seed=seed + number, opacity=0.5 * (number % 2)) for number in range(_PICTURES)
    ]
    noise = np.random.default_rng(seed)
    for number in range(count):
        name = folder / f"{number:05}.dcm"
        if number in (11, 23, 37):
            source = pydicom.dcmread(get_testdata_file("RG1_UNCR.dcm"))
            source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = uid("faults", seed, number)
            state = InstanceState.DELIVERED
        else:
            part = "KNEE" if number % knees == knees - 1 else "CHEST"
            grain = noise.integers(0, 8, (rows, columns), dtype=np.uint16)
            picture = 4095 - np.minimum(pictures[number % _PICTURES] + grain, 4095)
            source = cr(picture, identity=f"faults-{seed}-{number}", BodyPartExamined=part)
            state = InstanceState.DELIVERED if part == "CHEST" else InstanceState.NOT_ELIGIBLE
            if number in (16, 30):
                source.PixelData = source.PixelData[: len(source.PixelData) // 2]
                state = InstanceState.DEAD_LETTER
        source.save_as(name, enforce_file_format=True)
        expected[str(source.SOPInstanceUID)] = state
    return expected
