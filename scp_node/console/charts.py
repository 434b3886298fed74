"""Small charts as SVG, drawn here and styled by the page's own sheet; no script, no inline style."""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil, log10

from markupsafe import Markup, escape

from scp_node.jobs.findings import ModelStatistics
from scp_node.jobs.statistics import Activity, Bucket

_WIDTH, _NARROW, _HEIGHT = 640, 400, 160
_LEFT, _BOTTOM, _TOP = 36, 22, 8


def bar(probability: float, threshold: float, label: str) -> Markup:
    """One probability as a bar with its threshold marked."""
    kind = "bar-positive" if probability >= threshold else "bar-negative"
    x, mark = f"{probability * 100:.2f}%", f"{threshold * 100:.2f}%"
    return Markup(
        '<svg class="bar" role="img" aria-label="{}" width="100%" height="10">'
        '<rect class="bar-track" x="0" y="2" width="100%" height="6" rx="3"/>'
        '<rect class="{}" x="0" y="2" width="{}" height="6" rx="3"/>'
        '<line class="bar-mark" x1="{}" x2="{}" y1="0" y2="10"/></svg>'
    ).format(label, kind, x, mark, mark)


def activity(data: Activity, names: Sequence[tuple[str, str]], title: str) -> Markup:
    """Columns per stretch of time, one per name: ``(attribute of Bucket, words)``."""
    tallest = max((getattr(one, name) for one in data.buckets for name, _ in names), default=0)
    top = _nice(tallest)
    parts = [_grid(top)]
    slot = (_WIDTH - _LEFT) / max(1, len(data.buckets))
    width = max(1.0, slot * 0.8 / len(names))
    for number, bucket in enumerate(data.buckets):
        for place, (name, words) in enumerate(names):
            value = getattr(bucket, name)
            if not value:
                continue
            height = max(1.5, value / top * _inner())
            begins = datetime.fromtimestamp(bucket.begins_at, UTC)
            parts.append(
                Markup(
                    '<rect class="column column-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1">'
                    "<title>{}: {} ({:%H:%M} UTC)</title></rect>"
                ).format(
                    place,
                    _LEFT + number * slot + slot * 0.1 + place * width,
                    _foot() - height,
                    width,
                    height,
                    words,
                    value,
                    begins,
                )
            )
    for number in range(0, len(data.buckets), max(1, len(data.buckets) // 6)):
        parts.append(_label(_LEFT + number * slot, _clock(data.buckets[number], is_first=number == 0)))
    return _figure(parts, title)


def latency(data: Activity, names: Sequence[tuple[str, str]], title: str) -> Markup:
    """Medians of seconds per stretch of time, one line per name: ``(attribute of Bucket, words)``."""
    known = [value for one in data.buckets for name, _ in names if (value := getattr(one, name)) is not None]
    top = _nice(max(known, default=0))
    parts = [_grid(top, suffix=" s", width=_NARROW)]
    slot = (_NARROW - _LEFT - 6) / max(1, len(data.buckets) - 1)
    for place, (name, words) in enumerate(names):
        points = [
            (_LEFT + number * slot, _foot() - value / top * _inner(), f"{words}: {value:.2f} s ({_clock(one)} UTC)")
            for number, one in enumerate(data.buckets)
            if (value := getattr(one, name)) is not None
        ]
        parts += _line(place, points)
    for number in range(0, len(data.buckets), max(1, len(data.buckets) // 4)):
        words = _clock(data.buckets[number], is_first=number == 0)
        parts.append(_label(_LEFT + number * slot, words, end=number == len(data.buckets) - 1))
    return _figure(parts, title, width=_NARROW)


def histogram(model: ModelStatistics, title: str) -> Markup:
    """How often each probability was given, with the threshold marked."""
    top = _nice(max(model.histogram, default=0))
    parts = [_grid(top, width=_NARROW)]
    slot = (_NARROW - _LEFT) / len(model.histogram)
    for number, count in enumerate(model.histogram):
        if not count:
            continue
        height = max(1.5, count / top * _inner())
        share = (number + 0.5) / len(model.histogram)
        kind = "column-1" if share >= model.threshold else "column-0"
        parts.append(
            Markup(
                '<rect class="column {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1">'
                "<title>{:.0f} – {:.0f} %: {}</title></rect>"
            ).format(
                kind,
                _LEFT + number * slot + 1,
                _foot() - height,
                slot - 2,
                height,
                number * 100 / len(model.histogram),
                (number + 1) * 100 / len(model.histogram),
                count,
            )
        )
    mark = _LEFT + model.threshold * (_NARROW - _LEFT)
    parts.append(
        Markup('<line class="bar-mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(mark, _TOP, _foot())
    )
    parts += [
        _label(_LEFT + share * (_NARROW - _LEFT), f"{share * 100:.0f} %", end=share == 1)
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    return _figure(parts, title, width=_NARROW)


def by_day(models: Sequence[ModelStatistics], first_day: int, days: int, title: str, *, mean: bool = False) -> Markup:
    """The share of positives per day, or the mean probability; one line per model."""
    parts = [_grid(100, suffix=" %")]
    step = (_WIDTH - _LEFT - 6) / max(1, days - 1)
    for place, model in enumerate(models):
        points = []
        for one in model.days:
            if not one.judged:
                continue
            share = one.mean_probability if mean else one.positive / one.judged
            date = datetime.fromtimestamp(one.day * 86400, UTC)
            words = f"{100 * share:.1f} %, n = {one.judged}" if mean else f"{one.positive} / {one.judged}"
            x, y = _LEFT + (one.day - first_day) * step, _foot() - share * _inner()
            points.append((x, y, f"{model.title} {date:%Y-%m-%d}: {words}"))
        parts += _line(place, points)
    for number in range(0, days, max(1, days // 6)):
        day = datetime.fromtimestamp((first_day + number) * 86400, UTC)
        parts.append(_label(_LEFT + number * step, f"{day:%m-%d}"))
    return _figure(parts, title)


def _line(place: int, points: Sequence[tuple[float, float, str]]) -> list[Markup]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    return [
        Markup('<polyline class="line line-{}" points="{}"/>').format(place, line),
        *(
            Markup('<circle class="dot dot-{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>').format(
                place, x, y, words
            )
            for x, y, words in points
        ),
    ]


def _clock(bucket: Bucket, *, is_first: bool = False) -> str:
    """When it begins; the first on an axis says the zone, since all other times of a page are in the reader's own."""
    text = f"{datetime.fromtimestamp(bucket.begins_at, UTC):%H:%M}"
    return f"{text} UTC" if is_first else text


def _figure(parts: Sequence[Markup], title: str, *, width: int = _WIDTH) -> Markup:
    kind = "chart chart-wide" if width == _WIDTH else "chart"
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, _HEIGHT, title, Markup("").join(parts)
    )


def _grid(top: float, suffix: str = "", *, width: int = _WIDTH) -> Markup:
    lines = Markup("")
    for share in (0.0, 0.5, 1.0):
        y = _foot() - share * _inner()
        lines += Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, width, y, y)
        lines += Markup('<text class="axis" x="{}" y="{:.1f}" text-anchor="end">{:g}{}</text>').format(
            _LEFT - 5, y + 4, top * share, escape(suffix)
        )
    return lines


def _label(x: float, text: str, *, end: bool = False) -> Markup:
    return Markup('<text class="axis" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
        x, _HEIGHT - 6, "end" if end else "start", text
    )


def _inner() -> float:
    return _HEIGHT - _BOTTOM - _TOP


def _foot() -> float:
    return _HEIGHT - _BOTTOM


def _nice(value: float) -> float:
    """A round number at or above a value, even in halves."""
    if value <= 4:
        return 4
    power = 10.0 ** int(log10(value))
    return next(one * power for one in (1, 2, 4, 6, 8, 10) if one * power >= value) if value else ceil(value)
