"""Headers that we write and beginnings that we read, without trusting either side."""

import contextlib
import struct
import zlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from scp_node.scp.elements import Encoding, EncodingError, elements
from scp_node.scp.part10 import Implementation, decode_text, decode_uid, file_header, is_uid, read_identity
from scp_node.scp.statuses import DataSetError, DataSetMismatchError

CLASS, INSTANCE = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4.5"
SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
]


def encode(dataset: Dataset, syntax: UID) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(buffer, dataset)
    content = buffer.getvalue()
    if syntax.is_deflated:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = compressor.compress(content) + compressor.flush()
    return content


def radiograph() -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = CLASS, INSTANCE
    dataset.PatientName = "Nobody"
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_identity_is_found_in_every_encoding(syntax: UID) -> None:
    assert read_identity(encode(radiograph(), syntax)[:16384], syntax)[:2] == (CLASS, INSTANCE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_study_is_found_and_never_asked_for(syntax: UID) -> None:
    """For the audit trail: an object without it, or with nonsense in front of it, is stored all the same."""
    dataset = radiograph()
    dataset.StudyInstanceUID = "1.2.840.1"
    assert read_identity(encode(dataset, syntax), syntax) == (CLASS, INSTANCE, "1.2.840.1", "")
    with pytest.warns(UserWarning, match="Invalid value"):
        dataset.StudyInstanceUID = "../../etc"
    assert read_identity(encode(dataset, syntax), syntax) == (CLASS, INSTANCE, "", "")
    assert read_identity(encode(radiograph(), syntax), syntax) == (CLASS, INSTANCE, "", "")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_accession_number_is_read_in_its_character_set(syntax: UID) -> None:
    dataset = radiograph()
    dataset.AccessionNumber = " A-4711 "
    assert read_identity(encode(dataset, syntax), syntax).accession_number == "A-4711"
    dataset.AccessionNumber = "접수-7"
    assert read_identity(encode(dataset, syntax), syntax).accession_number == "접수-7"


@pytest.mark.parametrize(
    ("value", "character_set", "text"),
    [
        (b"A1\0", b"", "A1"),
        (b"", b"ISO_IR 100", ""),
        (b"\xc4\xd6 ", b"ISO_IR 100", "ÄÖ"),
        (b"\x1b$)C\xb0\xa1", b"\\ISO 2022 IR 149", "가"),
        (b"A" * 5000, b"", "A" * 1024),
    ],
)
def test_texts_lose_their_padding_and_nothing_else(value: bytes, character_set: bytes, text: str) -> None:
    assert decode_text(value, character_set) == text


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says so of each term and each byte that is wrong
@pytest.mark.parametrize("character_set", [b"NONSENSE", b"\xff\xfe", b"ISO_IR 192", b"ISO 2022 IR 87\\\\x"])
def test_a_text_in_no_character_set_is_no_error(character_set: bytes) -> None:
    assert isinstance(decode_text(b"\xff\x1b$B\xc3", character_set), str)


def test_nonsense_after_the_identity_is_left_to_the_child() -> None:
    content = encode(radiograph(), ExplicitVRLittleEndian) + b"\x18\x00\x00\x00??????"
    assert read_identity(content, ExplicitVRLittleEndian) == (CLASS, INSTANCE, "", "")


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_before_the_identity_are_passed_over(syntax: UID, undefined: bool) -> None:
    """(0008,0006) may hold anything, even another SOP Instance UID."""
    dataset = radiograph()
    inner = Dataset()
    inner.SOPInstanceUID = "9.9"
    inner.LanguageCodeSequence = [Dataset()]
    inner.is_undefined_length_sequence_item = undefined
    dataset.LanguageCodeSequence = [inner, inner]
    dataset["LanguageCodeSequence"].is_undefined_length = undefined
    assert read_identity(encode(dataset, syntax), syntax)[:2] == (CLASS, INSTANCE)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_data_set_without_identity_does_not_match(syntax: UID, keyword: str) -> None:
    dataset = radiograph()
    delattr(dataset, keyword)
    with pytest.raises(DataSetMismatchError, match="without SOP"):
        read_identity(encode(dataset, syntax), syntax)
    setattr(dataset, keyword, "")
    with pytest.raises(DataSetMismatchError, match="without SOP"):
        read_identity(encode(dataset, syntax), syntax)


@pytest.mark.parametrize(
    ("sent", "negotiated"),
    [
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
        (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian),
    ],
)
def test_another_encoding_than_negotiated_is_not_guessed(sent: UID, negotiated: UID) -> None:
    with pytest.raises(DataSetError):
        read_identity(encode(radiograph(), sent), negotiated)


def test_deep_nesting_costs_nothing() -> None:
    """No recursion: a thousand levels are walked over like any other bytes."""
    opening = struct.pack("<HHL", 0x0008, 0x0006, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHL", 0xFFFE, 0xE00D, 0) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    content = opening * 5000 + closing * 5000 + encode(radiograph(), ImplicitVRLittleEndian)
    assert read_identity(content, ImplicitVRLittleEndian)[:2] == (CLASS, INSTANCE)


def test_an_item_out_of_place_is_an_error() -> None:
    content = struct.pack("<HHL", 0xFFFE, 0xE000, 0) + bytes(8)
    with pytest.raises(EncodingError):
        list(elements(content, Encoding(is_implicit_vr=True, is_little_endian=True)))


def test_a_deflate_bomb_is_not_inflated() -> None:
    bomb = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    content = bomb.compress(bytes(64 * 2**20)) + bomb.flush()
    with pytest.raises((DataSetError, DataSetMismatchError)):
        read_identity(content[:16384], DeflatedExplicitVRLittleEndian)


@given(content=st.binary(max_size=400), syntax=st.sampled_from(SYNTAXES))
def test_random_bytes_raise_our_own_errors_only(content: bytes, syntax: UID) -> None:
    with contextlib.suppress(DataSetError, DataSetMismatchError):
        read_identity(content, syntax)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("1.2.3", True),
        ("0", True),
        ("1.02.3", True),
        ("9" * 64, True),
        ("9" * 65, False),
        ("", False),
        (".", False),
        ("..", False),
        ("1..2", False),
        (".1", False),
        ("1.", False),
        ("1.2.3\n", False),
        ("../../etc/passwd", False),
        ("１.２", False),
    ],
)
def test_what_counts_as_a_uid(value: str, valid: bool) -> None:
    assert is_uid(value) is valid


def test_uids_lose_their_padding_and_stay_ascii() -> None:
    assert decode_uid(b"1.2.3\0") == "1.2.3"
    assert decode_uid(b"1.2.3 ") == "1.2.3"
    assert decode_uid(b"1.\xff\x1b") == "1.?\x1b"


@pytest.mark.parametrize("title", ["SCU", "SCU4"])
def test_the_file_header_is_read_by_pydicom(title: str) -> None:
    header = file_header(
        sop_class_uid=CLASS,
        sop_instance_uid=INSTANCE,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        calling_ae_title=title,
        implementation=Implementation(class_uid="2.25.1", version_name="NODE_1"),
    )
    assert header[:132] == bytes(128) + b"DICM"
    content = encode(radiograph(), ExplicitVRLittleEndian)
    dataset = dcmread(BytesIO(header + content))
    meta = dataset.file_meta
    assert meta.FileMetaInformationGroupLength == len(header) - 132 - 12
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID)[:2] == (CLASS, INSTANCE)
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (meta.ImplementationClassUID, meta.ImplementationVersionName) == ("2.25.1", "NODE_1")
    assert meta.SourceApplicationEntityTitle == title
    assert dataset.SOPInstanceUID == INSTANCE
