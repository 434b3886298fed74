"""How children ask for what models say, and how they are told: JSON, pictures and maps in base64."""

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.ensemble import Inputs, Output

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Asks the parent of a child process; raises RefusedError when it has no answer."""


class AskedEnsemble:
    """Models that run in another process, which is asked through the parent."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def run(self, radiographs: Sequence[Inputs]) -> list[tuple[Output, ...]]:
        """Ask for one radiograph after the other; see `Ensemble.run`."""
        return [outputs_from(self._ask(question(inputs))) for inputs in radiographs]


def question(inputs: Inputs) -> dict[str, Any]:
    """Say what the models are to judge."""
    return {"inputs": [_array(picture) for picture in inputs]}


def inputs_from(message: dict[str, Any]) -> Inputs:
    """Read what the models are to judge."""
    return tuple(_from_array(picture, np.uint8) for picture in message["inputs"])


def answer(outputs: Sequence[Output]) -> dict[str, Any]:
    """Say what the models said of one radiograph."""
    return {"outputs": [{"logit": output.logit, "map": _array(output.signed_map)} for output in outputs]}


def outputs_from(message: dict[str, Any]) -> tuple[Output, ...]:
    """Read what the models said of one radiograph."""
    return tuple(Output(output["logit"], _from_array(output["map"], np.float32)) for output in message["outputs"])


def _array(values: NDArray[Any]) -> dict[str, Any]:
    return {"shape": values.shape, "values": base64.b64encode(values.tobytes()).decode("ascii")}


def _from_array(message: dict[str, Any], dtype: type) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(message["values"]), dtype).reshape(message["shape"])
