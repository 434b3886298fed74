"""Labelled radiographs for training and evaluation, read and rendered exactly as the node does it; never written."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.errors import InferenceError
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.models.preprocess import resize
from inference.records import RenderRule

KERMANY = "kermany-2018"
NIH = "nih-chestxray8"
SITE = "site"
"""Source of rows that name none."""

LABELS_FILE = "labels.csv"
BOX_SIZE = 512.0
"""RSNA boxes are given in pixels of NIH images reduced to 512 x 512."""

Box = tuple[float, float, float, float]
"""(x, y, width, height) as fractions of the image's width and height."""


class DatasetError(InferenceError, ValueError):
    """A table of labels cannot be used; the message names the file and line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One row of ``labels.csv``.

    Parameters
    ----------
    name
        The file as the table names it; the public identifier of an image.
    is_labelled_positive
        The data set's own label, whatever anybody found later.
    is_positive
        The data set's own label, corrected by the radiologists' re-read where there is one.
    is_confirmed
        Whether the label may be measured against: Kermany's labels, RSNA re-reads that say ``Lung Opacity`` or
        ``Normal``, and NIH images without finding that nobody re-read. Text-mined pneumonia without a re-read and
        re-reads of ``No Lung Opacity / Not Normal`` are not.
    target, weight
        What training aims at and how much the image counts; softer where the label is known to be noisy.
    boxes
        Lung opacities as radiologists drew them, as fractions of the image's width and height.
    view, age, sex
        ``AP`` or ``PA``, years, ``F`` or ``M``; empty or None where the source does not say.
    """

    file: Path
    name: str
    source: str
    split: str
    patient: str
    is_labelled_positive: bool
    is_positive: bool
    is_confirmed: bool
    target: float
    weight: float
    rsna_label: str
    boxes: tuple[Box, ...]
    view: str = ""
    age: int | None = None
    sex: str = ""


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
    """Read a table of labelled radiographs.

    Parameters
    ----------
    data
        A CSV file, or a folder with ``labels.csv``; image files are relative to the table's folder. The columns
        ``file`` and ``label`` (``normal`` or ``pneumonia``) are needed; ``source``, ``split`` and the others of the
        training data are used where they are there.
    split
        Only this split; all when None.

    Raises
    ------
    DatasetError
        The table cannot be read, a column is missing, a file is named twice, a label is unknown or nothing is left;
        names the file and line.
    """
    table = _table_of(data)
    rows: list[LabelledImage] = []
    seen: set[str] = set()
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:  # spreadsheets begin UTF-8 with a byte order mark
            reader = csv.DictReader(lines)
            if missing := {"file", "label"} - set(reader.fieldnames or ()):
                found = ", ".join(repr(name)[:80] for name in reader.fieldnames or ()) or "nothing"
                raise DatasetError(
                    f"{table}: column {', '.join(sorted(missing))} is missing; found {found} (commas part the columns)"
                )
            for raw in reader:
                image = _row(raw, table, reader.line_num)
                place = os.path.normpath(image.file)
                if place in seen:
                    raise DatasetError(f"{table} line {reader.line_num}: {image.name} is there twice")
                seen.add(place)
                if split is None or image.split == split:
                    rows.append(image)
    except OSError as error:
        raise DatasetError(f"cannot read {table}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table} is not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise DatasetError(f"{table}: no image" + (f" of split {split!r}" if split else ""))
    return rows


def read_splits(data: Path) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Read what is trained on, split ``train``, and what it is judged by, split ``val``.

    Raises
    ------
    DatasetError
        As ``read_labels``; a patient is in both, which would make every figure too good; or one of the two shows
        nothing but pneumonia, or none.
    """
    training, validation = read_labels(data, "train"), read_labels(data, "val")
    known = {(row.source, row.patient): row for row in training}
    for row in validation:
        if (other := known.get((row.source, row.patient))) is not None:
            names = f"{other.name} of split 'train' and {row.name} of split 'val'"
            raise DatasetError(f"{_table_of(data)}: {names} are of the same patient")
    measured = [row.is_positive for row in validation if row.is_confirmed]
    for split, classes in (("train", [row.target >= 0.5 for row in training]), ("val", measured)):
        for is_positive, name in ((True, "pneumonia"), (False, "normal")):
            if is_positive not in classes:
                raise DatasetError(f"{_table_of(data)}: split {split!r} has no image with a label of {name} to go by")
    return training, validation


def _table_of(data: Path) -> Path:
    return data / LABELS_FILE if data.is_dir() else data


def _row(raw: dict[str | None, str | None], table: Path, line: int) -> LabelledImage:
    row = {
        key: (value or "").strip() for key, value in raw.items() if key is not None and isinstance(value, str | None)
    }
    row = dict.fromkeys(("source", "split", "patient", "rsna_label", "rsna_boxes", "view", "age", "sex"), "") | row
    if not row["file"]:
        raise DatasetError(f"{table} line {line}: file is empty")
    if "\0" in row["file"]:
        raise DatasetError(f"{table} line {line}: file {row['file']!r:.80} holds a NUL, which no name can")
    label = row["label"].lower()
    if label not in ("normal", "pneumonia"):
        raise DatasetError(f"{table} line {line}: label {row['label']!r} is neither normal nor pneumonia")
    row["label"] = label
    positive, confirmed, target, weight = _judge(row)
    return LabelledImage(
        file=table.parent / row["file"],
        name=row["file"],
        source=row["source"] or SITE,
        split=row["split"],
        patient=row["patient"] or row["file"],
        is_labelled_positive=label == "pneumonia",
        is_positive=positive,
        is_confirmed=confirmed,
        target=target,
        weight=weight,
        rsna_label=row["rsna_label"],
        boxes=_boxes(row["rsna_boxes"], table, line),
        view=row["view"],
        age=int(row["age"]) if row["age"].isdecimal() else None,
        sex=row["sex"],
    )


def _boxes(text: str, table: Path, line: int) -> tuple[Box, ...]:
    if not text:
        return ()
    try:
        boxes = tuple((float(x), float(y), float(width), float(height)) for x, y, width, height in json.loads(text))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{table} line {line}: rsna_boxes is not [[x, y, width, height], ...]: {error}") from error
    return tuple((x / BOX_SIZE, y / BOX_SIZE, width / BOX_SIZE, height / BOX_SIZE) for x, y, width, height in boxes)


def read_display_values(file: Path) -> NDArray[np.uint8]:
    """Display values of one file, by the same reading and rendering as the node's.

    Returns
    -------
    (rows, columns) uint8, 255 = white

    Raises
    ------
    inference.errors.SourceError
        The file is not a radiograph that the node can read.
    """
    return render(read_pixels(read_header(file)), RenderRule.AUTO).display_values


def load_images(
    rows: Sequence[LabelledImage], size: int, advance: Callable[[], None] | None = None
) -> NDArray[np.uint8]:
    """All radiographs at one size, in memory: 50 kB each at 224 pixels.

    Parameters
    ----------
    advance
        Called after each image, for a progress bar.

    Returns
    -------
    (len(rows), size, size) uint8
    """
    images = np.empty((len(rows), size, size), dtype=np.uint8)
    for index, row in enumerate(rows):
        images[index] = resize(read_display_values(row.file), size, size)
        if advance is not None:
            advance()
    return images


def sampling_weights(rows: Sequence[LabelledImage], nih_share: float = 0.35) -> NDArray[np.float64]:
    """Probability of drawing each row, balanced across source x class.

    Within a source, both classes are drawn equally often; ``nih_share`` of all draws come from NIH, so that "which
    data set is it" says nothing of the class. Without NIH images, the sources share the draws equally.

    Returns
    -------
    (len(rows),) float64, sum 1
    """
    groups: dict[tuple[str, bool], float] = {}
    keys = [(row.source, row.target >= 0.5) for row in rows]
    for key, row in zip(keys, rows, strict=True):
        groups[key] = groups.get(key, 0.0) + row.weight
    sources = {source for source, _ in groups}
    others = max(1, len(sources - {NIH}))
    rest = 1.0 - nih_share if NIH in sources and len(sources) > 1 else 1.0
    share = {s: nih_share if s == NIH and len(sources) > 1 else rest / others for s in sources}
    classes = {s: sum(1 for source, _ in groups if source == s) for s in sources}
    drawn = [share[k[0]] / classes[k[0]] * row.weight / groups[k] for k, row in zip(keys, rows, strict=True)]
    weights: NDArray[np.float64] = np.asarray(drawn, dtype=np.float64)
    weights /= weights.sum()
    return weights
