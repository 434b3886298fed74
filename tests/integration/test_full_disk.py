"""A disk that is really full, database and all: nothing acknowledged is lost, and it goes on by itself."""

import errno
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from config.analysis import AnalysisSettings
from config.destinations import DeliverySettings, FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.jobs import database, tables
from scp_node.jobs.node import Node
from scp_node.jobs.reading import Reader
from scp_node.jobs.roles import Role
from scp_node.records import InstanceState

pytestmark = pytest.mark.integration

OUT_OF_RESOURCES = 0xA700
LIMIT_S = 240


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no program `mount`")
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root, and a container that allows it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room that there is, to the last byte."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        size = 2**16
        while size:
            try:
                file.write(b"\0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                size //= 2
    return ballast


class Sender:
    """One association that goes on; counts the answers."""

    def __init__(self, port):
        entity = AE(ae_title="CR1")
        entity.add_requested_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 120
        self.association = entity.associate("127.0.0.1", port, ae_title="SCP_NODE")
        assert self.association.is_established
        self.acknowledged, self.statuses, self.count = [], Counter(), 0

    def store(self):
        self.count += 1
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, f"1.2.3.{self.count}"
        dataset.BitsAllocated, dataset.PixelData = 16, os.urandom(200_000)
        dataset.file_meta = Dataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        status = self.association.send_c_store(dataset).Status
        self.statuses[status] += 1
        if status == 0:
            self.acknowledged.append(str(dataset.SOPInstanceUID))
        return status


def wait_until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


def test_a_full_disk_loses_nothing_and_recovers_by_itself(small_disk, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("scp_node.jobs.analysis._FULL_DISK_DELAY_S", 0.5)
    share = tmp_path / "share"
    settings = NodeSettings(
        receiver={"acse_timeout_s": 30},
        spool=SpoolSettings(folder=small_disk / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{small_disk / 'node.sqlite'}"),
        analysis=AnalysisSettings(models=("resnet18",)),
        delivery=DeliverySettings(first_delay_s=0.5, maximum_delay_s=1.0),
        destinations=(FolderDestination(kind="folder", name="share", folder=share),),
    )

    def states():
        with Reader(settings) as reader:
            return {record.sop_instance_uid: record.state for record in reader.list_instances()}

    node = Node(settings, roles=[Role.RECEIVER, Role.WORKER], receiver_port=0, analyser="full_disk_child:open_analyser")
    with node:
        sender = Sender(node.port)
        for _ in range(3):
            assert sender.store() == 0
        # Not one byte left, in the middle of receiving, analysing and writing results; then room for a few, twice.
        for _ in range(2):
            ballast = fill(small_disk)
            assert [sender.store() for _ in range(3)] == [OUT_OF_RESOURCES] * 3
            os.truncate(ballast, max(0, ballast.stat().st_size - 700_000))
            for _ in range(6):
                sender.store()
        fill(small_disk)
        sender.store()
        assert set(sender.statuses) == {0, OUT_OF_RESOURCES}
        ballast.unlink()
        # Nobody does anything: what was acknowledged is analysed and delivered, and new objects are taken again.
        wait_until(lambda: sender.store() == 0)
        wait_until(lambda: set(states().values()) == {InstanceState.DELIVERED})
        sender.association.release()
    assert set(states()) == set(sender.acknowledged)
    delivered = {file.name for file in share.iterdir()}
    assert delivered == {f"{uid}.{number}.dcm" for uid in sender.acknowledged for number in (1, 2)}

    # What was refused left nothing behind.
    assert list((small_disk / "spool" / "incoming").iterdir()) == []
    engine = database.open_engine(settings.database.url)
    with engine.connect() as connection:
        named = set(connection.execute(sa.select(tables.instance.c.file)).scalars())
    engine.dispose()
    spool = settings.spool.folder
    assert {path.relative_to(spool).as_posix() for path in (spool / "objects").rglob("*.dcm")} == named
