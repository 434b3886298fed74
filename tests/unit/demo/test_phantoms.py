"""Phantoms are complete DICOM objects, the same at each call, and look like a chest."""

import io
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGBaseline8Bit

from inference.imaging.source import read_header, read_pixels
from scp_node.demo import encodings, phantoms, sources


def saved(dataset):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the age of "rsna" is invalid on purpose
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


COMPLETE = {
    "cr": phantoms.cr,
    "dx": phantoms.dx,
    "dx_for_processing": phantoms.dx_for_processing,
    "secondary_capture": phantoms.secondary_capture,
    "cr_ko": sources.SOURCES["cr_ko"],
    "cr_ja": sources.SOURCES["cr_ja"],
    "cr_u8": sources.SOURCES["cr_u8"],
}


def test_the_picture_resembles_a_chest():
    chest = phantoms.chest_array(512, 448).astype(float) / 4095
    lung, heart, air = chest[200:260, 110:150].mean(), chest[300:340, 240:270].mean(), chest[10:60, 5:40].mean()
    assert air < 0.1 < lung < 0.4 < heart


def test_an_opacity_brightens_the_right_lung_only():
    plain, opaque = phantoms.chest_array(256, 256), phantoms.chest_array(256, 256, opacity=1)
    gain = opaque.astype(int) - plain
    assert gain[148, 70] > 400
    assert abs(gain[:, 160:]).max() <= 8


@pytest.mark.parametrize("name", sources.SOURCES)
def test_the_same_call_gives_the_same_bytes(name):
    assert saved(sources.SOURCES[name]()) == saved(sources.SOURCES[name]())


def test_sources_are_different_instances():
    assert len({build().SOPInstanceUID for build in sources.SOURCES.values()}) == len(sources.SOURCES) == 7


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.conformance
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_an_object_has_no_error_for_dciodvfy(name, tmp_path):
    file = tmp_path / "object.dcm"
    file.write_bytes(saved(COMPLETE[name]()))
    report = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    assert "Image" in report.stderr, "dciodvfy names the IOD it checked"
    assert [line for line in report.stderr.splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize(
    ("name", "character_set", "raw", "parts"),
    [
        ("cr_ko", ["", "ISO 2022 IR 149"], b"\x1b$)C\xfb\xf3", ("Hong^Gildong", "洪^吉洞", "홍^길동")),
        ("cr_ja", ["", "ISO 2022 IR 87"], b"\x1b$B;3ED\x1b(B", ("Yamada^Tarou", "山田^太郎", "やまだ^たろう")),
        ("cr_u8", "ISO_IR 192", "王".encode(), ("Wang^XiaoDong", "王^小東", "")),
    ],
)
def test_names_are_in_the_bytes_of_their_character_set(name, character_set, raw, parts):
    data = saved(sources.SOURCES[name]())
    dataset = dcmread(io.BytesIO(data))
    assert dataset.SpecificCharacterSet == character_set
    assert raw in data
    person = dataset.PatientName
    assert (person.alphabetic, person.ideographic, person.phonetic) == parts


def test_rsna_has_the_faults_of_its_model():
    dataset = dcmread(io.BytesIO(saved(sources.SOURCES["rsna"]())))
    assert dataset.SOPClassUID.name == "Secondary Capture Image Storage"
    assert (dataset.Modality, dataset.LossyImageCompression) == ("CR", "01")
    assert dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert b"\x10\x00\x10\x10AS\x02\x0062" in saved(sources.SOURCES["rsna"]())
    assert "PatientOrientation" not in dataset
    assert "PixelSpacing" not in dataset
    assert "ImagerPixelSpacing" not in dataset


def test_bare_identifies_nothing():
    dataset = sources.SOURCES["cr_bare"]()
    for keyword in ("PatientID", "PatientName", "StudyDate", "AccessionNumber", "StudyID", "SeriesNumber"):
        assert keyword not in dataset


def test_attributes_are_set_and_removed_by_keyword():
    dataset = phantoms.cr(ViewPosition="LL", PatientOrientation=None, SOPInstanceUID="1.2.3")
    assert dataset.ViewPosition == "LL"
    assert "PatientOrientation" not in dataset
    assert dataset.file_meta.MediaStorageSOPInstanceUID == "1.2.3"


@pytest.mark.parametrize("uid", encodings.encodable_transfer_syntaxes())
def test_encoding_keeps_instance_and_size(uid, tmp_path):
    original = phantoms.secondary_capture(rows=64, columns=48)
    encoded = encodings.encode(original, uid)
    file = tmp_path / "encoded.dcm"
    file.write_bytes(saved(encoded))
    again = dcmread(file)
    assert again.file_meta.TransferSyntaxUID == uid
    assert again.SOPInstanceUID == original.SOPInstanceUID
    stored_values = read_pixels(read_header(file)).stored_values
    assert stored_values.shape == (64, 48)
    assert np.abs(stored_values.astype(int) - original.pixel_array).max() <= 20
    assert original.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian", "the original stays as it is"


def test_an_encoder_that_cannot_hold_the_pixels_refuses():
    with pytest.raises(ValueError, match="8 bits"):
        encodings.encode(phantoms.cr(), JPEGBaseline8Bit)
    with pytest.raises(ValueError, match="no encoder"):
        encodings.encode(phantoms.cr(), "1.2.840.10008.1.2.4.106")
