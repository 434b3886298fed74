"""Items made as bytes are the bytes that pydicom writes for the same content."""

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence_item

from scp_node.results import codes, content, raw
from scp_node.results.content import Relation


def _code(concept):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.value, concept.scheme, concept.meaning
    return item


def _written(item):
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_sequence_item(buffer, item, ["iso8859"])
    return buffer.getvalue()


def _content_item(value_type, **values):
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", value_type
    item.ConceptNameCodeSequence = [_code(codes.PROBABILITY)]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _number():
    measured = Dataset()
    measured.NumericValue = "87.345"
    measured.MeasurementUnitsCodeSequence = [_code(codes.PERCENT)]
    return _content_item("NUM", MeasuredValueSequence=[measured])


def _image():
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.3", "2.25.17"
    return _content_item("IMAGE", ReferencedSOPSequence=[reference], ContentSequence=[_number()])


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: content.number(Relation.CONTAINS, codes.PROBABILITY, 87.345, codes.PERCENT), _number),
        (
            lambda: content.text(Relation.CONTAINS, codes.PROBABILITY, "odd"),
            lambda: _content_item("TEXT", TextValue="odd"),
        ),
        (
            lambda: content.uidref(Relation.CONTAINS, codes.PROBABILITY, "2.25.171"),
            lambda: _content_item("UIDREF", UID="2.25.171"),
        ),
        (
            lambda: content.code(Relation.CONTAINS, codes.PROBABILITY, codes.PRESENT),
            lambda: _content_item("CODE", ConceptCodeSequence=[_code(codes.PRESENT)]),
        ),
        (
            lambda: content.code(Relation.CONTAINS, codes.PROBABILITY, _code(codes.PRESENT)),
            lambda: _content_item("CODE", ConceptCodeSequence=[_code(codes.PRESENT)]),
        ),
        (
            lambda: content.image(
                Relation.CONTAINS,
                codes.PROBABILITY,
                sop_class_uid="1.2.3",
                sop_instance_uid="2.25.17",
                children=[content.number(Relation.CONTAINS, codes.PROBABILITY, 87.345, codes.PERCENT)],
            ),
            _image,
        ),
    ],
    ids=["number", "text", "uidref", "code", "code of the source", "image"],
)
def test_an_item_is_what_pydicom_writes(made, expected):
    assert made() == _written(expected())


def test_text_that_no_character_set_is_declared_for_is_refused():
    with pytest.raises(ValueError, match="ascii"):
        raw.item(TextValue="M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller")
