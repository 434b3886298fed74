"""`make bench`: every stage against its named peer, interleaved; tables, and plots for docs/performance.md."""

import argparse
import importlib.metadata
import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import batches, deliver, end_to_end, explain, objects, overlay, pixels, receive, start
from benchmarks.contest import ROOT, Row, compare

DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
STAGES = ("receive", "pixels", "models", "batches", "overlay", "results", "deliver", "start", "end-to-end")
PACKAGES = (
    "torch",
    "openvino",
    "pydicom",
    "pynetdicom",
    "highdicom",
    "numpy",
    "opencv-python-headless",
    "imagecodecs",
    "grad-cam",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--rounds", type=int, default=7, help="per stage, after one that is not counted")
    parser.add_argument("--images", type=int, default=24, help="per burst of the end-to-end stage; a third inline")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/performance.md")
    args = parser.parse_args()
    found: list[str] = []
    for stage in args.stage:
        text = _STAGES[stage](args)
        print(text, flush=True)
        found.append(text)
    if args.write:
        document = DOCUMENT.read_text(encoding="utf-8")
        head, _, rest = document.partition(BEGIN)
        former, _, tail = rest.partition(END)
        if set(args.stage) == set(STAGES):
            measured = "\n\n".join([_machine(), *found])
        else:
            measured = _merged(former.strip(), "\n\n".join(found))
        DOCUMENT.write_text(f"{head}{BEGIN}\n\n{measured}\n\n{END}{tail}", encoding="utf-8")


def _merged(former: str, found: str) -> str:
    """Put tables that were measured now in place of those of the same name; each says on what it was measured."""
    blocks = [block.rstrip() for block in former.split("\n### ")]
    for block in found.removeprefix("### ").split("\n### "):
        title = block.partition("\n")[0]
        names = [present.partition("\n")[0] for present in blocks]
        if title in names[1:]:
            blocks[names.index(title)] = f"{block.rstrip()}\n\n{_machine()}"
        else:
            blocks.append(f"{block.rstrip()}\n\n{_machine()}")
    return "\n\n### ".join(blocks).strip()


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} shared cores of {model}, Linux "
        f"{platform.release().partition('-')[0]}, Python {platform.python_version()}; {versions}."
    )


def _table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _contest(title: str, peer: str, rows: list[Row]) -> str:
    header = ("", "CPU ms", "wall ms", f"faster than {peer} (by CPU)", "peak MB")
    return _table(
        title,
        header,
        [(r.title, f"{r.cpu_ms:.1f}", f"{r.wall_ms:.1f}", f"{r.ratio:.2f} x", f"{r.peak_mb:.0f}") for r in rows],
    )


def _pixels(args: argparse.Namespace) -> str:
    from pydicom import dcmread

    from benchmarks import load
    from scp_node.demo.encodings import encode

    parts = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        source = load.template(Path(folder) / "source.dcm")
        for name, syntax in pixels.ENCODINGS.items():
            file = Path(folder) / "encoded.dcm"
            encode(dcmread(source), syntax).save_as(file, enforce_file_format=True)
            rows = compare(pixels.CONTESTANTS, {"file": str(file)}, rounds=args.rounds)
            plot = _plot(f"pixels-{name.lower().replace(' ', '-')}", f"{pixels.TITLE}, {name}", _cpu(rows), args)
            parts.append(_contest(f"{pixels.TITLE}, 3000 x 3000, {name}", pixels.PEER, rows) + plot)
    return "\n\n".join(parts)


def _models(args: argparse.Namespace) -> str:
    rows = compare(explain.CONTESTANTS, {}, rounds=args.rounds, calls=3)
    return _contest(explain.TITLE, explain.PEER, rows) + _plot("models", explain.TITLE, _cpu(rows), args)


def _batches(args: argparse.Namespace) -> str:
    rows, missing = batches.measure(rounds=args.rounds)
    header = ("", "wall ms", "CPU ms", "peak MB")
    cells = [(r.title, f"{r.wall_ms:.1f}", f"{r.cpu_ms:.1f}", f"{r.peak_mb:.0f}") for r in rows]
    return "\n\n".join(filter(None, (_table(batches.TITLE, header, cells), missing)))


def _overlay(args: argparse.Namespace) -> str:
    rows = compare(overlay.CONTESTANTS, {}, rounds=args.rounds, calls=5)
    return _contest(overlay.TITLE, overlay.PEER, rows) + _plot("overlay", overlay.TITLE, _cpu(rows), args)


def _results(args: argparse.Namespace) -> str:
    rows = compare(objects.CONTESTANTS, {}, rounds=args.rounds)
    return _contest(objects.TITLE, objects.PEER, rows) + _plot("results", objects.TITLE, _cpu(rows), args)


def _deliver(args: argparse.Namespace) -> str:
    rows = deliver.measure(rounds=args.rounds)
    return _contest(deliver.TITLE, deliver.PEER, rows) + _plot("deliver", deliver.TITLE, _cpu(rows), args)


def _receive(args: argparse.Namespace) -> str:
    parts = []
    for associations in (1, 4):
        found = receive.measure(rounds=args.rounds, images=8, associations=associations)
        title = f"{receive.TITLE}, {associations} association{'s' if associations > 1 else ''}"
        header = ("", "images/s", "CPU ms/image", f"faster than {receive.PEER}", "its CPU per image", "peak MB")
        parts.append(
            _table(
                title,
                header,
                [
                    (
                        row["title"],
                        f"{row['images_per_s']:.1f}",
                        f"{row['cpu_ms']:.0f}",
                        f"{row['speed_ratio']:.2f} x",
                        f"{row['cpu_ratio']:.2f} x",
                        f"{row['peak_mb']:.0f}",
                    )
                    for row in found
                ],
            )
            + _plot(f"receive-{associations}", title, {row["title"]: row["cpu_ms"] for row in found}, args)
        )
    return "\n\n".join(parts)


def _start(args: argparse.Namespace) -> str:
    found = start.measure(rounds=args.rounds)
    return _table(start.TITLE, ("", "CPU s", "wall s"), [(t, f"{c:.2f}", f"{w:.2f}") for t, c, w in found])


def _end_to_end(args: argparse.Namespace) -> str:
    found = end_to_end.measure(images=args.images)
    rows = [
        (
            row["title"],
            f"{row['studies_per_s']:.2f}",
            f"{row['ratio']:.1f} x",
            f"{row['cpu_ms']:.0f}",
            f"{row['cpu_ratio']:.1f} x",
            f"{row['p50_s']:.2f}",
            f"{row['p95_s']:.2f}",
            f"{row['p99_s']:.2f}",
            f"{row['peak_mb']:.0f}",
            str(row["objects"]),
        )
        for row in found
    ]
    header = (
        "",
        "studies/s",
        f"against {end_to_end.PEER}",
        "CPU ms/study",
        "less CPU",
        "p50 s",
        "p95 s",
        "p99 s",
        "peak MB",
        "objects",
    )
    plot = _plot("end-to-end", end_to_end.TITLE, {row["title"]: row["cpu_ms"] for row in found}, args)
    return _table(end_to_end.TITLE, header, rows) + plot


def _cpu(rows: list[Row]) -> dict[str, float]:
    return {row.title: row.cpu_ms for row in rows}


def _plot(name: str, title: str, cpu_ms: dict[str, float], args: argparse.Namespace) -> str:
    """Draw and return a reference to the picture; nothing when nothing is to be written."""
    if not args.write:
        return ""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 0.5 + 0.42 * len(cpu_ms)), layout="constrained")
    colours = ["#3b6ea8" if "scp-node" in n else "#9aa4ad" for n in cpu_ms]
    bars = axes.barh(list(cpu_ms), list(cpu_ms.values()), color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("CPU ms")
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    target = ROOT / "docs" / "images" / f"bench-{name}.png"
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return f"\n\n![CPU time: {title}](images/{target.name})"


_STAGES = {
    "receive": _receive,
    "pixels": _pixels,
    "models": _models,
    "batches": _batches,
    "overlay": _overlay,
    "results": _results,
    "deliver": _deliver,
    "start": _start,
    "end-to-end": _end_to_end,
}

if __name__ == "__main__":
    main()
