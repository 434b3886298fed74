"""A real PACS forwards radiographs with its own C-STORE SCU; the results land in the same study, once."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from config.analysis import AnalysisSettings
from config.destinations import DicomDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.jobs.node import Node
from tests.faults.orthanc import Orthanc, is_installed, wait_for

pytestmark = pytest.mark.integration

SR_COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
SR_BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[tuple[Orthanc, Node]]:
    """An Orthanc and a node that know each other."""
    if not is_installed():
        if os.environ.get("CI"):
            pytest.fail("Orthanc is not installed")
        pytest.skip("Orthanc is not installed (apt-get install orthanc)")
    folder = tmp_path_factory.mktemp("orthanc")
    node_port = free_port()
    orthanc = Orthanc(folder, dicom_port=free_port(), http_port=free_port(), node_port=node_port)
    settings = NodeSettings(
        receiver={"port": node_port, "acse_timeout_s": 30},
        spool=SpoolSettings(folder=folder / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{folder / 'node.sqlite'}"),
        analysis=AnalysisSettings(),
        destinations=(DicomDestination(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=orthanc.dicom_port),),
    )
    node = Node(settings)
    node.start()
    try:
        yield orthanc, node
    finally:
        node.stop()
        orthanc.stop()


def sop_class_of(orthanc: Orthanc, instance: str) -> str:
    return str(orthanc.raw(f"/instances/{instance}/metadata/SopClassUid").decode())


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_J2KR.dcm"])
def test_results_of_a_forwarded_radiograph_land_in_its_study(
    pair: tuple[Orthanc, Node], name: str, tmp_path: Path
) -> None:
    orthanc, _ = pair
    source = orthanc.post("/instances", Path(get_testdata_file(name)).read_bytes())
    known = set(orthanc.get("/instances"))
    orthanc.post("/modalities/node/store", json.dumps({"Resources": [source["ID"]]}).encode())

    def results() -> list[str]:
        new = [i for i in orthanc.get("/instances") if i not in known]
        return new if len(new) >= 6 else []

    new = wait_for("six results in Orthanc", results)
    classes = sorted(sop_class_of(orthanc, i) for i in new)
    assert classes == sorted([SECONDARY_CAPTURE] * 4 + [SR_COMPREHENSIVE_3D, SR_BASIC_TEXT])
    assert len(orthanc.get("/studies")) == 1, "results must not open a second study"
    assert len(orthanc.get("/patients")) == 1

    uid = orthanc.get(f"/instances/{source['ID']}/simplified-tags")["SOPInstanceUID"]
    for instance in new:
        tags = orthanc.get(f"/instances/{instance}/simplified-tags")
        assert tags["PatientID"] == "9RG1"
        assert tags["AccessionNumber"] == "exam Number"
        assert uid in json.dumps(tags), "every result refers to its source"
        if sop_class_of(orthanc, instance) == SECONDARY_CAPTURE:
            picture = cv2.imdecode(
                np.frombuffer(orthanc.raw(f"/instances/{instance}/preview"), dtype=np.uint8), cv2.IMREAD_COLOR
            )
            assert picture is not None
            assert picture.std() > 20, "Orthanc renders an empty picture"
            if folder := os.environ.get("SCP_NODE_TEST_PICTURES"):
                cv2.imwrite(str(Path(folder) / f"orthanc-{name}-{tags['InstanceNumber']}.png"), picture)


def test_the_same_radiograph_again_adds_nothing(pair: tuple[Orthanc, Node]) -> None:
    orthanc, _ = pair
    before = sorted(orthanc.get("/instances"))
    source = orthanc.post("/instances", Path(get_testdata_file("RG1_UNCR.dcm")).read_bytes())
    orthanc.post("/modalities/node/store", json.dumps({"Resources": [source["ID"]]}).encode())
    time.sleep(3)  # nothing must happen: there is no condition to wait for
    assert sorted(orthanc.get("/instances")) == before


def test_a_pacs_that_forwards_everything_makes_no_loop(pair: tuple[Orthanc, Node]) -> None:
    """Results sent back to the node are acknowledged and dropped."""
    orthanc, _ = pair
    before = sorted(orthanc.get("/instances"))
    assert len(before) >= 7, "the results of the first test are there"
    orthanc.post("/modalities/node/store", json.dumps({"Resources": before, "Synchronous": True}).encode())
    time.sleep(3)  # as above
    assert sorted(orthanc.get("/instances")) == before
