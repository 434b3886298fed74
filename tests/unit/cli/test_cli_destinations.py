"""`scp-node destinations`: what a person sees of an outage, and what a person can do."""

import json
import socket

import pytest
import sqlalchemy as sa

from config.destinations import DeliverySettings
from scp_node.cli.destinations import _WORDS
from scp_node.cli.main import main
from scp_node.jobs import database
from scp_node.jobs.breaker import Breakers
from scp_node.jobs.migrations import migrate
from scp_node.jobs.tables import breaker


@pytest.fixture
def engine(monkeypatch, tmp_path, restore_logging):
    """The database of a node with a share that works and a PACS that is down."""
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("SCP_NODE__DATABASE__URL", url)
    destinations = [
        {"kind": "folder", "name": "share", "folder": str(tmp_path / "share")},
        {"kind": "dicom", "name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_s": 2},
    ]
    monkeypatch.setenv("SCP_NODE__DESTINATIONS", json.dumps(destinations))
    monkeypatch.chdir(tmp_path)
    engine = database.open_engine(url)
    migrate(engine)
    breakers = Breakers(DeliverySettings())
    with database.write(engine) as connection:
        for instance_id in (1, 2, 3):
            breakers.failed(connection, "pacs", instance_id, "connection \x1b[31mrefused", is_reached=False)
    yield engine
    engine.dispose()


def _lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_destination_with_its_state(engine, capsys):
    assert main(["destinations", "--json"]) == 0
    share, pacs = _lines(capsys)
    assert (share["name"], share["state"], share["since"], share["waiting"]) == ("share", "closed", None, 0)
    assert (pacs["name"], pacs["state"], pacs["failures"]) == ("pacs", "open", 3)
    assert pacs["next_probe_at"] is not None
    assert "echo" not in pacs


def test_a_table_for_people_without_control_characters(engine, capsys):
    assert main(["destinations"]) == 0
    out = capsys.readouterr().out
    assert "down" in out
    assert "up" in out
    assert "\x1b" not in out


def test_the_help_says_what_the_states_of_the_json_are_called_in_the_table(capsys):
    with pytest.raises(SystemExit):
        main(["destinations", "--help"])
    text = capsys.readouterr().out
    for value, word in _WORDS.items():
        assert f"{value} ({word})" in text


def test_echo_asks_each_and_says_so_in_the_exit_code(engine, capsys):
    assert main(["destinations", "--echo", "--json"]) == 1
    share, pacs = _lines(capsys)
    assert share["echo"]["is_reachable"]
    assert not pacs["echo"]["is_reachable"]
    assert "connection refused" in pacs["echo"]["detail"]
    assert main(["destinations", "--echo"]) == 1
    out = capsys.readouterr().out
    assert "C-ECHO now" in out
    assert "can be written" in out


def test_resume_closes_the_breaker_for_a_running_node_to_see(engine, capsys):
    assert main(["destinations", "resume", "pacs"]) == 0
    assert "pacs: 0 waiting deliveries are attempted now" in capsys.readouterr().out
    with engine.connect() as connection:
        row = connection.execute(sa.select(breaker)).one()
    assert (row.state, row.is_resuming, row.epoch, row.next_probe_at) == ("closed", True, 1, None)


def test_only_what_is_configured_can_be_resumed(engine, capsys):
    assert main(["destinations", "resume", "nobody"]) == 2
    assert "no destination 'nobody' is configured" in capsys.readouterr().err
