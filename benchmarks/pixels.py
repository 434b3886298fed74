"""From a file to model inputs: the node's way against pydicom's own functions with Pillow; 3000 x 3000, 16 bits."""

from pathlib import Path

from benchmarks.contest import Contestant

TITLE = "Pixels: file to display values and 224 x 224 input"
PEER = "pydicom and Pillow"
CONTESTANTS = (
    Contestant(title=PEER, factory="benchmarks.pixels:pydicom_and_pillow", is_reference=True),
    Contestant(title="scp-node", factory="benchmarks.pixels:node"),
)
ENCODINGS = {
    "uncompressed": "1.2.840.10008.1.2.1",
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "RLE": "1.2.840.10008.1.2.5",
}


def node(file: str):
    import cv2

    from config.analysis import AnalysisSettings
    from inference.cores import threads_for_pictures
    from inference.imaging.render import render
    from inference.imaging.source import read_header, read_pixels
    from inference.models.preprocess import InputSpec, to_model_input
    from inference.records import RenderRule

    # As in a child process.
    cv2.setNumThreads(1)
    threads = threads_for_pictures(AnalysisSettings())

    def run():
        image = render(read_pixels(read_header(Path(file)), threads=threads), RenderRule.AUTO)
        return to_model_input(image.display_values, InputSpec())

    return run


def pydicom_and_pillow(file: str):
    """As tutorials do it: Modality LUT and VOI in floating point, inversion, 8 bits, Pillow's antialiased resize."""
    import numpy as np
    from PIL import Image
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    def run():
        dataset = dcmread(file)
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float64)
        low, high = values.min(), values.max()
        values = (values - low) / (high - low)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = 1 - values
        picture = Image.fromarray((values * 255).astype(np.uint8)).resize((224, 224), Image.Resampling.BILINEAR)
        scaled = (np.asarray(picture, dtype=np.float32) / 255 - 0.5) / 0.25
        return np.stack([scaled] * 3)

    return run
