"""Compares what was expected with what happened, and writes it as a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.hostile.cases import Case
from tests.hostile.node import Actual

MARK = "<!-- made by `make hostile`: do not edit below -->"


def differences(cases: Sequence[Case], found: Mapping[str, Actual]) -> dict[str, str]:
    """Return what is wrong, by name of the case."""
    wrong: dict[str, str] = {}
    reference: dict[str, tuple[str, float]] = {}
    for case in cases:
        actual = found[case.name]
        if str(case.expected) != str(actual):
            wrong[case.name] = f"expected {case.expected}, got {actual}: {actual.detail}"
        elif case.same_as and actual.probability is not None:
            name, probability = reference.setdefault(case.same_as, (case.name, actual.probability))
            if abs(probability - actual.probability) > case.tolerance:
                wrong[case.name] = f"probability {actual.probability:.6f}, {probability:.6f} for {name}"
        if case.expected.state != "delivered" and actual.probability is not None:
            wrong[case.name] = "there is a probability of what is not to be judged"
    return wrong


def spread(cases: Sequence[Case], found: Mapping[str, Actual]) -> tuple[int, float, float]:
    """Return how many exact encodings of one picture were judged, and the range of their probabilities."""
    values = [
        probability
        for case in cases
        if case.same_as and case.tolerance < 0.01 and (probability := found[case.name].probability) is not None
    ]
    return len(values), min(values, default=0.0), max(values, default=0.0)


def table(cases: Sequence[Case], found: Mapping[str, Actual], wrong: Mapping[str, str]) -> str:
    """Return Markdown: counts, then one row for each case."""
    groups = Counter(case.name.partition("/")[0] for case in cases)
    outcomes = Counter(str(found[case.name]) for case in cases)
    number, low, high = spread(cases, found)
    lines = [
        f"{len(cases)} cases, {len(cases) - len(wrong)} as expected.",
        "",
        f"The same picture in {number} exact encodings: probabilities from {low:.6f} to {high:.6f}.",
        "",
        "| outcome | cases |",
        "|---|---|",
        *(f"| {outcome} | {count} |" for outcome, count in outcomes.most_common()),
        "",
        "| group | cases |",
        "|---|---|",
        *(f"| {group} | {count} |" for group, count in groups.items()),
        "",
        "| case | expected | actual | the node says |",
        "|---|---|---|---|",
    ]
    for case in cases:
        actual = found[case.name]
        mark = " **differs**" if case.name in wrong else ""
        detail = actual.detail.replace("|", "\\|")
        if actual.probability is not None:
            detail = f"probability {actual.probability:.4f}"
        lines.append(f"| {case.name.replace('|', '/')} | {case.expected} | {actual}{mark} | {detail} |")
    return "\n".join(lines) + "\n"


def write(file: Path, content: str) -> None:
    """Replace what stands below the mark of a Markdown file; what a person wrote above it stays."""
    above = file.read_text(encoding="utf-8").partition(MARK)[0] if file.exists() else "# Hostile files\n\n"
    file.write_text(f"{above.rstrip()}\n\n{MARK}\n\n{content}", encoding="utf-8")
