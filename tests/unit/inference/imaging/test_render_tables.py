"""Modality and VOI LUTs of PS3.4 N.2, of any depth and however they are written."""

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from ramps import X, image, near, ramp

from inference.records import WindowSource
from scp_node.demo import encodings


def lut(first, bits, data, keyword="VOI"):
    item = Dataset()
    count = len(data)
    item.add_new("LUTDescriptor", "US", [count & 0xFFFF, first & 0xFFFF, bits])
    if count > 32767:  # too long for US in explicit VR
        item.add_new("LUTData", "OW", np.asarray(data, "<u2").tobytes())
    else:
        item.add_new("LUTData", "US", [int(value) for value in data])
    if keyword == "Modality":
        item.ModalityLUTType = "US"
    return Sequence([item])


@pytest.mark.parametrize("uid", [None, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_voi_lut_of_any_depth(bits, uid, shown):
    """More than 256 entries of 8 bits are garbage in pydicom's own pipeline."""
    curve = np.rint((np.arange(4096) / 4095) ** 2 * (2**bits - 1)).astype(int)
    dataset = image(VOILUTSequence=lut(0, bits, curve), WindowCenter=100, WindowWidth=10)
    values, result = shown(encodings.encode(dataset, uid) if uid else dataset)
    near(values, (X / 4095) ** 2 * 255, 1)
    assert result.window.source is WindowSource.VOI_LUT_SEQUENCE
    assert result.window.function == "TABLE"


def test_a_voi_lut_with_entries_packed_into_words(shown):
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 8]
    item.add_new("LUTData", "OW", (np.arange(4096) // 16).astype(np.uint8).tobytes())
    values, _ = shown(image(VOILUTSequence=Sequence([item])))
    near(values, X // 16, 0)


def test_a_voi_lut_of_65536_entries(shown):
    values, _ = shown(image(ramp(16), bits=16, VOILUTSequence=lut(0, 16, 65535 - np.arange(65536))))
    near(values, (65535 - np.arange(65536)) / 65535 * 255, 0)


def test_a_voi_lut_that_uses_more_bits_than_it_states(shown):
    values, _ = shown(image(VOILUTSequence=lut(0, 8, range(4096))))
    near(values, X / 4095 * 255, 0)


def test_a_voi_lut_that_starts_elsewhere_holds_its_ends(shown):
    values, _ = shown(image(VOILUTSequence=lut(1000, 8, range(256))))
    near(values, np.clip(X - 1000, 0, 255), 0)


def test_a_voi_lut_of_signed_values(shown):
    dataset = image(ramp(12, signed=True), VOILUTSequence=lut(-2048, 8, np.arange(4096) // 16))
    values, _ = shown(dataset)
    near(values, X // 16, 0)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_a_modality_lut_of_any_depth(bits, shown):
    """10 and 12 bits raise in pydicom's own pipeline."""
    curve = np.rint(np.sqrt(np.arange(4096) / 4095) * (2**bits - 1)).astype(int)
    dataset = image(
        ModalityLUTSequence=lut(0, bits, curve, "Modality"), WindowCenter=2 ** (bits - 1), WindowWidth=2**bits
    )
    values, _ = shown(dataset)
    near(values, curve / (2**bits - 1) * 255, 1)


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_damaged_table_is_passed_over_and_noted(keyword, shown):
    values, result = shown(image(bits=8, **{keyword: Sequence([Dataset()])}))
    np.testing.assert_array_equal(values, np.arange(256))
    assert any("is damaged" in note for note in result.notes)


@pytest.mark.parametrize(("bits", "stated", "taken_for"), [(12, 16, 12), (12, 14, 12), (12, 13, 13), (16, 16, 16)])
def test_a_table_that_states_more_bits_than_it_uses_is_not_shown_dark(bits, stated, taken_for, shown):
    entries = np.linspace(0, 2**bits - 1, 4096).astype(int)
    values, result = shown(image(VOILUTSequence=lut(0, stated, entries)))
    near(values, 255 * entries.reshape(64, -1).ravel() / (2**taken_for - 1))
    note = "LUT Data (0028,3006) use 12 bits, fewer than stated for them"
    assert result.notes == (() if taken_for == stated else (note,))
