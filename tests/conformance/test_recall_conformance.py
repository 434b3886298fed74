"""A recall from end to end with real models: listed, superseded, sent to the same place, and nothing made twice."""

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from config.analysis import AnalysisSettings
from config.base import Priority
from config.destinations import DeliverySettings, FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from inference.engine import Engine
from inference.models.checkpoint import load_network, read_manifest, write_checkpoint
from scp_node.cli.main import main
from scp_node.errors import UnknownJobError
from scp_node.jobs import database, queues, tables
from scp_node.jobs.analyse import Analyser
from scp_node.jobs.analysis import AnalysisWork
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.intake import Filing
from scp_node.jobs.migrations import migrate
from scp_node.jobs.queues import Jobs
from scp_node.jobs.recall import ModelVersion, Recall, RecallError, Standing
from scp_node.jobs.removing import Removal, Remover
from scp_node.jobs.summary import to_json
from scp_node.records import DeliveryState, InstanceState, ReceivedInstance, ResultKind
from scp_node.spool.store import Spool

pytestmark = pytest.mark.conformance

MODELS = ("resnet18", "efficientnet_b0")
OLD = ModelVersion(model="resnet18", version="0.0.1")
SOURCE = Path(get_testdata_file("RG1_UNCR.dcm"))


class InThisProcess:
    """What a child process does, without the process."""

    def __init__(self, settings, spool):
        self.analyser = Analyser(Engine(settings.analysis), settings.results, spool)

    def run(self, request):
        replaces = tuple((ResultKind(kind), Path(file)) for kind, file in request["replaces"])
        return to_json(self.analyser.run(Path(request["file"]), request["name"], request["folder"], replaces))


class House:
    """A node with two versions of one model, a share, and jobs run by hand."""

    def __init__(self, folder, checkpoints):
        self.folder = folder
        self.share = FolderDestination(kind="folder", name="share", folder=folder / "share")
        self.before = self._settings(checkpoints)
        self.after = self._settings(self._newer(checkpoints, folder / "newer"))
        self.spool = Spool(self.before.spool)
        self.spool.create()
        self.engine = database.open_engine(self.before.database.url)
        migrate(self.engine)
        queues.migrate(self.before.database.url)
        self.jobs = Jobs(self.engine)
        self.pools = {name: InThisProcess(getattr(self, name), self.spool) for name in ("before", "after")}

    def _settings(self, checkpoints):
        return NodeSettings(
            spool=SpoolSettings(folder=self.folder / "spool", minimum_free_bytes=0),
            database=DatabaseSettings(url=f"sqlite:///{self.folder / 'node.sqlite'}"),
            analysis=AnalysisSettings(checkpoints=checkpoints, models=MODELS, threads=1, device="cpu"),
            destinations=(self.share,),
        )

    @staticmethod
    def _newer(checkpoints, folder):
        """The same checkpoints, resnet18 in a new version with other weights."""
        shutil.copytree(checkpoints, folder)
        manifest = read_manifest(folder / "resnet18")
        state = load_network(folder / "resnet18", manifest).state_dict()
        [*_, bias] = (key for key in state if key.endswith(".bias"))
        state[bias] = state[bias] + 1
        shutil.rmtree(folder / "resnet18")
        newer = replace(manifest, version="0.0.2", weights_sha256="")
        write_checkpoint(folder / "resnet18", state, newer, "float16")
        return folder

    def arrive(self):
        dataset = pydicom.dcmread(SOURCE)
        content = SOURCE.read_bytes()
        file = self.spool.open_incoming()
        file.write(content)
        file.close()
        filing = Filing(self.engine, self.jobs, self.spool, models=MODELS, destinations=("share",))
        filing.accept(
            ReceivedInstance(
                file=file.path,
                sop_class_uid=dataset.SOPClassUID,
                sop_instance_uid=dataset.SOPInstanceUID,
                transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
                sha256=file.sha256,
                size_bytes=len(content),
                calling_ae_title="CR1",
                called_ae_title="SCP_NODE",
                peer_address="127.0.0.1",
                priority=Priority.ROUTINE,
                received_at=datetime.now(UTC),
            )
        )
        return str(dataset.SOPInstanceUID)

    def work(self, version):
        return AnalysisWork(
            self.engine, self.jobs, self.pools[version], self.spool, models=MODELS, attempts=1, destinations=("share",)
        )

    def analyse(self, version):
        row = self.row(tables.instance)
        return self.work(version).run(row.id, row.job_id)

    def current_results(self):
        query = tables.result.select().where(tables.result.c.is_superseded.is_(False))
        with self.engine.connect() as connection:
            return {row.sop_instance_uid for row in connection.execute(query)}

    def deliver(self):
        work = DeliveryWork(
            self.engine,
            self.jobs,
            self.spool,
            destinations=(self.share,),
            settings=DeliverySettings(),
            calling_ae_title="NODE",
        )
        row = self.row(tables.delivery)
        return work.run(row.instance_id, "share", row.job_id)

    def row(self, table):
        with self.engine.connect() as connection:
            return connection.execute(table.select()).one()

    def shared(self):
        return {file.name: file.read_bytes() for file in self.share.folder.iterdir()}

    def reports(self, names):
        found = [pydicom.dcmread(self.share.folder / name) for name in names]
        return {one.SOPClassUID.name: one for one in found if one.Modality == "SR"}


@pytest.fixture
def house(tmp_path, random_checkpoints):
    made = House(tmp_path, random_checkpoints)
    yield made
    made.jobs.close()
    made.engine.dispose()


def check_what_is_found(recall, uid, names):
    """Listed by version and by weights, with what each destination took; nothing else is."""
    (found,) = recall.affected(OLD)
    assert (found.sop_instance_uid, found.standing) == (uid, Standing.REPLACEABLE)
    taken = {word.sop_instance_uid for word in found.acknowledgements if word.verdict == "confirmed"}
    assert {f"{one}.dcm" for one in taken} == set(names)
    assert list(recall.affected(ModelVersion(model="resnet18", version="9"))) == []
    assert list(recall.affected(ModelVersion(model="densenet121", version="0.0.1"))) == []
    by_weights = ModelVersion(model="resnet18", weights_sha256=found.weights_sha256[:8])
    assert [one.sop_instance_uid for one in recall.affected(by_weights)] == [uid]
    return found


def check_references(old, new):
    """Each new report names the one of its kind, in its series; the old ones name nothing."""
    assert set(old) == set(new) == {"Comprehensive 3D SR Storage", "Basic Text SR Storage"}
    for name, report in new.items():
        (study,) = report.PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        (reference,) = series.ReferencedSOPSequence
        assert study.StudyInstanceUID == report.StudyInstanceUID == old[name].StudyInstanceUID
        assert series.SeriesInstanceUID == old[name].SeriesInstanceUID
        assert reference.ReferencedSOPClassUID == old[name].SOPClassUID
        assert reference.ReferencedSOPInstanceUID == old[name].SOPInstanceUID
        assert "PredecessorDocumentsSequence" not in old[name]


def check_commands(house, capsys, monkeypatch):
    """Again, by the command: there is nothing left to replace."""
    monkeypatch.setenv("SCP_NODE__DATABASE__URL", house.after.database.url)
    monkeypatch.setenv("SCP_NODE__SPOOL__FOLDER", str(house.after.spool.folder))
    monkeypatch.setenv("SCP_NODE__ANALYSIS__CHECKPOINTS", str(house.after.analysis.checkpoints))
    settings = house.folder / "node.toml"
    settings.write_text('[analysis]\nmodels = ["resnet18", "efficientnet_b0"]\n')
    command = ["recall", "--config", str(settings), "--model", "resnet18", "--version"]
    capsys.readouterr()
    assert main([*command, "0.0.1", "--supersede", "--json"]) == 0
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (line["standing"], line["ordered"]) == ("replaced", False)
    assert main([*command, "0.0.2", "--supersede"]) == 1
    assert "still configured" in capsys.readouterr().err
    assert main([*command, "0.0.2"]) == 0
    assert "1 replaceable" in capsys.readouterr().out


def test_a_version_is_recalled_and_its_reports_are_replaced_once(house, capsys, monkeypatch):
    uid = house.arrive()
    assert house.analyse("before") == InstanceState.DELIVERING
    assert house.deliver() == DeliveryState.DELIVERED
    first = house.shared()
    # What is in use cannot replace itself.
    with Recall(house.before) as recall, pytest.raises(RecallError, match="still configured"):
        recall.require_other_checkpoints(OLD)

    with Recall(house.after) as recall:
        recall.require_other_checkpoints(OLD)
        found = check_what_is_found(recall, uid, first)
        file = house.spool.path(house.row(tables.instance).file)
        file.rename(file.with_suffix(".away"))
        assert [one.standing for one in recall.affected(OLD)] == [Standing.FILE_GONE]
        assert not recall.supersede(OLD, found)
        file.with_suffix(".away").rename(file)

        assert recall.supersede(OLD, found)
        assert not recall.supersede(OLD, found)
        assert [one.standing for one in recall.affected(OLD)] == [Standing.BUSY]
        # A node that was not restarted has the old weights in memory: visible, and to be retried.
        assert house.analyse("before") == InstanceState.DEAD_LETTER
        assert house.row(tables.instance).reason == "same_models"
        recall.retry(uid)

    # A crash in the middle: the job runs again from its beginning, and makes the same UIDs.
    interrupted = house.work("after")._ask(house.row(tables.instance))
    assert house.analyse("after") == InstanceState.DELIVERING
    assert {one.sop_instance_uid for one in interrupted.results} == house.current_results()
    assert house.deliver() == DeliveryState.DELIVERED
    second = house.shared()
    assert {name: second[name] for name in first} == first
    added = set(second) - set(first)
    check_references(house.reports(first), house.reports(added))
    check_commands(house, capsys, monkeypatch)
    assert house.row(tables.instance).state == InstanceState.DELIVERED
    assert house.deliver() == "stale"

    # What retention has removed is still listed.
    with database.write(house.engine) as connection:
        Remover.mark(connection, [1], Removal.RETENTION)
    assert Remover(house.engine, house.jobs, house.spool, MODELS).finish() == 1
    with Recall(house.after) as recall:
        (gone,) = recall.affected(OLD)
        assert (gone.standing, len(gone.acknowledgements)) == (Standing.REMOVED, len(found.acknowledgements))
        with pytest.raises(UnknownJobError):
            recall.supersede(OLD, gone)

    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (package dicom3tools): all but its check has passed")
    for name in added:
        file = house.share.folder / name
        done = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False, encoding="latin-1")
        assert not [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")], name
