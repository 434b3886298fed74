"""SEC-10: the same picture in any legal encoding gives the same display values within one grey level."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.records import RenderRule
from scp_node.demo import encodings, phantoms

LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)
LOSSLESS = [uid for uid in encodings.encodable_transfer_syntaxes() if uid not in LOSSY]
FRACTIONS = phantoms.chest_array(72, 60, 16, seed=11) / 65535.0
EXPECTED = np.floor(FRACTIONS * 255 + 0.5)


@st.composite
def legal_encodings(draw):
    """Draw every choice that an encoder has; all are legal and mean the same picture."""
    bits = draw(st.integers(10, 16))
    allocated_high_bit = draw(st.sampled_from(["right", "left"]))
    return {
        "bits": bits,
        "left_aligned": allocated_high_bit == "left" and bits < 16,
        "signed": draw(st.booleans()),
        "photometric": draw(st.sampled_from(["MONOCHROME1", "MONOCHROME2"])),
        "shape": draw(st.booleans()),
        "modality": draw(st.sampled_from(["none", "positive", "negative", "table"])),
        "voi": draw(st.sampled_from(["LINEAR", "LINEAR_EXACT", "table"])),
        "table_bits": draw(st.sampled_from([8, 10, 12, 16])),
        "slope": draw(st.sampled_from([0.25, 0.5, 1, 2])),
        "intercept": draw(st.integers(-5000, 5000)),
        "uid": draw(st.sampled_from(LOSSLESS)),
    }


def table(first, bits, entries):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) & 0xFFFF, first & 0xFFFF, bits])
    item.add_new("LUTData", "OW", np.asarray(np.rint(entries), "<u2").tobytes())
    return Sequence([item])


def build(choice):
    """Encode the picture: every step backwards, from the fractions to stored values."""
    bits, levels = choice["bits"], (1 << choice["bits"]) - 1
    inverted = choice["photometric"] == "MONOCHROME1"
    fractions = 1 - FRACTIONS if inverted else FRACTIONS
    falls = choice["modality"] == "negative"
    codes = np.rint((1 - fractions if falls else fractions) * levels).astype(np.int64)
    offset = 1 << (bits - 1) if choice["signed"] else 0
    stored = (codes - offset).astype(np.int16 if choice["signed"] else np.uint16)
    attributes = {"WindowCenter": None, "WindowWidth": None}
    # modality values that stored values of fraction 0 and 1 come to
    low, high = (-offset, levels - offset)
    if choice["modality"] in ("positive", "negative"):
        slope, intercept = choice["slope"] * (-1 if falls else 1), choice["intercept"]
        if choice["voi"] == "table":
            # a table has whole numbers for inputs, from -32768 on
            slope = -1 if falls else 1
            intercept = choice["intercept"] - (slope * high if falls else slope * low)
        attributes |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    elif choice["modality"] == "table":
        attributes["ModalityLUTSequence"] = table(-offset, 16, np.linspace(0, 65535, levels + 1))
        attributes["ModalityLUTSequence"][0].ModalityLUTType = "US"
        low, high = 0, 65535
    if choice["voi"] == "table":
        maximum = 2 ** choice["table_bits"] - 1
        attributes["VOILUTSequence"] = table(
            int(low), choice["table_bits"], np.linspace(0, maximum, int(high - low) + 1)
        )
    elif choice["voi"] == "LINEAR":
        attributes |= {"WindowCenter": (low + high) / 2 + 0.5, "WindowWidth": high - low + 1}
    else:
        attributes |= {"WindowCenter": (low + high) / 2, "WindowWidth": high - low, "VOILUTFunction": "LINEAR_EXACT"}
    if choice["shape"]:
        attributes["PresentationLUTShape"] = "INVERSE" if inverted else "IDENTITY"
    dataset = phantoms.cr(stored, bits_stored=bits, photometric_interpretation=choice["photometric"], **attributes)
    if choice["left_aligned"]:
        pattern = stored.view(np.uint16) & levels
        dataset.HighBit = 15
        dataset.PixelData = (pattern << (16 - bits)).astype("<u2").tobytes()
    return dataset


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(legal_encodings())
def test_the_same_picture_in_any_legal_encoding_shows_the_same(choice):
    dataset = build(choice)
    uid = choice["uid"]
    if choice["left_aligned"] and uid not in [str(native) for native in encodings.encodable_transfer_syntaxes()[:4]]:
        uid = "1.2.840.10008.1.2.1"  # a codestream holds right-aligned samples
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.dcm"
        encodings.encode(dataset, uid).save_as(file, enforce_file_format=True)
        image = read_pixels(read_header(file))
    result = render(image, RenderRule.AUTO)
    assert result.notes == ()
    assert np.abs(result.display_values.astype(int) - EXPECTED).max() <= 1
