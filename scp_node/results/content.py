"""Content items of structured reports (PS3.3 C.17.3), one function per value type; each returns an encoded item.

As bytes, because a tree of pydicom data sets costs more than a small network: 300 items in the reports of one analysis.

Every item gets a concept name, also where the standard needs none: OHIF 3.12 fails on a report with a nameless one.
Every container is SEPARATE: as CONTINUOUS, viewers run the values together without their names.
"""

from collections.abc import Iterable
from enum import StrEnum

from pydicom import Dataset

from scp_node.results.codes import Concept
from scp_node.results.raw import item, item_of, put_sequence
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


def put_container(target: Dataset, concept: Concept, children: Iterable[bytes], template: str = "") -> None:
    """Make a document the container of its content.

    Parameters
    ----------
    template
        Identifier of the DCMR template that the container follows, ``1500``; empty for none.
    """
    target.ValueType = "CONTAINER"
    put_sequence(target, "ConceptNameCodeSequence", [concept.encoded()])
    target.ContinuityOfContent = "SEPARATE"
    if template:
        put_sequence(target, "ContentTemplateSequence", [_template(template)])
    put_sequence(target, "ContentSequence", children)


def container(relation: Relation, concept: Concept, children: Iterable[bytes], template: str = "") -> bytes:
    """CONTAINER."""
    named: dict[str, Iterable[bytes]] = {"ContentTemplateSequence": [_template(template)]} if template else {}
    return _item(
        relation, "CONTAINER", concept, ContinuityOfContent="SEPARATE", ContentSequence=list(children), **named
    )


def code(relation: Relation, concept: Concept, value: Concept | Dataset) -> bytes:
    """CODE; the value may be an item of a code sequence of the source."""
    encoded = value.encoded() if isinstance(value, Concept) else item_of(value)
    return _item(relation, "CODE", concept, ConceptCodeSequence=[encoded])


def text(relation: Relation, concept: Concept, value: str) -> bytes:
    """TEXT."""
    return _item(relation, "TEXT", concept, TextValue=value)


def uidref(relation: Relation, concept: Concept, value: str) -> bytes:
    """UIDREF."""
    return _item(relation, "UIDREF", concept, UID=value)


def number(relation: Relation, concept: Concept, value: float | str, unit: Concept) -> bytes:
    """NUM; a float with at most four decimals, for Decimal String holds 16 characters (PS3.5 6.2); a text is one."""
    digits = value if isinstance(value, str) else decimal(value)
    measured = item(NumericValue=digits, MeasurementUnitsCodeSequence=[unit.encoded()])
    return _item(relation, "NUM", concept, MeasuredValueSequence=[measured])


def date(relation: Relation, concept: Concept, value: str) -> bytes:
    """DATE, as DA."""
    return _item(relation, "DATE", concept, Date=value)


def time(relation: Relation, concept: Concept, value: str) -> bytes:
    """TIME, as TM."""
    return _item(relation, "TIME", concept, Time=value)


def image(
    relation: Relation,
    concept: Concept,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    children: Iterable[bytes] = (),
) -> bytes:
    """IMAGE."""
    reference = item(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)
    below = list(children)
    values: dict[str, Iterable[bytes]] = {"ReferencedSOPSequence": [reference]}
    if below:
        values["ContentSequence"] = below
    return _item(relation, "IMAGE", concept, **values)


def _template(identifier: str) -> bytes:
    return item(MappingResource="DCMR", TemplateIdentifier=identifier)


def _item(relation: Relation, value_type: str, concept: Concept, **values: str | Iterable[bytes]) -> bytes:
    return item(
        RelationshipType=relation.value,
        ValueType=value_type,
        ConceptNameCodeSequence=[concept.encoded()],
        **values,
    )
