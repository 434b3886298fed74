"""What the process does in which the models run for all other children: judge what many ask for at once.

Loaded in children only: imports torch.
"""

from collections.abc import Callable
from typing import Any

from inference.errors import InferenceError
from scp_node.jobs.loading import open_ensemble
from scp_node.jobs.model_messages import answer, inputs_from


def open_models(arguments: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Load the models; the factory of the process."""
    ensemble = open_ensemble(arguments)

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        outputs = ensemble.run([inputs_from(question) for question in request["questions"]])
        if not all(output.is_finite for one in outputs for output in one):
            # Of a device that has gone bad, more likely than of a picture: this process is ended and another one asked.
            raise InferenceError("a network gave numbers that are not finite")
        return {"answers": [answer(one) for one in outputs]}

    return handle
