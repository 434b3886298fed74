"""Model cards: everything measured of a checkpoint, in words, tables and plots; no figure is typed in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference.models.checkpoint import WEIGHTS_FILE, Manifest, architecture_of
from inference.training import findings
from inference.training.dataset import NIH, LabelledImage
from inference.training.export import TrainingRecord, read_record
from inference.training.findings import Evidence
from inference.training.plots import reliability_plot, roc_plot
from inference.training.sources import SOURCES, title_of

CARD_FILE = "card.md"


def write_card(checkpoints: Path, manifest: Manifest, evidence: Evidence) -> Path:
    """Write ``card.md`` and its plots into the folder of one checkpoint.

    Returns
    -------
    The card.

    Raises
    ------
    CheckpointError
        The folder has no ``training.json``: how these weights came about is not known.
    """
    folder = checkpoints / manifest.name
    record = read_record(folder)
    name, scores = manifest.name, evidence.scores
    roc_plot(folder / "roc.png", scores, name)
    reliability_plot(folder / "reliability.png", scores, name)
    size = (folder / WEIGHTS_FILE).stat().st_size
    sections = [
        _head(manifest, record, size),
        _purpose(),
        _data(evidence.rows),
        _training(manifest, record),
        findings.discrimination(manifest, record, evidence.measurements),
        findings.calibration(manifest, record, evidence),
        findings.explanations(name, evidence),
        findings.failures(folder, name, scores),
        findings.example(folder, name, evidence.example),
        f"## Remarks\n\n{evidence.notes.strip()}\n" if evidence.notes.strip() else "",
        _limits(evidence.rows),
    ]
    card = folder / CARD_FILE
    card.write_text("\n".join(section for section in sections if section), encoding="utf-8")
    return card


def _head(manifest: Manifest, record: TrainingRecord, size: int) -> str:
    facts = [
        ("version", manifest.version),
        ("created", manifest.created.isoformat()),
        ("architecture", f"{manifest.architecture}, random initial weights, one output"),
        ("input", f"{manifest.input.rows} x {manifest.input.columns}; preprocessing `{manifest.preprocessing}`"),
        ("Grad-CAM layer", f"`{architecture_of(manifest).target_layer}`"),
        ("threshold", f"{manifest.threshold:g} on the calibrated probability; positive at or above it"),
        (
            "calibration",
            f"sigmoid({manifest.calibration.slope:.4f} x logit {manifest.calibration.intercept:+.4f}) (Platt scaling)",
        ),
        ("weights", f"{size / 1e6:.1f} MB, {record.precision}, SHA-256 `{manifest.weights_sha256}`"),
    ]
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts)
    return (
        f"# {manifest.title}: pneumonia on frontal chest radiographs\n\n"
        "Written by `scp-node evaluate --card`; every figure is computed from the checkpoint and the data.\n\n"
        f"| | |\n|---|---|\n{rows}\n"
    )


def _purpose() -> str:
    return """## What it is for, and what not

Research on, and integration tests of, AI results in a PACS: a second pair of eyes on a frontal chest radiograph, tuned
to miss little. It says how much a picture looks like the training data's "pneumonia", and where.

Not a medical device. It must not decide on care, rule out pneumonia, or replace a reading. It knows two classes: a
tumour, effusion, oedema, or tube is either of them to it. It has not been tested on lateral views or
on any hospital but those named below.
"""


def _data(rows: Sequence[LabelledImage]) -> str:
    lines = [
        "## Data",
        "",
        "| source | split | images | patients | pneumonia | view | age, median (range) | female |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for source in sorted({row.source for row in rows}):
        for split in sorted({row.split for row in rows if row.source == source}):
            inside = [row for row in rows if row.source == source and row.split == split]
            lines.append(
                f"| {title_of(source)} | {split or '-'} | {len(inside)} | {len({row.patient for row in inside})} | "
                f"{sum(row.is_positive for row in inside)} | {_views(inside)} | {_ages(inside)} | {_female(inside)} |"
            )
    lines += ["", "Splits are by patient. Pneumonia is counted after radiologists' corrections.", ""]
    for source in sorted({row.source for row in rows}):
        if source in SOURCES:
            known = SOURCES[source]
            lines.append(
                f"- **{known.title}**: {known.population}. Labels: {known.labels}. {known.citation}. "
                f"Terms: {known.terms}."
            )
    noise = _noise(rows)
    return "\n".join([*lines, "", noise, ""]) if noise else "\n".join([*lines, ""])


def _views(rows: Sequence[LabelledImage]) -> str:
    views = sorted({row.view for row in rows if row.view})
    return ", ".join(f"{view} {sum(row.view == view for row in rows)}" for view in views) or "not given"


def _ages(rows: Sequence[LabelledImage]) -> str:
    ages = [row.age for row in rows if row.age is not None]
    return f"{np.median(ages):.0f} ({min(ages)} to {max(ages)})" if ages else "not given"


def _female(rows: Sequence[LabelledImage]) -> str:
    sexes = [row.sex for row in rows if row.sex]
    return f"{100 * sexes.count('F') / len(sexes):.0f} %" if sexes else "not given"


def _noise(rows: Sequence[LabelledImage]) -> str:
    read = [row for row in rows if row.source == NIH and row.is_labelled_positive and row.rsna_label]
    if not read:
        return ""
    found = {label: sum(row.rsna_label == label for row in read) for label in sorted({row.rsna_label for row in read})}
    unread = sum(1 for row in rows if row.source == NIH and row.is_labelled_positive and not row.rsna_label)
    return (
        f"**Label noise.** Of {len(read)} NIH images with text-mined pneumonia that radiologists re-read, "
        + ", ".join(f"{count} came out `{label}`" for label, count in found.items())
        + f"; {unread} more were read by nobody. Training trusts the re-read, aims unread ones at the middle and draws "
        "them rarely; no figure below but those called `raw` is measured on them."
    )


def _training(manifest: Manifest, record: TrainingRecord) -> str:
    recipe = record.recipe
    stages = ", then ".join(f"{epochs} epochs at {size} px" for epochs, size in recipe.stages)
    origin = (
        f"It began with the weights of SHA-256 `{recipe.begins_from[:16]}...`, trained before on the same split."
        if recipe.begins_from
        else "It began with random weights."
    )
    unfinished = "" if record.epochs == recipe.epochs else f" **Only {record.epochs} of {recipe.epochs} were trained.**"
    return f"""## Training

{manifest.training_data}.

```
{record.command}
```

{origin}
{stages}; {recipe.samples_per_epoch} draws an epoch, balanced across source and class, {recipe.nih_share:.0%} from NIH
where there is another source; AdamW, learning rate {recipe.learning_rate:g} with warm-up and cosine, weight decay
{recipe.weight_decay:g}, batches of {recipe.batch_size}, mixup in {recipe.mix_probability:.0%} of them, seed
{recipe.seed}.{unfinished} Augmentation: rotation, scale, crop, aspect, shear, mirror, gamma, contrast, resolution,
blur, sharpening, noise, burned-in letters, borders, occlusion; never inversion. Maps are trained too: into the
radiologists' boxes (weight {recipe.inside_weight:g}) or, where nobody drew any, the lung fields (weight
{recipe.lungs_weight:g}), and off the border (weight {recipe.border_weight:g}).
What is exported is the exponential moving average of the weights. Radiographs are rendered and reduced by the node's
own code.

{record.epochs} epochs took {record.duration_s / 60:.0f} min. Exported on {record.hardware} with {record.software}.
Stored as {record.precision}: float16 moves a probability by {record.precision_difference:.1e} at most
on {record.precision_images} validation images
({record.bytes_float16 / 1e6:.1f} against {record.bytes_float32 / 1e6:.1f} MB).
"""


def _limits(rows: Sequence[LabelledImage]) -> str:
    sources = sorted({row.source for row in rows})
    named = " and ".join(title_of(source) for source in sources)
    return f"""## Limits

- It has seen {named} and nothing else. An adult's radiograph from a new hospital, detector or processing is outside of
  what was measured; measure it there first: `scp-node evaluate --data DIR` with your own labelled images.
- In such collections, class goes with patient group and hospital. Balanced drawing and figures per source reduce
  what can be learnt from that; they do not prove that nothing was.
- Figures on few images have wide intervals; read the intervals.
- Maps show what raised the score, at the resolution of a few dozen cells. They outline no lesion.
- Children and adults differ; a figure for one says nothing of the other.
"""
