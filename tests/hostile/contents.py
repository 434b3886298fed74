"""Sound objects that are not to be judged, and pictures in which nothing can be seen."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset, dcmread
from pydicom.data import get_testdata_file

from scp_node.demo import phantoms
from scp_node.demo.sources import SOURCES
from tests.hostile.cases import DELIVERED, Case, Expected, not_eligible
from tests.hostile.parts import COLUMNS, ROWS, data_set, picture, radiograph

_POOR = not_eligible("poor_quality")


def _case(name: str, dataset: FileDataset, expected: Expected) -> Case:
    return Case(
        name=name,
        content=data_set(dataset),
        expected=expected,
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
        sop_class=str(dataset.SOPClassUID),
        instance=str(dataset.SOPInstanceUID),
    )


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _pictures()
    yield from _attributes()
    yield from _kinds()
    yield from _real()


def _pictures() -> Iterator[Case]:
    random = np.random.default_rng(5)
    shape = (ROWS, COLUMNS)
    half = picture().astype(np.uint16) * 16
    half[ROWS // 2 :] = 2048
    striped = np.repeat(picture()[::24].astype(np.uint16) * 16, 24, axis=0)
    pictures: dict[str, tuple[NDArray[Any], Expected]] = {
        "black": (np.zeros(shape, np.uint16), _POOR),
        "white": (np.full(shape, 4095, np.uint16), _POOR),
        "grey": (np.full(shape, 2048, np.uint16), _POOR),
        "black and white": (np.where(random.random(shape) < 0.5, 0, 4095).astype(np.uint16), _POOR),
        "noise": (random.integers(0, 4096, shape).astype(np.uint16), _POOR),
        "half of it one grey": (half, _POOR),
        "each row repeated": (striped, _POOR),
        "16 x 16 pixels": (picture()[64:80, 64:80].astype(np.uint16) * 16, _POOR),
        "1 x 1 pixel": (np.full((1, 1), 7, np.uint16), _POOR),
        "one row": (picture()[64:65].astype(np.uint16) * 16, _POOR),
        "40 x 2000 pixels": (phantoms.chest_array(40, 2000, 12), DELIVERED),
        "a faint picture": (picture().astype(np.uint16) // 8 + 2000, DELIVERED),
    }
    for what, (stored, expected) in pictures.items():
        name = f"picture/{what}"
        options = {"WindowCenter": None, "WindowWidth": None} if what == "a faint picture" else {}
        yield _case(name, radiograph(name, stored, **options), expected)


def _attributes() -> Iterator[Case]:
    table: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("a lateral view", "lateral", {"ViewPosition": "LL"}),
        ("an oblique view", "lateral", {"ViewPosition": "RAO"}),
        ("a decubitus view", "lateral", {"ViewPosition": "LLD"}),
        ("a lateral orientation", "lateral", {"PatientOrientation": ["A", "F"], "ViewPosition": None}),
        ("upside down", "not_upright", {"PatientOrientation": ["R", "H"]}),
        ("on its side", "not_upright", {"PatientOrientation": ["F", "R"]}),
        ("a hand", "not_chest", {"BodyPartExamined": "HAND"}),
        ("a knee", "not_chest", {"BodyPartExamined": "KNEE"}),
        ("an abdomen", "not_chest", {"BodyPartExamined": "ABDOMEN"}),
        ("a thoracic spine", "not_chest", {"BodyPartExamined": "TSPINE"}),
        ("a phantom", "not_chest", {"BodyPartExamined": "PHANTOM"}),
        ("a CT by its modality", "unsupported_class", {"Modality": "CT"}),
        ("a mammogram by its modality", "unsupported_class", {"Modality": "MG"}),
        ("a modality of garbage", "unsupported_class", {"Modality": "\x1b[2J"}),
        ("raw data by its intent", "for_processing", {"PresentationIntentType": "FOR PROCESSING"}),
    )
    for what, reason, attributes in table:
        name = f"content/{what}"
        yield _case(name, radiograph(name, **attributes), not_eligible(reason))


def _kinds() -> Iterator[Case]:
    def uid_of(name: str) -> dict[str, str]:
        return {"identity": f"hostile-{name}", "SOPInstanceUID": phantoms.uid("hostile", name, "instance")}

    name = "content/raw data by its class"
    yield _case(
        name, phantoms.dx_for_processing(rows=ROWS, columns=COLUMNS, **uid_of(name)), not_eligible("for_processing")
    )
    name = "content/a DX image"
    yield _case(name, phantoms.dx(rows=ROWS, columns=COLUMNS, **uid_of(name)), DELIVERED)
    name = "content/a photograph"
    colour = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    colour[..., 0] = picture()
    yield _case(
        name,
        phantoms.secondary_capture(colour, photometric_interpretation="RGB", **uid_of(name)),
        not_eligible("unsupported_pixels"),
    )
    name = "content/a screenshot"
    yield _case(
        name,
        phantoms.secondary_capture(rows=ROWS, columns=COLUMNS, modality="OT", **uid_of(name)),
        not_eligible("unsupported_class"),
    )
    name = "content/a report"
    report = radiograph(name)
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.Modality = "SR"
    del report.PixelData
    yield _case(name, report, not_eligible("unsupported_class"))
    name = "content/a multi-frame capture"
    frames = phantoms.secondary_capture(rows=ROWS, columns=COLUMNS, **uid_of(name))
    frames.SOPClassUID = frames.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7.2"
    frames.NumberOfFrames = 3
    frames.PixelData = frames.PixelData * 3
    yield _case(name, frames, not_eligible("unsupported_pixels"))
    name = "content/what calls itself a result of this node"
    own = phantoms.secondary_capture(rows=ROWS, columns=COLUMNS, modality="CR", **uid_of(name))
    own.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    # By Image Type alone nothing is dropped: many devices send derived images.
    yield _case(name, own, DELIVERED)
    for source, make in SOURCES.items():
        dataset = make()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = phantoms.uid(
            "hostile", f"source/{source}", "instance"
        )
        yield _case(f"source/{source}", dataset, DELIVERED)


def _real() -> Iterator[Case]:
    """One real chest radiograph, whole and damaged, and a real extremity; from the package pydicom-data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file, what, expected in (
            ("RG1_UNCR.dcm", "chest", DELIVERED),
            ("RG1_J2KR.dcm", "chest in JPEG 2000", DELIVERED),
            ("RG3_UNCR.dcm", "extremity", not_eligible("not_chest")),
        ):
            name = f"real/{what}"
            dataset = dcmread(Path(str(get_testdata_file(file))))
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = phantoms.uid(
                "hostile", name, "instance"
            )
            case = _case(name, dataset, expected)
            yield case
            if what == "chest":
                name = "real/chest cut off"
                dataset.SOPInstanceUID = phantoms.uid("hostile", name, "instance")
                dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
                cut = _case(name, dataset, Expected(state="dead_letter", reason="unreadable"))
                assert cut.content is not None
                yield Case(
                    name=name,
                    content=cut.content[: len(cut.content) // 2],
                    expected=cut.expected,
                    transfer_syntax=cut.transfer_syntax,
                    sop_class=cut.sop_class,
                    instance=cut.instance,
                )
