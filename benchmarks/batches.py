"""Radiographs judged together against one after the other, by the same runtime: three models, logits and maps."""

from dataclasses import replace

from benchmarks.contest import Contestant, Row, compare

TITLE = "Batches: three models with their maps, for each radiograph of a batch"
SIZES = (1, 4, 16)
RUNTIMES = {
    "OpenVINO, one thread": {"runtime": "openvino", "device": "cpu", "threads": 1},
    "OpenVINO, two threads": {"runtime": "openvino", "device": "cpu", "threads": 2},
    "PyTorch, one thread": {"runtime": "torch", "device": "cpu", "threads": 1},
}
CUDA = {
    "PyTorch, CUDA": {"runtime": "torch", "device": "cuda", "threads": 1},
    "PyTorch, CUDA, float16": {"runtime": "torch", "device": "cuda", "threads": 1, "precision": "float16"},
}


def measure(*, rounds: int) -> tuple[list[Row], str]:
    """Figures for each radiograph, and what was not measured."""
    import torch

    is_there = torch.cuda.is_available()
    rows: list[Row] = []
    for title, settings in (RUNTIMES | CUDA if is_there else RUNTIMES).items():
        contestants = [
            Contestant(
                title=f"{title}, {images} at a time",
                factory="benchmarks.batches:ensemble",
                arguments={"settings": settings, "images": images},
                is_reference=images == SIZES[0],
            )
            for images in SIZES
        ]
        # As many radiographs in each turn.
        found = compare(contestants, {"turns": SIZES[-1]}, rounds=rounds)
        rows += [replace(row, wall_ms=row.wall_ms / SIZES[-1], cpu_ms=row.cpu_ms / SIZES[-1]) for row in found]
    return rows, "" if is_there else "CUDA: not measured, no device is there."


def ensemble(settings: dict, images: int, turns: int):
    import numpy as np

    from config.analysis import AnalysisSettings
    from inference.ensemble import LoadedEnsemble

    loaded = LoadedEnsemble(AnalysisSettings(**settings))
    pictures = np.random.default_rng(3).integers(0, 256, (turns, 224, 224), np.uint8)
    batches = [[(picture,) for picture in pictures[start : start + images]] for start in range(0, turns, images)]

    def run():
        for batch in batches:
            loaded.run(batch)

    return run
