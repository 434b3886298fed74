"""What a run leaves in its folder besides its recipe: its last finished epoch is written here, its times are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inference.training.recipe import RunError

STATE_FILE = "state.pt"
LOG_FILE = "log.jsonl"


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Replace the last finished epoch of a run; what was there stays until this one is written.

    Raises
    ------
    RunError
        It cannot be written.
    """
    file = folder / STATE_FILE
    partial = folder / f"{STATE_FILE}.part"
    try:
        torch.save(dict(state), partial)
        partial.replace(file)
    except (OSError, RuntimeError) as error:  # PyTorch's writer says RuntimeError of a full disk
        partial.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise RunError(f"{file} cannot be written: {reason}") from error


def duration_s(folder: Path, epochs: int) -> float:
    """Seconds that the epochs took by the log; an epoch that was repeated counts once, as it was last."""
    try:
        lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0.0
    took: dict[int, float] = {}
    for line in lines:
        try:
            record: Mapping[str, float] = json.loads(line)
        except ValueError:  # cut off by a full disk or a crash; what was trained is in the state
            continue
        took[int(record["epoch"])] = record["duration_s"]
    return sum(seconds for epoch, seconds in took.items() if epoch <= epochs)
