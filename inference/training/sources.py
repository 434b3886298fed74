"""What is known of the public data sets: who made them, on what terms, of whom, and how far their labels hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from inference.training.dataset import KERMANY, NIH, LabelledImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data set, in words."""

    title: str
    citation: str
    terms: str
    population: str
    labels: str


SOURCES: dict[str, Source] = {
    KERMANY: Source(
        title="Kermany et al. 2018",
        citation="Kermany D, Zhang K, Goldbaum M: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images "
        "for Classification. Mendeley Data, v2, 2018; Kermany et al., Cell 172(5), 2018",
        terms="CC BY 4.0",
        population="children of one to five years of one medical centre in Guangzhou, AP",
        labels="graded by two physicians, the evaluation set checked by a third; pneumonia is bacterial or viral",
    ),
    NIH: Source(
        title="NIH ChestX-ray8",
        citation="Wang X et al.: ChestX-ray8, CVPR 2017, NIH Clinical Center; Shih G et al.: Augmenting the National "
        "Institutes of Health Chest Radiograph Dataset with Expert Annotations of Possible Pneumonia, Radiology: "
        "Artificial Intelligence 1(1), 2019 (RSNA Pneumonia Detection Challenge 2018)",
        terms="free use with credit to the NIH Clinical Center and the paper",
        population="mostly adults of one hospital in the USA, PA and AP",
        labels="mined from report text and noisy; radiologists of the RSNA challenge re-read a part, boxing opacities",
    ),
}


def title_of(source: str) -> str:
    """A source's title; its key where nothing is known of it."""
    return SOURCES[source].title if source in SOURCES else source


def training_data(rows: Sequence[LabelledImage]) -> str:
    """Training data in one sentence, counted from the rows, for ``model.json``."""
    parts = []
    for source in sorted({row.source for row in rows}):
        inside = [row for row in rows if row.source == source]
        patients = len({row.patient for row in inside})
        positives = sum(1 for row in inside if row.is_positive)
        parts.append(f"{title_of(source)}: {len(inside)} images of {patients} patients, {positives} with pneumonia")
    return "; ".join(parts)
