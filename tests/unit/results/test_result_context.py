"""Patient and study come out of a result as they went in, byte for byte; nothing is invented."""

import struct
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from config.results import ResultSettings, SecondaryCaptureSettings
from scp_node.demo import encodings, phantoms, sources
from scp_node.results import context
from scp_node.results.catalog import build_results

TAGS = {
    "SpecificCharacterSet": 0x00080005,
    "AccessionNumber": 0x00080050,
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "StudyID": 0x00200010,
}
PADDING = b" \0"
SMALL = ResultSettings(secondary_capture=SecondaryCaptureSettings(panel_size=256, maximum_size=256))


def element_bytes(part_10: bytes, tag: int, vr: bytes) -> bytes:
    """Value of the first element of a tag in an Explicit VR Little Endian file, found without any DICOM library."""
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    at = part_10.index(start, 132)
    (length,) = struct.unpack_from("<H", part_10, at + 6)
    return part_10[at + 8 : at + 8 + length]


def element(tag, vr, value):
    """An element in Explicit VR Little Endian."""
    value += b" " * (len(value) % 2)
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + struct.pack("<H", len(value)) + value


def source_file(folder, character_set, **values):
    """A CR in a file with these bytes as values, whatever a library thinks of them."""
    source = phantoms.cr(rows=64, columns=64, SpecificCharacterSet=None, StudyDescription=None)
    for keyword, value in values.items():
        source[keyword].value = "@" * (len(value) + len(value) % 2)
    buffer = BytesIO()
    source.save_as(buffer, enforce_file_format=True)
    encoded = buffer.getvalue()
    for keyword, value in values.items():
        vr = source[keyword].VR.encode()
        old = element(TAGS[keyword], vr, b"@" * len(source[keyword].value))
        assert encoded.count(old) == 1
        encoded = encoded.replace(old, element(TAGS[keyword], vr, value))
    if character_set is not None:
        # The first element of the Data Set, right after the File Meta Information.
        start = 132 + 12 + int.from_bytes(encoded[140:144], "little")
        encoded = encoded[:start] + element(TAGS["SpecificCharacterSet"], b"CS", character_set) + encoded[start:]
    file = folder / "source.dcm"
    file.write_bytes(encoded)
    return file


KOREAN = "홍^길동"
EUC_KR = KOREAN.encode("euc_kr")
NAMES = {
    "Korean with escapes": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    "Korean without escapes": (b"ISO 2022 IR 149", EUC_KR),
    "Japanese": (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    "Japanese half width": (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"),
    "UTF-8": (b"ISO_IR 192", "Wang^XiaoDong=王^小东=".encode()),
    "Chinese": (b"GB18030", "王^小东".encode("gb18030")),
    "Greek": (b"ISO_IR 126", "Διονυσιος".encode("iso8859_7")),
    "Latin 1": (b"ISO_IR 100", "Buc^Jérôme".encode("latin_1")),
    "EUC-KR declared as nothing": (None, EUC_KR),
    "EUC-KR declared as Latin 1": (b"ISO_IR 100", EUC_KR),
    "EUC-KR declared with a misspelt term": (b"ISO_IR 149", EUC_KR),
    "EUC-KR declared as UTF-8": (b"ISO_IR 192", EUC_KR),
    "trailing delimiters": (b"ISO_IR 192", b"Kim==^"),
}


@pytest.mark.filterwarnings("ignore:Unknown encoding:UserWarning")  # pydicom on the misspelt term, as it should
@pytest.mark.filterwarnings("ignore:Value 'ISO_IR 149' for Specific:UserWarning")
@pytest.mark.parametrize(("character_set", "name"), NAMES.values(), ids=NAMES)
def test_names_and_identifiers_survive_in_every_object(analysis_of, made_at, tmp_path, character_set, name):
    patient_id, accession = b"ID-" + EUC_KR.replace(b"^", b""), b"A/7 "
    file = source_file(tmp_path, character_set, PatientName=name, PatientID=patient_id, AccessionNumber=accession)
    analysis = analysis_of(file)
    # Whoever looks at the header decodes it; that must not matter.
    str(analysis.header.dataset.get("StudyDate"))
    for result in build_results(analysis, SMALL, made_at=made_at):
        encoded = result.encode()
        assert element_bytes(encoded, TAGS["PatientName"], b"PN").rstrip(PADDING) == name
        assert element_bytes(encoded, TAGS["PatientID"], b"LO").rstrip(PADDING) == patient_id
        assert element_bytes(encoded, TAGS["AccessionNumber"], b"SH").rstrip(PADDING) == accession.rstrip()
        if character_set is None:
            assert "SpecificCharacterSet" not in result.dataset
        else:
            assert element_bytes(encoded, TAGS["SpecificCharacterSet"], b"CS").rstrip(PADDING) == character_set


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.binary(min_size=1, max_size=64), patient_id=st.binary(min_size=1, max_size=64))
def test_any_bytes_at_all_survive(tmp_path, name, patient_id):
    file = source_file(tmp_path, None, PatientName=name, PatientID=patient_id)
    copied = context.build(dcmread(file, stop_before_pixels=True), "source")
    for keyword, value in (("PatientName", name), ("PatientID", patient_id)):
        expected = value + b" " * (len(value) % 2) if value.strip(PADDING) else b""
        assert copied.get_item(TAGS[keyword]).value == expected


@pytest.mark.parametrize(
    "transfer_syntax_uid", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_the_sources_transfer_syntax_does_not_matter(analysis_of, made_at, tmp_path, transfer_syntax_uid):
    source = sources.SOURCES["cr_ko"]()
    add_other_identifiers(source)
    plain = build_results(analysis_of(source), SMALL, made_at=made_at)
    other = encodings.encode(source, transfer_syntax_uid)
    encoded = build_results(analysis_of(other), SMALL, made_at=made_at)
    assert [r.encode() for r in plain] == [r.encode() for r in encoded]


def test_a_source_without_identity_gets_none(analysis_of, made_at):
    """Type 2: present, and empty."""
    results = build_results(analysis_of(sources.SOURCES["cr_bare"]()), SMALL, made_at=made_at)
    for result in results:
        written = dcmread(BytesIO(result.encode()))
        for keyword in context.ALWAYS_PRESENT:
            assert keyword in written, keyword
            assert not written[keyword].value, keyword
        assert "SpecificCharacterSet" not in written


def test_every_object_has_the_same_context(analysis_of, made_at):
    results = build_results(analysis_of(sources.SOURCES["dx"]()), SMALL, made_at=made_at)
    contexts = []
    for result in results:
        written = dcmread(BytesIO(result.encode()))
        keywords = ("StudyInstanceUID", *context.IDENTITY, *context.ALWAYS_PRESENT, *context.OPTIONAL)
        contexts.append({k: written[k].value for k in keywords if k in written})
    assert all(one == contexts[0] for one in contexts)
    assert contexts[0]["PatientID"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")  # written so on purpose
@pytest.mark.filterwarnings("ignore:The value length:UserWarning")
@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientAge", "62"),
        ("PatientBirthDate", "1970-01-31"),
        ("PatientBirthDate", "19700231"),
        ("StudyDate", "20240101-20240201"),
        ("StudyTime", "25:99"),
        ("PatientSex", "U"),
        ("StudyDescription", "x" * 65),
        ("PatientWeight", "heavy"),
        ("PatientIdentityRemoved", "MAYBE"),
        ("TimezoneOffsetFromUTC", "+0900 or so, roughly"),
    ],
)
def test_invalid_values_are_not_copied(analysis_of, made_at, tmp_path, keyword, value):
    source = phantoms.cr(rows=64, columns=64)
    vr = "LO" if keyword == "PatientWeight" else source.get_item(keyword).VR if keyword in source else None
    source.pop(keyword, None)
    tag = context.tag_of(keyword)
    source[tag] = DataElement(tag, vr or context.dictionary_VR(tag), value)
    result = build_results(analysis_of(source), SMALL, made_at=made_at)[0]
    if keyword in context.ALWAYS_PRESENT:
        assert not result.dataset[keyword].value
    else:
        assert keyword not in result.dataset


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")  # written so on purpose
def test_an_invalid_identifier_is_copied_all_the_same(analysis_of, made_at):
    """An archive matches by it, whatever its length."""
    source = phantoms.cr(rows=64, columns=64, AccessionNumber="A" * 30)
    result = build_results(analysis_of(source), SMALL, made_at=made_at)[0]
    assert result.dataset.AccessionNumber == "A" * 30


def add_other_identifiers(source):
    other = Dataset()
    other.PatientID = "X-12"
    other.IssuerOfPatientID = "홍길동병원"
    other.TypeOfPatientID = "TEXT"
    useless = Dataset()
    useless.PatientID = "no type"
    source.OtherPatientIDsSequence = [other, useless]
    code, nameless = phantoms.code("1234", "99LOCAL", "흉부")[0], Dataset()
    nameless.CodeValue, nameless.CodingSchemeDesignator = "1", "99LOCAL"
    source.ProcedureCodeSequence = [code, nameless]


def test_sequences_are_copied_item_by_item_and_incomplete_items_left_out(analysis_of, made_at):
    source = sources.SOURCES["cr_ko"]()
    add_other_identifiers(source)
    for result in build_results(analysis_of(source), SMALL, made_at=made_at):
        written = dcmread(BytesIO(result.encode()))
        assert [str(item.PatientID) for item in written.OtherPatientIDsSequence] == ["X-12"]
        assert written.OtherPatientIDsSequence[0].IssuerOfPatientID == "홍길동병원"
        assert [item.CodeMeaning for item in written.ProcedureCodeSequence] == ["흉부"]


def test_nothing_else_of_the_source_is_copied(analysis_of, made_at):
    source = phantoms.cr(
        rows=64,
        columns=64,
        Manufacturer="Detector Maker",
        InstitutionName="Elsewhere",
        StationName="ROOM1",
        PatientComments="private",
        OperatorsName="Somebody",
    )
    source.add_new(0x00110010, "LO", "MAKER")
    source.add_new(0x00111001, "LO", "private")
    for result in build_results(analysis_of(source), SMALL, made_at=made_at):
        for keyword in ("InstitutionName", "StationName", "PatientComments", "OperatorsName", "WindowCenter"):
            assert keyword not in result.dataset
        assert result.dataset.Manufacturer == "scp-node"
        assert not [tag for tag in result.dataset.keys() if tag.is_private]  # noqa: SIM118 - would decode


def test_a_header_without_its_file_is_used_as_it_is(analysis_of, made_at, tmp_path):
    analysis = analysis_of(sources.SOURCES["cr_ko"]())
    first = build_results(analysis, SMALL, made_at=made_at)[0].encode()
    analysis.header.file.unlink()
    assert build_results(analysis, SMALL, made_at=made_at)[0].encode() == first
    assert analysis.header.dataset.PatientName  # decoded now
    assert build_results(analysis, SMALL, made_at=made_at)[0].encode() == first


@pytest.mark.parametrize("name", ["cr_ko", "cr_ja", "cr_u8"])
def test_utf8_on_request_means_the_same_name(analysis_of, made_at, name):
    source = sources.SOURCES[name]()
    if name == "cr_ko":
        add_other_identifiers(source)
    results = build_results(analysis_of(source), SMALL.model_copy(update={"charset": "utf8"}), made_at=made_at)
    for result in results:
        written = dcmread(BytesIO(result.encode()))
        assert written.SpecificCharacterSet == "ISO_IR 192"
        assert written.PatientName == source.PatientName
        raw = element_bytes(result.encode(), TAGS["PatientName"], b"PN")
        assert raw.decode("utf-8").rstrip("= ") == str(source.PatientName)
        if name == "cr_ko":
            assert written.OtherPatientIDsSequence[0].IssuerOfPatientID == "홍길동병원"


@pytest.mark.parametrize("character_set", [None, b"ISO_IR 192", b"\\ISO 2022 IR 149", b"ISO_IR 6"])
def test_what_cannot_be_decoded_stays_as_it_is_also_on_request(analysis_of, made_at, tmp_path, character_set):
    file = source_file(tmp_path, character_set, PatientName=EUC_KR)
    result = build_results(analysis_of(file), SMALL.model_copy(update={"charset": "utf8"}), made_at=made_at)[0]
    assert element_bytes(result.encode(), TAGS["PatientName"], b"PN").rstrip(PADDING) == EUC_KR


def test_times_follow_the_sources_time_zone(analysis_of, made_at):
    """12:30:15 at +0900 is 22:30:15 of the day before at -0500."""
    source = phantoms.cr(rows=64, columns=64, TimezoneOffsetFromUTC="-0500")
    dataset = build_results(analysis_of(source), SMALL, made_at=made_at)[0].dataset
    assert (dataset.ContentDate, dataset.ContentTime) == ("20260228", "223015")
    assert dataset.TimezoneOffsetFromUTC == "-0500"
    plain = build_results(analysis_of(phantoms.cr(rows=64, columns=64)), SMALL, made_at=made_at)[0].dataset
    assert (plain.ContentDate, plain.ContentTime) == ("20260301", "123015")
    assert "TimezoneOffsetFromUTC" not in plain
