"""Content items of structured reports (PS3.3 C.17.3), one function per value type.

Every item gets a concept name, also where the standard needs none: OHIF 3.12 fails on a report with a nameless one.
Every container is SEPARATE: as CONTINUOUS, viewers run the values together without their names.
"""

from collections.abc import Iterable
from enum import StrEnum

from pydicom import Dataset

from scp_node.results.codes import Concept
from scp_node.results.evidence import reference
from scp_node.results.wording import decimal


class Relation(StrEnum):
    """Relationship Type (0040,A010)."""

    CONTAINS = "CONTAINS"
    """Part of the container."""
    HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
    """Qualifies the concept of its parent."""
    HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
    """Who observed, and what."""
    HAS_ACQ_CONTEXT = "HAS ACQ CONTEXT"
    """How an image was acquired."""


def put_container(target: Dataset, concept: Concept, children: Iterable[Dataset], template: str = "") -> None:
    """Make a data set a container; the root of a document, when it is the document itself.

    Parameters
    ----------
    template
        Identifier of the DCMR template that the container follows, ``1500``; empty for none.
    """
    target.ValueType = "CONTAINER"
    target.ConceptNameCodeSequence = [concept.item()]
    target.ContinuityOfContent = "SEPARATE"
    if template:
        item = Dataset()
        item.MappingResource = "DCMR"
        item.TemplateIdentifier = template
        target.ContentTemplateSequence = [item]
    target.ContentSequence = list(children)


def container(relation: Relation, concept: Concept, children: Iterable[Dataset], template: str = "") -> Dataset:
    """CONTAINER."""
    item = Dataset()
    item.RelationshipType = relation.value
    put_container(item, concept, children, template)
    return item


def code(relation: Relation, concept: Concept, value: Concept | Dataset) -> Dataset:
    """CODE; the value may be an item of a code sequence of the source."""
    item = _item(relation, "CODE", concept)
    item.ConceptCodeSequence = [value.item() if isinstance(value, Concept) else value]
    return item


def text(relation: Relation, concept: Concept, value: str) -> Dataset:
    """TEXT."""
    item = _item(relation, "TEXT", concept)
    item.TextValue = value
    return item


def uidref(relation: Relation, concept: Concept, value: str) -> Dataset:
    """UIDREF."""
    item = _item(relation, "UIDREF", concept)
    item.UID = value
    return item


def number(relation: Relation, concept: Concept, value: float, unit: Concept) -> Dataset:
    """NUM, with at most four decimals: Decimal String holds 16 characters (PS3.5 6.2)."""
    measured = Dataset()
    measured.NumericValue = decimal(value)
    measured.MeasurementUnitsCodeSequence = [unit.item()]
    item = _item(relation, "NUM", concept)
    item.MeasuredValueSequence = [measured]
    return item


def date(relation: Relation, concept: Concept, value: str) -> Dataset:
    """DATE, as DA."""
    item = _item(relation, "DATE", concept)
    item.Date = value
    return item


def time(relation: Relation, concept: Concept, value: str) -> Dataset:
    """TIME, as TM."""
    item = _item(relation, "TIME", concept)
    item.Time = value
    return item


def image(
    relation: Relation,
    concept: Concept,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    children: Iterable[Dataset] = (),
) -> Dataset:
    """IMAGE."""
    item = _item(relation, "IMAGE", concept)
    item.ReferencedSOPSequence = [reference(sop_class_uid, sop_instance_uid)]
    if below := list(children):
        item.ContentSequence = below
    return item


def _item(relation: Relation, value_type: str, concept: Concept) -> Dataset:
    item = Dataset()
    item.RelationshipType = relation.value
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [concept.item()]
    return item
