"""The process in which the models run for all other children."""

import numpy as np
import pytest

from inference.ensemble import Output
from inference.errors import InferenceError
from scp_node.jobs import judging
from scp_node.jobs.model_messages import outputs_from, question

PICTURE = np.zeros((8, 8), np.uint8)
MAP = np.ones((2, 2), np.float32)


class Networks:
    """Says of every radiograph what it is given."""

    def __init__(self, *outputs):
        self.outputs = outputs

    def run(self, radiographs):
        return [self.outputs for _ in radiographs]


@pytest.fixture
def handle(monkeypatch):
    def make(*outputs):
        monkeypatch.setattr(judging, "open_ensemble", lambda arguments: Networks(*outputs))
        return judging.open_models({})

    return make


def test_each_question_has_its_answer(handle):
    answers = handle(Output(1.5, MAP))({"questions": [question((PICTURE,))] * 3})["answers"]
    assert len(answers) == 3
    [output] = outputs_from(answers[0])
    assert output.logit == 1.5
    np.testing.assert_array_equal(output.signed_map, MAP)


@pytest.mark.parametrize("bad", [Output(float("nan"), MAP), Output(0.0, MAP * np.inf)])
def test_numbers_that_are_none_are_a_failure_of_the_process(handle, bad):
    """Not of the radiograph: a device that has gone bad would make dead letters of all that follow."""
    with pytest.raises(InferenceError, match="not finite"):
        handle(Output(1.0, MAP), bad)({"questions": [question((PICTURE,))]})
