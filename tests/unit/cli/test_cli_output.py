"""How commands speak."""

import time
from datetime import UTC, datetime

import pytest
from rich.console import Console

from scp_node.cli.jobs import _time_of
from scp_node.cli.output import moment, predictions_table


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


def test_a_time_names_its_zone_and_can_be_given_back(monkeypatch):
    """Node, workstation and the person who reads may be in different ones."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        shown = moment(datetime(2026, 7, 1, 12, 0, 0, 999, tzinfo=UTC))
        assert shown == "2026-07-01 14:00:00+02:00"
        assert _time_of(shown) == datetime(2026, 7, 1, 12, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()
