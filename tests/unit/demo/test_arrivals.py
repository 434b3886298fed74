"""What came back is read from the objects' bytes: the numbers of real reports, and whose they are."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from config.results import ResultSettings
from inference.records import (
    Analysis,
    ChestImage,
    FileFormat,
    Prediction,
    RenderRule,
    SourceHeader,
    Window,
    WindowSource,
)
from scp_node.demo.arrivals import read, save_preview, statements
from scp_node.demo.pacs import StoredObject
from scp_node.demo.phantoms import chest_array, cr
from scp_node.records import ResultKind
from scp_node.results.case import ResultObject
from scp_node.results.catalog import build_results


def prediction(model: str, probability: float) -> Prediction:
    return Prediction(
        model=model,
        title=model.title(),
        version="1.2.3",
        weights_sha256="ab" * 32,
        target_layer="layer4",
        preprocessing="auto",
        calibration="platt;slope=1.0;intercept=0.0",
        probability=probability,
        threshold=0.25,
        saliency=np.eye(7, dtype=np.float32),
    )


@pytest.fixture
def results(tmp_path) -> dict[ResultKind, tuple[StoredObject, pydicom.Dataset]]:
    """The result objects of one analysis as a PACS holds them, and their source."""
    source = cr(rows=256, columns=224)
    file = tmp_path / "source.dcm"
    source.save_as(file, enforce_file_format=True)
    header = SourceHeader(
        name="source", file=file, file_format=FileFormat.DICOM, dataset=pydicom.dcmread(file, stop_before_pixels=True)
    )
    window = Window(source=WindowSource.WINDOW_ATTRIBUTES, center=2048, width=4096, function="LINEAR")
    values = (chest_array(256, 224) >> 4).astype(np.uint8)
    analysis = Analysis(
        header=header,
        image=ChestImage(display_values=values, rule=RenderRule.AUTO, window=window, is_inverted=False),
        predictions=(prediction("resnet18", 0.8734), prediction("densenet121", 0.1)),
        duration_s=1.0,
    )
    built = build_results(analysis, ResultSettings(), made_at=datetime.now(UTC))
    return {result.kind: (stored(result, tmp_path), source) for result in reversed(built)}


def stored(result: ResultObject, folder: Path) -> StoredObject:
    file = folder / f"{result.kind.value}-{result.rank}-{result.model}.dcm"
    result.dataset.save_as(file, enforce_file_format=True)
    return StoredObject(
        file=file,
        sop_class_uid=str(result.dataset.SOPClassUID),
        sop_instance_uid=str(result.dataset.SOPInstanceUID),
        transfer_syntax_uid=str(result.dataset.file_meta.TransferSyntaxUID),
        calling_ae_title="SCP_NODE",
        size_bytes=file.stat().st_size,
        stored_at=datetime.now(UTC),
    )


def test_every_kind_of_result_belongs_to_its_source(results):
    assert set(results) == set(ResultKind)
    for kind, (object_, source) in results.items():
        arrival, _ = read(object_, source)
        assert arrival.belongs, kind
        assert arrival.is_secondary_capture is (kind in (ResultKind.MONTAGE, ResultKind.SINGLE))
        assert arrival.is_report is (kind in (ResultKind.MEASUREMENT_REPORT, ResultKind.TEXT_SUMMARY))


def test_no_result_belongs_to_another_source(results):
    other = cr(rows=64, columns=64, seed=1)
    for object_, _ in results.values():
        assert not read(object_, other)[0].belongs


def test_the_measurement_report_says_what_the_models_said(results):
    object_, source = results[ResultKind.MEASUREMENT_REPORT]
    said = statements(read(object_, source)[1])
    assert [s.model for s in said] == ["Resnet18", "Densenet121"]
    assert [s.version for s in said] == ["1.2.3", "1.2.3"]
    assert [s.probability for s in said] == pytest.approx([0.8734, 0.1], abs=1e-6)
    assert [s.threshold for s in said] == pytest.approx([0.25, 0.25])
    assert [s.is_positive for s in said] == [True, False]


def test_other_objects_state_nothing(results):
    for kind in (ResultKind.TEXT_SUMMARY, ResultKind.MONTAGE):
        object_, source = results[kind]
        assert statements(read(object_, source)[1]) == ()


def test_labels_are_names_for_files_and_previews_are_pictures(results, tmp_path):
    object_, source = results[ResultKind.MONTAGE]
    arrival, dataset = read(object_, source)
    assert arrival.label == "9001-1-secondary-capture"
    save_preview(dataset, tmp_path / "preview.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "preview.png")), dataset.pixel_array)
