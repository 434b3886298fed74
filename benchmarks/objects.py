"""All results of one analysis, drawn and encoded: the node's way against examples with `grad-cam` and highdicom."""

from io import BytesIO

from benchmarks.contest import Contestant

TITLE = "Results: four pictures and reports of one analysis, drawn and encoded, 1955 x 1841"
PEER = "grad-cam and highdicom"
CONTESTANTS = (
    Contestant(title=PEER, factory="benchmarks.objects:example", is_reference=True),
    Contestant(title="scp-node", factory="benchmarks.objects:node"),
    Contestant(title="scp-node, JPEG pictures", factory="benchmarks.objects:node", arguments={"syntax": "jpeg"}),
)
_TITLES = ("ResNet18", "EfficientNet-B0", "DenseNet121")


def analysis():
    """The chest radiograph of pydicom-data with what three models might say of it."""
    from pathlib import Path

    import numpy as np
    from pydicom.data import get_testdata_file

    from inference.imaging.render import render
    from inference.imaging.source import read_header, read_pixels
    from inference.records import Analysis, Prediction, RenderRule

    header = read_header(Path(get_testdata_file("RG1_UNCR.dcm")))
    rng = np.random.default_rng(4)
    maps = [rng.random((7, 7)).astype(np.float32) for _ in _TITLES]
    predictions = tuple(
        Prediction(
            model=title.lower().replace("-", "_"),
            title=title,
            version="1.0.0",
            weights_sha256="a" * 64,
            target_layer="features",
            preprocessing="auto;224x224;mean=0.5;std=0.25",
            calibration="platt;slope=1.0;intercept=-1.5",
            probability=0.2 + 0.2 * number,
            threshold=0.25,
            saliency=saliency / saliency.max(),
        )
        for number, (title, saliency) in enumerate(zip(_TITLES, maps, strict=True))
    )
    image = render(read_pixels(header), RenderRule.AUTO)
    return Analysis(header=header, image=image, predictions=predictions, duration_s=1.0)


def node(syntax: str = "explicit"):
    from datetime import UTC, datetime

    import cv2

    from config.results import ResultSettings
    from scp_node.results.catalog import build_results

    # As in a child process.
    cv2.setNumThreads(1)
    settings = ResultSettings.model_validate({"secondary_capture": {"transfer_syntax": syntax}})
    subject, now = analysis(), datetime.now(UTC)
    return lambda: [made.parts() for made in build_results(subject, settings, made_at=now)]


def example():
    import cv2
    import numpy as np

    from benchmarks.examples import results

    cv2.setNumThreads(1)
    subject = analysis()
    source = subject.header.dataset
    values = subject.image.display_values.astype(np.float64) / 255
    found = [(one.title, one.probability, one.saliency) for one in subject.predictions]

    def run():
        for dataset in results(source, values, found):
            dataset.save_as(BytesIO(), enforce_file_format=True)

    return run
