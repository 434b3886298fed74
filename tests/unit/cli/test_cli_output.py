"""How commands speak."""

import pytest
from rich.console import Console

from scp_node.cli.output import predictions_table


@pytest.mark.parametrize(
    ("probability", "threshold", "is_positive", "shown"),
    [
        (0.624131, 0.12, True, ("0.6241", "0.1200", "positive")),
        (0.24999, 0.25, False, ("0.24999", "0.25000", "negative")),
        (0.25, 0.25, True, ("0.2500", "0.2500", "positive")),
        (0.2499999999, 0.25, False, ("0.2499999999", "0.2500000000", "negative")),
    ],
)
def test_no_number_contradicts_its_verdict(probability, threshold, is_positive, shown):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(predictions_table("t", [("ResNet18", "1.0.0", probability, threshold, is_positive)]))
    assert shown == tuple(capture.get().splitlines()[-2].replace("│", " ").split()[2:])
