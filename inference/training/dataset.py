"""Labelled radiographs for training and evaluation, read and rendered exactly as the node does it."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.models.preprocess import resize

KERMANY = "kermany-2018"
NIH = "nih-chestxray8"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One row of ``labels.csv``.

    Parameters
    ----------
    is_positive
        The data set's own label, corrected by the radiologists' re-read where there is one.
    is_confirmed
        Whether the label may be measured against: Kermany's labels, RSNA re-reads that say ``Lung Opacity`` or
        ``Normal``, and NIH images without finding that nobody re-read. Text-mined pneumonia without a re-read and
        re-reads of ``No Lung Opacity / Not Normal`` are not.
    target, weight
        What training aims at and how much the image counts; softer where the label is known to be noisy.
    boxes
        (x, y, width, height) of lung opacities as fractions of the image's width and height.
    """

    file: Path
    source: str
    split: str
    patient: str
    is_positive: bool
    is_confirmed: bool
    target: float
    weight: float
    rsna_label: str
    boxes: tuple[tuple[float, float, float, float], ...]


def _judge(row: dict[str, str]) -> tuple[bool, bool, float, float]:
    """Label, confirmed, target and weight of a row.

    Of 287 NIH "pneumonia" images that radiologists re-read, 124 showed a lung opacity, 57 were normal and 106
    abnormal without opacity; an image that nobody re-read therefore counts little and aims at the middle.
    """
    positive = row["label"] == "pneumonia"
    if row["source"] != NIH:
        return positive, True, 0.985 if positive else 0.015, 1.0
    rsna = row["rsna_label"]
    if rsna == "Lung Opacity":
        return True, True, 0.97, 2.0
    if rsna == "Normal":
        return False, True, 0.03, 2.0
    if rsna:
        return positive, False, 0.3, 0.3
    if positive:
        return True, False, 0.6, 0.4
    return False, True, 0.06, 0.7


def read_labels(data: Path, split: str | None = None) -> list[LabelledImage]:
    """Read ``labels.csv`` of a data folder.

    Parameters
    ----------
    data
        Folder with ``labels.csv``: columns ``file`` and ``label`` (``normal`` or ``pneumonia``) are needed, the
        others of the training data are used where they are there.
    split
        Only this split; all when None.

    Raises
    ------
    ValueError
        A column is missing, a label is unknown or nothing is left; names the file and line.
    """
    table = data / "labels.csv"
    rows: list[LabelledImage] = []
    with table.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        missing = {"file", "label"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{table}: column {', '.join(sorted(missing))} is missing")
        for raw in reader:
            row = {
                key: raw.get(key) or ""
                for key in ("source", "split", "patient", "rsna_label", "rsna_boxes", "nih_findings")
            }
            row |= {"file": raw["file"], "label": raw["label"].strip().lower()}
            if row["label"] not in ("normal", "pneumonia"):
                raise ValueError(
                    f"{table} line {reader.line_num}: label {raw['label']!r} is neither normal nor pneumonia"
                )
            if split is not None and row["split"] != split:
                continue
            positive, confirmed, target, weight = _judge(row)
            boxes = tuple((x / 512, y / 512, w / 512, h / 512) for x, y, w, h in json.loads(row["rsna_boxes"] or "[]"))
            rows.append(
                LabelledImage(
                    file=data / row["file"],
                    source=row["source"] or "site",
                    split=row["split"],
                    patient=row["patient"] or row["file"],
                    is_positive=positive,
                    is_confirmed=confirmed,
                    target=target,
                    weight=weight,
                    rsna_label=row["rsna_label"],
                    boxes=boxes,
                )
            )
    if not rows:
        raise ValueError(f"{table}: no image" + (f" of split {split!r}" if split else ""))
    return rows


def read_display_values(file: Path) -> NDArray[np.uint8]:
    """Display values of one file, by the same reading and rendering as the node's.

    Returns
    -------
    (rows, columns) uint8, 255 = white
    """
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("L"), dtype=np.uint8)


def load_images(rows: list[LabelledImage], size: int) -> NDArray[np.uint8]:
    """All radiographs at one size, in memory: 50 kB each at 224 pixels.

    Returns
    -------
    (len(rows), size, size) uint8
    """
    images = np.empty((len(rows), size, size), dtype=np.uint8)
    for index, row in enumerate(rows):
        images[index] = resize(read_display_values(row.file), size, size)
    return images


def sampling_weights(rows: list[LabelledImage], nih_share: float = 0.35) -> NDArray[np.float64]:
    """Probability of drawing each row, balanced across source x class.

    Within a source, both classes are drawn equally often; ``nih_share`` of all draws come from NIH, so that "which
    data set is it" says nothing of the class.
    """
    groups: dict[tuple[str, bool], float] = {}
    keys = [(row.source, row.target >= 0.5) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        groups[key] = groups.get(key, 0.0) + row.weight
    sources = {source for source, _ in groups}
    share = {s: 1.0 if len(sources) == 1 else (nih_share if s == NIH else (1 - nih_share)) for s in sources}
    classes = {s: sum(1 for source, _ in groups if source == s) for s in sources}
    drawn = [share[k[0]] / classes[k[0]] * row.weight / groups[k] for k, row in zip(keys, rows, strict=True)]
    weights = np.asarray(drawn)
    return weights / weights.sum()
