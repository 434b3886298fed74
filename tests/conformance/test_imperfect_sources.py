"""A source with faults makes results without them, as validators see it that had no part in making them."""

from pathlib import Path

import pytest
from pydicom import Dataset, FileDataset, dcmread

from scp_node.demo import phantoms
from scp_node.results.raw import put, seal, tag_of
from tests.conformance.test_results_conformance import complaints, said_by, written

pytestmark = pytest.mark.conformance

PRIVATE_SCHEME = "Warning - Unrecognized defined term <99LOCAL> for value 1 of attribute <Coding Scheme Designator>"
"""Schemes of a site begin with 99 (PS3.3 8.2); dciodvfy warns of each."""
LONG_CODE = "CHESTXRAY2VIEWSPORTABLE"
TRIAL = {
    "ClinicalTrialSponsorName": "Sponsor",
    "ClinicalTrialProtocolID": "P1",
    "ClinicalTrialProtocolName": "",
    "ClinicalTrialSiteID": "",
    "ClinicalTrialSiteName": "",
    "ClinicalTrialSubjectID": "S1",
    "ClinicalTrialTimePointID": "",
}


def code(value: str, keyword: str = "CodeValue", meaning: str = "Chest", scheme: str = "99LOCAL") -> Dataset:
    """One item of a code sequence, whatever is wrong with it; as bytes, which pydicom does not judge."""
    item = Dataset()
    for name, one in ((keyword, value), ("CodingSchemeDesignator", scheme), ("CodeMeaning", meaning)):
        vr = {"LongCodeValue": "UC", "URNCodeValue": "UR", "CodeMeaning": "LO"}.get(name, "SH")
        put(item, tag_of(name), vr, one.encode())
    return item


def issuer() -> Dataset:
    item = Dataset()
    item.UniversalEntityIDType = "ISO"
    return item


SOURCES: dict[str, dict[str, object]] = {
    "code too long": {"ProcedureCodeSequence": [code(LONG_CODE)]},
    "code that is a URN": {"ProcedureCodeSequence": [code("urn:oid:1.2.840.113619.1")]},
    "long code": {"ProcedureCodeSequence": [code(LONG_CODE, "LongCodeValue")]},
    "URN": {"ProcedureCodeSequence": [code("urn:oid:1.2.840.113619.1", "URNCodeValue")]},
    "URN without scheme": {"ProcedureCodeSequence": [code("urn:oid:1.2.840.113619.1", "URNCodeValue", scheme="")]},
    "two codes in one": {"ProcedureCodeSequence": [code("A\\B"), code("CXR1")]},
    "two meanings": {"ProcedureCodeSequence": [code("A", meaning="B\\C"), code("CXR1")]},
    "no code": {"ProcedureCodeSequence": [code("")]},
    "issuer that names nobody": {"IssuerOfAccessionNumberSequence": [issuer()]},
    "trial": TRIAL,
    "trial without protocol": TRIAL | {"ClinicalTrialProtocolID": ""},
    "two methods": {"PatientIdentityRemoved": "YES", "DeidentificationMethod": ["M" * 42, "N" * 42]},
    "five physicians": {"PhysiciansOfRecord": ["A" * 40 + "^" + "B" * 20] * 5},
    "no time zone": {"TimezoneOffsetFromUTC": "KST"},
    "zone of no place": {"TimezoneOffsetFromUTC": "+2500"},
    "spacing": {"ImagerPixelSpacing": ["0.00004", "1e20"]},
}


def saved(folder: Path, values: dict[str, object]) -> Path:
    """Write a CR with these values."""
    source: FileDataset = phantoms.cr(rows=64, columns=64)
    for keyword, value in values.items():
        setattr(source, keyword, value)
    seal(source)
    file = folder / "source.dcm"
    source.save_as(file, enforce_file_format=True)
    return file


@pytest.mark.parametrize("values", SOURCES.values(), ids=SOURCES)
def test_faults_of_a_source_are_none_of_its_results(tmp_path: Path, values: dict[str, object]) -> None:
    """dciodvfy has nothing to say, and DCMTK reads each report."""
    for file in written(tmp_path, saved(tmp_path, values)):
        assert [line for line in complaints(file) if line != PRIVATE_SCHEME] == [], file.name
        if "report" in file.name or "summary" in file.name:
            status, output = said_by("dsrdump", "-q", file)
            assert status == 0, output


def test_forty_kanji_are_not_too_long(tmp_path: Path) -> None:
    """PS3.5 6.2 counts characters. dciodvfy counts bytes, escape sequences too, and says the same of the source."""
    values = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "StudyDescription": "胸" * 40}
    source = saved(tmp_path, values)
    about = "(0x0008,0x1030) LO Study Description"
    said = [line for line in complaints(source) if about in line]
    for file in written(tmp_path, source):
        assert [line for line in complaints(file) if about in line] == said
        assert dcmread(file).StudyDescription == values["StudyDescription"]


def test_dcmtk_says_the_long_code(tmp_path: Path) -> None:
    files = written(tmp_path, saved(tmp_path, SOURCES["code too long"]))
    _, output = said_by("dsrdump", "-q", "+Pc", files[4])
    assert f"({LONG_CODE},99LOCAL" in output


def test_dcmtk_reads_a_report_of_a_procedure_whose_meaning_has_a_backslash_in_a_character(tmp_path: Path) -> None:
    item = code("A")
    put(item, tag_of("CodeMeaning"), "LO", b"\x81\x5c")
    values = {"SpecificCharacterSet": "GB18030", "ProcedureCodeSequence": [item]}
    for report in written(tmp_path, saved(tmp_path, values))[4:]:
        status, output = said_by("dsrdump", "-q", report)
        assert status == 0, output
        assert dcmread(report).ProcedureCodeSequence[0].CodeValue == "A"


def test_the_gate_bites(tmp_path: Path) -> None:
    """Without its value, a code is an error to both."""
    report = written(tmp_path, saved(tmp_path, SOURCES["code too long"]))[4]
    dataset = dcmread(report)
    del dataset.ProcedureCodeSequence[0].LongCodeValue
    (own,) = (
        item.ConceptCodeSequence[0]
        for item in dataset.ContentSequence
        if item.ValueType == "CODE" and "LongCodeValue" in item.ConceptCodeSequence[0]
    )
    del own.LongCodeValue
    dataset.save_as(report)
    assert [line for line in complaints(report) if line.startswith("Error")]
    assert said_by("dsrdump", "-q", report)[0] != 0
