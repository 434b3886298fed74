"""What a process does is what its roles say, and nothing else."""

import argparse
import socket

import dbos._dbos
import pytest

from config.analysis import AnalysisSettings
from config.destinations import FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.cli import serve
from scp_node.errors import StartError
from scp_node.jobs import roles
from scp_node.jobs.delivering import DeliveryWork
from scp_node.jobs.lease import LeaseLostError
from scp_node.jobs.node import Node
from scp_node.jobs.roles import Role, installed_roles
from scp_node.records import DeliveryState


@pytest.fixture
def settings(tmp_path):
    """Of a node whose checkpoints are missing: only a worker minds."""
    return NodeSettings(
        spool=SpoolSettings(folder=tmp_path / "spool", minimum_free_bytes=0),
        database=DatabaseSettings(url=f"sqlite:///{tmp_path / 'node.sqlite'}"),
        analysis=AnalysisSettings(checkpoints=tmp_path / "none"),
    )


def test_a_receiver_never_launches_the_durable_engine_and_needs_no_model(settings):
    with Node(settings, roles=[Role.RECEIVER], receiver_port=0) as node:
        assert node.port > 0
        assert node.wait_ready(0)
        assert node.child_processes == ()
        assert dbos._dbos._dbos_global_instance is None


def test_a_worker_does_not_listen(settings):
    with pytest.raises(StartError, match="none"):
        Node(settings, roles=[Role.WORKER]).start()
    assert dbos._dbos._dbos_global_instance is None, "what had begun was stopped again"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_that_is_taken_is_named(settings, processes):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = settings.receiver.model_copy(update={"port": port, "processes": processes})
        with pytest.raises(StartError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use$"):
            Node(settings.model_copy(update={"receiver": taken}), roles=[Role.RECEIVER]).start()


def test_a_role_without_its_program_is_refused_in_a_sentence(settings, monkeypatch):
    monkeypatch.setitem(roles._PARTS, Role.CONSOLE, ("scp_node.not_there.part", "Console"))
    assert Role.CONSOLE not in installed_roles()
    with pytest.raises(StartError, match="there is no console in this installation"):
        Node(settings, roles=[Role.CONSOLE]).start()


def test_the_command_line_knows_the_roles_without_importing_them():
    assert set(serve._ROLES) == {role.value for role in Role}
    parser = argparse.ArgumentParser()
    serve.add_parser(parser.add_subparsers())
    args = parser.parse_args(["serve", "--role", "receiver", "--role", "console"])
    assert args.role == ["receiver", "console"]
    with pytest.raises(SystemExit):
        parser.parse_args(["serve", "--role", "radiologist"])


def test_a_delivery_that_others_may_have_by_now_sends_no_further_object(results, tmp_path):
    """As after a pause: what was confirmed is remembered first, the rest is left to whoever has the job now."""
    share = FolderDestination(kind="folder", name="share", folder=tmp_path / "share")
    results.destinations = (share,)
    uids = results.add(1, "share", sop_classes=("1.2.840.10008.5.1.4.1.1.7",) * 3)
    row = results.row(1, "share")
    share.folder.mkdir()

    def sent():
        return sorted(file.name.removesuffix(".dcm") for file in share.folder.iterdir())

    def fence():
        def check():
            if sent():
                raise LeaseLostError

        return check

    work = DeliveryWork(
        results.engine,
        results.jobs,
        results.spool,
        destinations=results.destinations,
        settings=results.settings,
        calling_ae_title="NODE",
        fence=fence,
    )
    with pytest.raises(LeaseLostError):
        work.run(row.instance_id, "share", row.job_id)
    assert sent() == uids[:1]
    assert list(results.words(1, "share")) == uids[:1]
    (share.folder / f"{uids[0]}.dcm").unlink()
    assert results.deliver(1, "share") == DeliveryState.DELIVERED
    assert sent() == uids[1:], "confirmed objects are not sent again"
