"""The measured parts of a model card: discrimination, calibration, explanations, failures, one example.

No radiograph of a data set is shown, which may not be copied: failures are file names, scores and maps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.models.checkpoint import Manifest
from inference.records import Analysis
from inference.training import metrics
from inference.training.calibrate import CalibrationError, cross_fitted, fit_platt, logits_of, probabilities
from inference.training.dataset import NIH, LabelledImage
from inference.training.evaluate import SEED, Kind, Measurement, Scored, Scores, groups
from inference.training.export import TrainingRecord
from inference.training.localise import BORDER, CORNER, Localisation, Margins
from inference.training.metrics import Floats, Labels, Share
from inference.training.plots import MapPanel, maps_plot, overlay_plot
from inference.training.sources import title_of

SHOWN_FAILURES = 6
"""Of each kind and group, the worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What cards are written from.

    Parameters
    ----------
    rows
        All labelled images, every split.
    scores, measurements
        Of the validation split.
    boxes
        Localisation by split, in the order shown.
    example
        What the models say of ``RG1_UNCR.dcm`` of pydicom's test data; None where the file is not there.
    notes
        What a person has to add, Markdown; empty for nothing.
    """

    rows: Sequence[LabelledImage]
    scores: Scores
    measurements: Sequence[Measurement]
    boxes: Mapping[str, Sequence[Localisation]]
    margins: Sequence[Margins]
    example: Analysis | None
    notes: str


def discrimination(manifest: Manifest, record: TrainingRecord, measurements: Sequence[Measurement]) -> str:
    """Sensitivity, specificity and AUC per source, and why the threshold is what it is."""
    lines = [
        "## How well it tells pneumonia from normal",
        "",
        "Validation split, per source and never pooled. AUC with 95 % bootstrap intervals over patients; shares with",
        "95 % Wilson intervals. The split also served for calibration and for choosing the threshold and, while the",
        "recipe was worked out, for watching runs: expect a little less on images that nobody has looked at.",
        "",
        f"| source (labels) | images | pneumonia | AUC | sensitivity at {manifest.threshold:g} | specificity |",
        "|---|---|---|---|---|---|",
    ]
    for m in measurements:
        if m.model == manifest.name:
            lines.append(
                f"| {title_of(m.source)} ({m.kind.value}) | {m.images} | {m.positives} | {_auc(m)} | "
                f"{_share(m.at_threshold.sensitivity)} | {_share(m.at_threshold.specificity)} |"
            )
    if any(m.source == NIH for m in measurements):
        lines += [
            "",
            "`rsna`: radiologists' `Lung Opacity` against `Normal`; `confirmed`: the same positives against `Normal`",
            "and images without finding; `raw`: the text-mined labels as they are.",
        ]
    lines += ["", "![ROC curves](roc.png)", "", _threshold(manifest, record), ""]
    return "\n".join(lines)


def _threshold(manifest: Manifest, record: TrainingRecord) -> str:
    begin = (
        f"**Threshold.** The project's operating point for this model, {record.default_threshold:g}, finds "
        f"{record.default_sensitivity:.1%} of the pneumonia in {title_of(record.threshold_source)} (validation)"
    )
    if manifest.threshold == record.default_threshold:
        return f"{begin}; {record.wanted_sensitivity:.0%} are asked for, so it stays."
    return (
        f"{begin}, less than the {record.wanted_sensitivity:.0%} asked for. It is therefore lowered to "
        f"{manifest.threshold:g}, the highest value that reaches them, rounded down; probabilities are as calibrated."
    )


def calibration(manifest: Manifest, record: TrainingRecord, evidence: Evidence) -> str:
    """What a probability means, as shipped and on patients that the scaling has not seen."""
    scores, name = evidence.scores, manifest.name
    confirmed = np.array([i for i, image in enumerate(scores.images) if image.row.is_confirmed], dtype=np.intp)
    rows = [scores.images[i].row for i in confirmed]
    truth = np.array([row.is_positive for row in rows], dtype=np.bool_)
    logits = logits_of(scores.probabilities(name, confirmed), manifest.calibration)
    patients = np.array([row.patient for row in rows])
    unseen = np.full(len(scores.images), np.nan)
    unseen[confirmed] = cross_fitted(logits, truth, [row.source for row in rows], patients, seed=SEED)
    lines = [
        "## What a probability means",
        "",
        f"Platt scaling on {record.calibration_images} validation images with confirmed labels, "
        f"{record.calibration_positives} with pneumonia; each source counts",
        f"the same, which makes the assumed prevalence {record.calibration_prevalence:.0%}. Where pneumonia is rarer, "
        "probabilities are too high, and the other way round.",
        "ECE over ten bins of equal width. `cross-fitted`: five parts by patient, each scaled by a fit to the others.",
        "",
        "| source (labels) | ECE | Brier | ECE cross-fitted | Brier cross-fitted |",
        "|---|---|---|---|---|",
    ]
    for group in groups([image.row for image in scores.images]):
        said = scores.probabilities(name, group.indices)
        cells = [f"{metrics.calibration_error(said, group.truth):.3f}", f"{metrics.brier(said, group.truth):.3f}"]
        other = unseen[group.indices]
        if np.isnan(other).any():  # labels that nobody confirmed are not fitted to
            cells += ["-", "-"]
        else:
            cells += [
                f"{metrics.calibration_error(other, group.truth):.3f}",
                f"{metrics.brier(other, group.truth):.3f}",
            ]
        lines.append(f"| {title_of(group.source)} ({group.kind.value}) | {' | '.join(cells)} |")
    lines += ["", *_disagreement(logits, truth, rows), "![Reliability diagrams](reliability.png)", ""]
    return "\n".join(lines)


def _disagreement(logits: Floats, truth: Labels, rows: Sequence[LabelledImage]) -> list[str]:
    """What each source would ask for if it were alone: how far one scaling can serve all."""
    sources = sorted({row.source for row in rows})
    if len(sources) < 2:
        return []
    alone = []
    for source in sources:
        inside = np.array([row.source == source for row in rows])
        try:
            own = fit_platt(logits[inside], truth[inside])
        except CalibrationError as error:
            alone.append(f"{title_of(source)} none ({error})")
        else:
            ece = metrics.calibration_error(probabilities(logits[inside], own), truth[inside])
            alone.append(
                f"{title_of(source)} sigmoid({own.slope:.2f} x logit {own.intercept:+.2f}), with an ECE of {ece:.3f}"
            )
    return [
        "One scaling has to serve sources that differ in patients and prevalence. Alone, they would ask for: "
        f"{'; '.join(alone)}. The further these lie apart, the less a probability means before a site has measured.",
        "",
    ]


def explanations(name: str, evidence: Evidence) -> str:
    """Where the maps point, beside what is had for nothing."""
    models = {model.name for model in evidence.scores.models}
    lines = [
        "## Where its maps point",
        "",
        "Grad-CAM maps against the boxes that radiologists drew around lung opacities. Pointing: share of images whose",
        "maximum lies in a box, without tolerance. Energy: mean share of the map inside the boxes. `uniform` is chance",
        "(the boxes' area); the other two maps know where lungs, or opacities, tend to be, and see no radiograph.",
        "Images of the training split were trained on, boxes included.",
        "",
        "| split | map | images | no evidence | pointing | energy inside |",
        "|---|---|---|---|---|---|",
    ]
    for split, found in evidence.boxes.items():
        for entry in found:
            if entry.name in models and entry.name != name:
                continue
            pointing = f"{entry.pointing:.2f}" + (
                f" {_range(entry.pointing_interval)}" if entry.pointing_interval else ""
            )
            empty = entry.without_evidence if entry.name == name else "-"
            label = f"**{entry.name}**" if entry.name == name else entry.name
            energy = f"{entry.energy:.2f} {_range(entry.energy_interval)}"
            lines.append(f"| {split} | {label} | {entry.images} | {empty} | {pointing} | {energy} |")
    mine = [m for m in evidence.margins if m.name in (name, "uniform")]
    if mine:
        lines += [
            "",
            f"Energy in the outer {BORDER:.0%} of each side and in the corners (squares of {CORNER:.0%} of a side), of "
            "images called positive:",
            "",
            "| map | source | images | border | corners |",
            "|---|---|---|---|---|",
        ]
        for m in mine:
            lines.append(
                f"| {m.name} | {title_of(m.source) or '-'} | {m.images or '-'} | {m.border:.3f} | {m.corners:.3f} |"
            )
    return "\n".join([*lines, ""])


def failures(folder: Path, name: str, scores: Scores) -> str:
    """The worst mistakes, and their maps in ``failures.png``."""
    lines = [
        "## Where it fails",
        "",
        "Validation images with confirmed labels on the wrong side of the threshold, the "
        f"{SHOWN_FAILURES} worst of each kind.",
        "",
        "| image | source | truth | radiologists | probability |",
        "|---|---|---|---|---|",
    ]
    panels: list[MapPanel] = []
    counts: list[str] = []
    for group in groups([image.row for image in scores.images]):
        if group.kind not in (Kind.OWN, Kind.CONFIRMED):
            continue
        images = [scores.images[i] for i in group.indices]
        for is_positive in (True, False):
            wrong = _wrong(images, name, is_positive=is_positive)
            kind = "missed pneumonia" if is_positive else "false alarms"
            counts.append(f"{title_of(group.source)}: {len(wrong)} {kind}")
            for image in wrong[:SHOWN_FAILURES]:
                said = image.prediction(name)
                truth = "pneumonia" if is_positive else "normal"
                lines.append(
                    f"| `{image.row.name}` | {title_of(group.source)} | {truth} | {image.row.rsna_label or '-'} | "
                    f"{said.probability:.3f} |"
                )
                title = f"{Path(image.row.name).stem[:28]}\n{truth}, said {said.probability:.2f}"
                panels.append(MapPanel(title=title, saliency=said.saliency, boxes=image.row.boxes))
    lines += ["", "; ".join(counts) + "."]
    sheet = folder / "failures.png"
    sheet.unlink(missing_ok=True)
    if panels:
        maps_plot(sheet, panels)
        lines += [
            "",
            "The maps of these images in the same order, without the radiographs, which are not ours to publish;",
            "white: radiologists' boxes; dark all over: no positive evidence.",
            "",
            "![Grad-CAM maps of failures](failures.png)",
        ]
    return "\n".join([*lines, ""])


def _wrong(images: Sequence[Scored], name: str, *, is_positive: bool) -> list[Scored]:
    """Images of one class on the wrong side, the worst first."""
    wrong = [
        image
        for image in images
        if image.row.is_positive == is_positive and image.prediction(name).is_positive != is_positive
    ]
    return sorted(wrong, key=lambda image: image.prediction(name).probability, reverse=not is_positive)


def example(folder: Path, name: str, example: Analysis | None) -> str:
    """What the model says of a radiograph that is neither normal nor pneumonia."""
    if example is None:
        return ""
    said = next(prediction for prediction in example.predictions if prediction.model == name)
    verdict = "positive" if said.is_positive else "negative"
    shown: NDArray[np.uint8] = example.image.display_values
    overlay_plot(folder / "rg1.png", shown, said.saliency, f"RG1_UNCR.dcm, {name}: {said.probability:.1%} ({verdict})")
    if said.is_positive:
        meaning = (
            "For a network that was only ever shown normal and pneumonia, a chest full of masses is nearer to "
            "pneumonia. The alarm is worth a reader's look; its name for it is wrong."
        )
    else:
        meaning = (
            'A negative verdict on a radiograph this abnormal shows that "negative" is not "normal": it says only that '
            "little looks like the pneumonia of the training data."
        )
    return f"""## A radiograph that is neither: RG1

`RG1_UNCR.dcm` of pydicom's test data: multiple round masses, no pneumonia. This model says
{said.probability:.1%} ({verdict} at {said.threshold:g}). {meaning} Nothing was tuned to this image.

![RG1 and its Grad-CAM map](rg1.png)
"""


def _auc(m: Measurement) -> str:
    return "-" if m.auc is None or m.auc_interval is None else f"{m.auc:.3f} {_range(m.auc_interval, 3)}"


def _share(share: Share) -> str:
    if not share.total:
        return "-"
    return f"{share.value:.3f} {_range(share.interval, 3)} ({share.count}/{share.total})"


def _range(interval: tuple[float, float], digits: int = 2) -> str:
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"
