"""Display values against `dcm2pnm` of DCMTK, which implements PS3.4 N.2 too: at most one grey level apart."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.sequence import Sequence

from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.records import RenderRule
from scp_node.demo import phantoms

pytestmark = [
    pytest.mark.conformance,
    pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="DCMTK is not installed"),
]


def table(first, bits, entries):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) & 0xFFFF, first & 0xFFFF, bits])
    item.add_new("LUTData", "OW", np.asarray(np.rint(entries), "<u2").tobytes())
    return Sequence([item])


def modality_table(bits):
    sequence = table(0, bits, np.linspace(0, 1, 4096) ** 0.5 * (2**bits - 1))
    sequence[0].ModalityLUTType = "US"
    return sequence


SQUARE = np.linspace(0, 1, 4096) ** 2
SIGNED = phantoms.chest_array(256, 224, 12).astype(np.int16) - 2048

CASES = {
    "cr": phantoms.cr(),
    "dx": phantoms.dx(),
    "monochrome2": phantoms.cr(photometric_interpretation="MONOCHROME2"),
    "monochrome1 with shape": phantoms.cr(PresentationLUTShape="INVERSE"),
    "negative slope": phantoms.cr(RescaleSlope=-1, RescaleIntercept=4095),
    "fractional slope": phantoms.cr(RescaleSlope="0.37", RescaleIntercept=-12, WindowCenter=700, WindowWidth=1200),
    "signed": phantoms.cr(SIGNED, WindowCenter=-100, WindowWidth=3000),
    "linear exact": phantoms.cr(WindowCenter=1800, WindowWidth=2500, VOILUTFunction="LINEAR_EXACT"),
    "sigmoid": phantoms.cr(WindowCenter=1800, WindowWidth=2500, VOILUTFunction="SIGMOID"),
    "voi lut 8": phantoms.cr(VOILUTSequence=table(0, 8, SQUARE * 255)),
    "voi lut 12": phantoms.cr(VOILUTSequence=table(0, 12, SQUARE * 4095)),
    "voi lut 16": phantoms.cr(VOILUTSequence=table(0, 16, SQUARE * 65535)),
    "voi lut elsewhere": phantoms.cr(VOILUTSequence=table(900, 10, np.linspace(0, 1023, 1500))),
    "modality lut 8": phantoms.cr(ModalityLUTSequence=modality_table(8), WindowCenter=120, WindowWidth=200),
    "modality lut 12": phantoms.cr(ModalityLUTSequence=modality_table(12), WindowCenter=2000, WindowWidth=3000),
    "modality lut 16": phantoms.cr(ModalityLUTSequence=modality_table(16), WindowCenter=30000, WindowWidth=60000),
    "secondary capture": phantoms.secondary_capture(),
}
FILES = ["RG1_UNCR.dcm", "RG3_UNCR.dcm"]


def dcmtk(file, folder):
    dataset = read_header(file).dataset
    window = ["+Wl", "1"] if "VOILUTSequence" in dataset else ["+Wi", "1"] if "WindowCenter" in dataset else []
    output = folder / "dcmtk.pgm"
    subprocess.run(["dcm2pnm", *window, str(file), str(output)], check=True, capture_output=True)
    with Image.open(output) as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.parametrize("name", CASES)
def test_phantoms_are_shown_as_dcmtk_shows_them(name, store, tmp_path):
    file = store(CASES[name])
    ours = render(read_pixels(read_header(file)), RenderRule.AUTO)
    assert ours.notes == ()
    assert np.ptp(ours.display_values) > 100
    assert np.abs(ours.display_values - dcmtk(file, tmp_path)).max() <= 1


@pytest.mark.parametrize("name", FILES)
def test_real_radiographs_are_shown_as_dcmtk_shows_them(name, tmp_path):
    file = Path(get_testdata_file(name))
    ours = render(read_pixels(read_header(file)), RenderRule.AUTO).display_values
    assert np.abs(ours - dcmtk(file, tmp_path)).max() <= 1
