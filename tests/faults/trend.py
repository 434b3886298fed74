"""Whether a soak is flat: a straight line through each measure after the warm-up, and a bound on its rise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 0.3
"""Part of the run that is not judged: caches fill, and retention has not yet begun to remove."""

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the report.

    Parameters
    ----------
    bound
        Largest rise per 1,000 instances, in `unit`.
    reason
        Why a rise up to the bound is no leak.
    """

    field: str
    title: str
    unit: str
    scale: float
    bound: float
    reason: str


MEASURES = (
    Measure(
        field="serve_memory",
        title="memory, node",
        unit="MiB",
        scale=_MIB,
        bound=1.0,
        reason="allocator, statements of connections that are rarely used; 1 KiB an instance is no object that is kept",
    ),
    Measure(
        field="children_memory",
        title="memory, children",
        unit="MiB",
        scale=_MIB,
        bound=1.0,
        reason="allocator",
    ),
    Measure(field="threads", title="threads", unit="", scale=1, bound=0.5, reason="associations come and go"),
    Measure(field="handles", title="file handles", unit="", scale=1, bound=1.0, reason="associations come and go"),
    Measure(
        field="spool",
        title="disk, spool",
        unit="MiB",
        scale=_MIB,
        bound=5.0,
        reason="what retention has not reached yet swings with the rate",
    ),
    Measure(
        field="database",
        title="database",
        unit="MiB",
        scale=_MIB,
        bound=8.0,
        reason="the registry of result UIDs and the audit record are kept for ever, by design",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The straight line through one measure: ``first`` and ``last`` are its ends, ``slope`` its rise per 1,000."""

    measure: Measure
    first: float
    last: float
    slope: float

    @property
    def is_flat(self) -> bool:
        return self.slope <= self.measure.bound

    def line(self) -> str:
        """Return the line in words."""
        unit = f" {self.measure.unit}" if self.measure.unit else ""
        verdict = "flat" if self.is_flat else "GROWS"
        return (
            f"{self.measure.title:18} {self.first:8.1f} -> {self.last:8.1f}{unit:4}"
            f" {self.slope:+7.2f}{unit} per 1,000 instances (bound {self.measure.bound:g}): {verdict}"
        )


def judge(samples: Sequence[Any]) -> list[Trend]:
    """Lay the lines over the instances that were acknowledged after the warm-up.

    Parameters
    ----------
    samples
        `tests.faults.soak.Sample`; while instances still arrive, for what comes after is no steady load.
    """
    total = samples[-1].done
    judged = [sample for sample in samples if WARM_UP * total <= sample.done < total]
    if len(judged) < 5:
        raise ValueError(f"{len(judged)} samples after the warm-up are too few")
    done = np.array([sample.done for sample in judged], dtype=float)
    trends = []
    for measure in MEASURES:
        values = np.array([getattr(sample, measure.field) for sample in judged], dtype=float) / measure.scale
        slope, offset = np.polyfit(done, values, 1)
        trends.append(
            Trend(
                measure=measure,
                first=float(slope * done[0] + offset),
                last=float(slope * done[-1] + offset),
                slope=float(slope * 1000),
            )
        )
    return trends


def plot(samples: Sequence[Any], trends: Sequence[Trend], file: Path) -> None:
    """Draw each measure over the instances acknowledged, with its line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(12, 6), sharex=True)
    done = [sample.done for sample in samples]
    begun = WARM_UP * done[-1]
    for axis, trend in zip(axes.flat, trends, strict=True):
        measure = trend.measure
        axis.plot(done, [getattr(sample, measure.field) / measure.scale for sample in samples], lw=0.8)
        axis.plot([begun, done[-1]], [trend.first, trend.last], "--", color="tab:red", lw=1)
        axis.set_title(f"{measure.title}: {trend.slope:+.2f} {measure.unit} per 1,000", fontsize=9)
        axis.set_ylabel(measure.unit or "number")
        axis.set_ylim(bottom=0)
        axis.axvspan(0, begun, color="0.93")
    for axis in axes[1]:
        axis.set_xlabel("instances acknowledged")
    figure.suptitle(f"{done[-1]} instances, {samples[-1].connects} bare TCP connects; grey: warm-up, not judged")
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
