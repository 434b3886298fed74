"""What a source holds is copied if it is valid as the standard counts, and left out if it would spoil the result."""

from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from pydicom import DataElement, Dataset, Sequence, dcmread

from config.results import ResultSettings, SecondaryCaptureSettings
from scp_node.demo import phantoms
from scp_node.results import codes, context
from scp_node.results.case import open_case
from scp_node.results.catalog import build_results
from scp_node.results.raw import encoded, put, tag_of

REPORTS_ONLY = ResultSettings(secondary_capture=SecondaryCaptureSettings(montage=False, singles=False))
LONG_CODE = b"CHESTXRAY2VIEWSPORTABLE"
URN = b"urn:oid:1.2.840.113619.1"
NAME = b"A" * 40 + b"^" + b"B" * 19
"""60 characters."""


def source(**values):
    """A data set of values as they lie in a file: bytes, or items of a sequence."""
    dataset = Dataset()
    for keyword, value in values.items():
        tag = tag_of(keyword)
        if isinstance(value, bytes):
            put(dataset, tag, context.dictionary_VR(tag), value)
        else:
            dataset.add(DataElement(tag, "SQ", Sequence(value)))
    return dataset


def copied(keyword, **values):
    """What is copied of an attribute, without padding; None if it is left out."""
    value = encoded(context.build(source(**values), "source"), tag_of(keyword))
    return None if value is None else value.rstrip(b" ")


def code(value=b"CXR1", keyword="CodeValue", **values):
    values = {"CodingSchemeDesignator": b"99LOCAL", "CodeMeaning": b"Chest", keyword: value} | values
    return source(**{name: one for name, one in values.items() if one is not None})


def copied_items(keyword, *items, **values):
    """The items that are copied of a sequence, as bytes by keyword."""
    return [as_bytes(item) for item in context.items_of(source(**{keyword: items}, **values), keyword)]


def as_bytes(item):
    return {
        context.keyword_for_tag(tag): [as_bytes(inner) for inner in item[tag].value]
        if context.dictionary_VR(tag) == "SQ"
        else encoded(item, tag).rstrip(b" ")
        for tag in item.keys()  # noqa: SIM118 - iterating a Dataset would decode its elements
    }


CODE = {"CodingSchemeDesignator": b"99LOCAL", "CodeMeaning": b"Chest"}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (code(), {"CodeValue": b"CXR1"} | CODE),
        (code(LONG_CODE), {"LongCodeValue": LONG_CODE} | CODE),
        (code(URN), {"URNCodeValue": URN} | CODE),
        (code(LONG_CODE, "LongCodeValue"), {"LongCodeValue": LONG_CODE} | CODE),
        (code(URN, "URNCodeValue"), {"URNCodeValue": URN} | CODE),
        (code(URN, "URNCodeValue", CodingSchemeDesignator=None), {"URNCodeValue": URN, "CodeMeaning": b"Chest"}),
        (
            code(URN, "URNCodeValue", CodingSchemeDesignator=None, CodingSchemeVersion=b"1"),
            {"URNCodeValue": URN, "CodeMeaning": b"Chest"},
        ),
        (code(URNCodeValue=URN, CodingSchemeDesignator=None), {"URNCodeValue": URN, "CodeMeaning": b"Chest"}),
        (code(CodingSchemeVersion=b"1"), {"CodeValue": b"CXR1", "CodingSchemeVersion": b"1"} | CODE),
        # One of the three only; the short one where it fits.
        (code(LongCodeValue=LONG_CODE), {"CodeValue": b"CXR1"} | CODE),
        (code(LONG_CODE, LongCodeValue=LONG_CODE), {"LongCodeValue": LONG_CODE} | CODE),
        # A group of codes without what identifies its version is no group.
        (code(ContextIdentifier=b"4009", MappingResource=b"DCMR"), {"CodeValue": b"CXR1"} | CODE),
    ],
)
def test_a_code_keeps_what_makes_it_one(item, expected):
    """PS3.3 8.8: one of three values, a meaning, and a scheme unless the value is a URN."""
    assert copied_items("ProcedureCodeSequence", item) == [expected]


def test_a_valid_group_of_codes_is_copied():
    group = {"ContextIdentifier": b"4009", "MappingResource": b"DCMR", "ContextGroupVersion": b"20020904"}
    assert copied_items("ProcedureCodeSequence", code(**group)) == [{"CodeValue": b"CXR1"} | CODE | group]


@pytest.mark.parametrize(
    "item",
    [
        code(b""),
        code(None),
        code(LONG_CODE, CodeMeaning=b""),
        code(CodeMeaning=b"M" * 65),
        code(CodingSchemeDesignator=b"S" * 17),
        code(b"A\\B"),
        code(LONG_CODE + b"\\B"),
        code(LONG_CODE + b"\x00\x07X"),
        code(b"not a URN: {}", "URNCodeValue"),
        code(CodeMeaning=b"Chest\\Thorax"),
    ],
)
def test_a_code_that_is_none_is_not_copied(item):
    assert copied_items("ProcedureCodeSequence", item, code()) == [{"CodeValue": b"CXR1"} | CODE]
    assert copied_items("ProcedureCodeSequence", item) == []
    assert copied("ProcedureCodeSequence", ProcedureCodeSequence=[item]) is None


def test_nested_codes_are_held_to_the_same():
    good, bad = code(EquivalentCodeSequence=[code(LONG_CODE)]), code(EquivalentCodeSequence=[code(None)])
    assert copied_items("ProcedureCodeSequence", good, bad) == [
        {"CodeValue": b"CXR1", "EquivalentCodeSequence": [{"LongCodeValue": LONG_CODE} | CODE]} | CODE,
        {"CodeValue": b"CXR1"} | CODE,
    ]
    qualifiers = source(UniversalEntityID=b"1.2.3", UniversalEntityIDType=b"ISO")
    qualifiers.add(DataElement("AssigningJurisdictionCodeSequence", "SQ", Sequence([code(None)])))
    assert copied_items("IssuerOfPatientIDQualifiersSequence", qualifiers) == [
        {"UniversalEntityID": b"1.2.3", "UniversalEntityIDType": b"ISO"}
    ]


def test_the_report_says_the_long_code(analysis_of, made_at):
    """The whole report was unreadable without a value in it."""
    item = phantoms.code("X", "99LOCAL", "Chest")
    item[0]["CodeValue"]._value = LONG_CODE.decode()
    analysis = analysis_of(phantoms.cr(rows=64, columns=64, ProcedureCodeSequence=item))
    for result in build_results(analysis, REPORTS_ONLY, made_at=made_at):
        written = dcmread(BytesIO(result.encode()))
        own = [
            item.ConceptCodeSequence[0]
            for item in written.ContentSequence
            if item.ConceptNameCodeSequence[0].CodeValue == codes.PROCEDURE_REPORTED.value
        ]
        for one in (*own[:1], *written.ProcedureCodeSequence):
            assert (one.LongCodeValue, one.CodeMeaning) == (LONG_CODE.decode(), "Chest")
            assert "CodeValue" not in one


LOCAL = {"LocalNamespaceEntityID": b"HOSP"}
UNIVERSAL = {"UniversalEntityID": b"1.2.3", "UniversalEntityIDType": b"ISO"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (LOCAL, [LOCAL]),
        (UNIVERSAL, [UNIVERSAL]),
        (LOCAL | UNIVERSAL, [LOCAL | UNIVERSAL]),
        ({"UniversalEntityIDType": b"ISO"}, []),
        ({"UniversalEntityID": b"1.2.3"}, []),
        (LOCAL | {"UniversalEntityIDType": b"ISO"}, [LOCAL]),
        (LOCAL | {"UniversalEntityID": b"1.2.3"}, [LOCAL]),
        (UNIVERSAL | {"UniversalEntityIDType": b"HCD"}, [UNIVERSAL | {"UniversalEntityIDType": b"HCD"}]),
        (LOCAL | UNIVERSAL | {"UniversalEntityIDType": b"no term"}, [LOCAL]),
    ],
)
def test_an_issuer_names_somebody(values, expected):
    """PS3.3 10.14: a local name, or a universal identifier with its type."""
    assert copied_items("IssuerOfAccessionNumberSequence", source(**values)) == expected
    qualifiers = source(AssigningFacilitySequence=[source(**values)], IdentifierTypeCode=b"MR")
    facility = {"AssigningFacilitySequence": expected} if expected else {}
    assert copied_items("IssuerOfPatientIDQualifiersSequence", qualifiers) == [{"IdentifierTypeCode": b"MR"} | facility]


TRIAL = {
    "ClinicalTrialSponsorName": b"Sponsor",
    "ClinicalTrialProtocolID": b"P1",
    "ClinicalTrialProtocolName": b"",
    "ClinicalTrialSiteID": b"",
    "ClinicalTrialSiteName": b"Site",
    "ClinicalTrialSubjectID": b"S1",
}


def trial(**values):
    """What is copied of the trial modules."""
    built = context.build(source(**values), "source")
    return {name: value for name, value in as_bytes(built).items() if name.startswith("ClinicalTrial")}


def test_a_trial_keeps_what_it_leaves_empty():
    """Type 2 (PS3.3 C.7.1.3, C.7.2.3)."""
    whole = TRIAL | {"ClinicalTrialTimePointID": b""}
    assert trial(**whole) == whole


@pytest.mark.parametrize("value", [None, b"x" * 65])
def test_a_trial_lacks_no_type_2_attribute(value):
    values = {name: one for name, one in TRIAL.items() if name != "ClinicalTrialSiteName"}
    if value is not None:
        values["ClinicalTrialSiteName"] = value
    assert trial(**values) == TRIAL | {"ClinicalTrialSiteName": b""}


@pytest.mark.parametrize("value", [None, b"", b"x" * 65])
@pytest.mark.parametrize("keyword", ["ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID"])
def test_a_trial_without_what_identifies_it_is_left_out(keyword, value):
    values = {name: one for name, one in TRIAL.items() if name != keyword}
    if value is not None:
        values[keyword] = value
    assert trial(**values) == {}


def test_a_reading_identifies_a_subject_too():
    """Type 1C, either of the two."""
    values = TRIAL | {"ClinicalTrialSubjectReadingID": b"R1"}
    assert trial(**values) == values
    assert "ClinicalTrialSubjectID" not in trial(**(values | {"ClinicalTrialSubjectID": b""}))


def test_a_time_point_has_an_identifier_or_an_empty_one():
    assert trial(ClinicalTrialTimePointDescription=b"week 4") == {
        "ClinicalTrialTimePointID": b"",
        "ClinicalTrialTimePointDescription": b"week 4",
    }
    assert trial(StudyDescription=b"no trial") == {}


KANJI = b"\x1b$B" + "胸".encode("iso2022_jp")[3:5] * 40 + b"\x1b(B"
LO_64_GB = "好".encode("gb18030") * 64
TRAIL = b"\x81\x5c"
"""U+4E57 in GBK and GB18030: its second byte is that of the delimiter of values."""
JIS_TRAIL = b"\x1b$B\x34\x5c\x1b(B"
"""A kanji whose second byte is that of the delimiter, in ISO 2022."""


@pytest.mark.parametrize(
    ("character_set", "keyword", "value"),
    [
        # Each value for itself.
        (None, "DeidentificationMethod", b"M" * 42 + b"\\" + b"N" * 42),
        (None, "PhysiciansOfRecord", b"\\".join([NAME] * 5)),
        # Each component group for itself.
        (b"ISO_IR 192", "ReferringPhysicianName", NAME + b"=" + "김".encode() * 64 + b"=" + NAME),
        (b"ISO_IR 192", "PhysiciansOfRecord", b"\\".join([b"=".join([NAME] * 3)] * 4)),
        # Characters, not bytes.
        (b"\\ISO 2022 IR 87", "StudyDescription", KANJI),
        (b"\\ISO 2022 IR 87", "DeidentificationMethod", KANJI + b"\\" + KANJI),
        (b"\\ISO 2022 IR 149", "StudyDescription", b"\x1b$)C" + "흉".encode("euc_kr") * 64),
        (b"ISO 2022 IR 149", "StudyDescription", "흉".encode("euc_kr") * 64),
        (b"\\ISO 2022 IR 58", "StudyDescription", b"\x1b$)A" + "胸".encode("gb2312") * 64),
        (b"\\ISO 2022 IR 159", "StudyDescription", b"\x1b$(D" + b"\x30\x21" * 64 + b"\x1b(B"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", "StudyDescription", b"\xd4\xcf\xc0" * 8 + KANJI[:-1] + b"J"),
        (b"ISO_IR 192", "StudyDescription", "흉".encode() * 64),
        (b"ISO_IR 100", "StudyDescription", "é".encode("latin_1") * 64),
        (b"ISO_IR 144", "StudyDescription", "Ж".encode("iso8859_5") * 64),
        (b"GB18030", "StudyDescription", LO_64_GB),
        (b"GBK", "StudyDescription", LO_64_GB),
        # A second byte is no delimiter.
        (b"GB18030", "DeidentificationMethod", TRAIL * 64 + b"\\" + TRAIL * 64),
        (b"\\ISO 2022 IR 87", "DeidentificationMethod", JIS_TRAIL * 40 + b"\\" + JIS_TRAIL * 40),
    ],
)
def test_length_is_that_of_each_value_in_characters(character_set, keyword, value):
    """PS3.5 6.2, and 6.1.2.5: escape sequences are no characters."""
    values = {keyword: value} | ({} if character_set is None else {"SpecificCharacterSet": character_set})
    assert copied(keyword, **values) == value


@pytest.mark.parametrize(
    ("character_set", "keyword", "value"),
    [
        (None, "DeidentificationMethod", b"M" * 42 + b"\\" + b"N" * 65),
        (None, "PhysiciansOfRecord", NAME + b"\\" + NAME + b"12345"),
        (b"ISO_IR 192", "PhysiciansOfRecord", NAME + b"=" + "김".encode() * 65),
        (None, "PhysiciansOfRecord", b"=".join([NAME] * 4)),
        (b"\\ISO 2022 IR 87", "StudyDescription", KANJI + KANJI),
        (b"\\ISO 2022 IR 149", "StudyDescription", b"\x1b$)C" + "흉".encode("euc_kr") * 65),
        (b"ISO_IR 192", "StudyDescription", "흉".encode() * 65),
        (b"ISO_IR 100", "StudyDescription", "é".encode("latin_1") * 65),
        # A second byte is no delimiter.
        (b"GB18030", "DeidentificationMethod", TRAIL * 65),
        (b"\\ISO 2022 IR 87", "DeidentificationMethod", JIS_TRAIL * 65),
        # What cannot be decoded is counted in bytes: nobody else can say how many characters it has.
        (b"ISO_IR 192", "StudyDescription", "흉".encode("euc_kr") * 40),
        (b"ISO_IR 999", "StudyDescription", "흉".encode() * 40),
        (b"GB18030", "DeidentificationMethod", b"M" * 42 + b"\xff\\" + b"N" * 42),
        # The attribute has one value only.
        (None, "StudyDescription", b"M" * 42 + b"\\" + b"N" * 42),
    ],
)
def test_values_longer_than_that_are_left_out(character_set, keyword, value):
    values = {keyword: value} | ({} if character_set is None else {"SpecificCharacterSet": character_set})
    assert copied(keyword, **values) is None


def test_an_item_may_have_a_character_set_of_its_own():
    """PS3.3 C.12.1.1.2; without one it has that of the data set around it."""
    meaning = "흉".encode() * 30
    own = code(CodeMeaning=meaning, SpecificCharacterSet=b"ISO_IR 192")
    (item,) = copied_items("ProcedureCodeSequence", own, SpecificCharacterSet=b"ISO_IR 100")
    assert item["CodeMeaning"] == meaning
    (item,) = copied_items("ProcedureCodeSequence", code(CodeMeaning=meaning), SpecificCharacterSet=b"ISO_IR 192")
    assert item["CodeMeaning"] == meaning
    assert copied_items("ProcedureCodeSequence", code(CodeMeaning=meaning), SpecificCharacterSet=b"ISO_IR 100") == []


REMOVED = {"PatientIdentityRemoved": b"YES"}


def test_a_removed_identity_never_lacks_its_method():
    """Type 1C (PS3.3 C.7.1.1): a method too long is a smaller fault than none."""
    method = b"M" * 65 + b"\\" + b"N"
    assert copied("DeidentificationMethod", DeidentificationMethod=method, **REMOVED) == method
    assert copied("DeidentificationMethod", DeidentificationMethod=method, PatientIdentityRemoved=b"NO") is None
    bad = [code(None)]
    assert copied("DeidentificationMethod", DeidentificationMethod=method, **REMOVED) == method
    also_bad = copied(
        "DeidentificationMethod", DeidentificationMethod=method, DeidentificationMethodCodeSequence=bad, **REMOVED
    )
    assert also_bad == method
    good = {"DeidentificationMethod": method, "DeidentificationMethodCodeSequence": [code()]} | REMOVED
    assert copied("DeidentificationMethod", **good) is None
    assert copied("DeidentificationMethod", DeidentificationMethod=b" ", **REMOVED) is None


@pytest.mark.parametrize("offset", [b"+0900", b"-0330", b"+0545", b"-1200", b"+1400", b"+0000"])
def test_a_time_zone_is_copied(offset):
    assert copied("TimezoneOffsetFromUTC", TimezoneOffsetFromUTC=offset) == offset


@pytest.mark.parametrize(
    "offset",
    [b"KST", b"+2500", b"+1430", b"-1230", b"+0960", b"0900", b"+900", b"+09:00", b"-0000", b" +0900", b"+0900\\+0900"],
)
def test_what_is_no_time_zone_is_neither_copied_nor_followed(analysis_of, made_at, offset):
    """PS3.3 C.12.1.1.8 and PS3.5 6.2 (DT). The times of a result without it are those of this node."""
    assert copied("TimezoneOffsetFromUTC", TimezoneOffsetFromUTC=offset) is None
    radiograph = phantoms.cr(rows=64, columns=64)
    put(radiograph, tag_of("TimezoneOffsetFromUTC"), "SH", offset)
    assert open_case(analysis_of(radiograph), ResultSettings(), made_at).made_at.utcoffset() == timedelta(hours=9)


@pytest.mark.parametrize(("offset", "minutes"), [("-1200", -720), ("+1400", 840), ("-0330", -210), ("+0000", 0)])
def test_times_follow_a_time_zone(analysis_of, offset, minutes):
    analysis = analysis_of(phantoms.cr(rows=64, columns=64, TimezoneOffsetFromUTC=offset))
    made_at = datetime(2026, 3, 1, tzinfo=UTC)
    assert open_case(analysis, ResultSettings(), made_at).made_at.utcoffset() == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    "spacing", [["0.00004", "1e20"], ["1e20", "0.1"], ["0", "0.1"], ["-0.1", "0.1"], ["1e9", "1e9"], ["1e999", "0.1"]]
)
def test_a_spacing_that_no_detector_has_is_left_out(analysis_of, made_at, spacing):
    """``1e20`` in four decimals has 21 characters; Decimal String holds 16 (PS3.5 6.2)."""
    for result in build_results(spaced(analysis_of, spacing), REPORTS_ONLY, made_at=made_at):
        assert spacings(result) == []


def test_a_spacing_is_written_as_a_decimal_string(analysis_of, made_at):
    report, *_ = build_results(spaced(analysis_of, ["0.139", "1.5e-1"]), REPORTS_ONLY, made_at=made_at)
    assert sorted(map(float, spacings(report))) == [0.139, 0.15]


def spaced(analysis_of, spacing):
    source = phantoms.cr(rows=64, columns=64)
    source.ImagerPixelSpacing = spacing
    return analysis_of(source)


def spacings(result):
    """Values of all items about spacing in a report."""
    wanted = {codes.HORIZONTAL_PIXEL_SPACING.value, codes.VERTICAL_PIXEL_SPACING.value}
    found, waiting = [], list(dcmread(BytesIO(result.encode())).ContentSequence)
    while waiting:
        item = waiting.pop()
        waiting += item.get("ContentSequence", [])
        if item.ConceptNameCodeSequence[0].CodeValue in wanted:
            found.append(str(item.MeasuredValueSequence[0].NumericValue))
    return found


@pytest.mark.parametrize(("weight", "expected"), [(b"70.5", b"70.5"), (b"1" * 17, None), (b"      " + b"1" * 11, None)])
def test_a_decimal_string_holds_sixteen_characters(weight, expected):
    assert copied("PatientWeight", PatientWeight=weight) == expected
