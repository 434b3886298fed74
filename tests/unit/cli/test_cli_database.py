"""Commands on a database that is away or damaged: one sentence without the password, exit code 1, no traceback."""

import json
import os
import socket
import sqlite3
from contextlib import closing

import pytest

from scp_node.cli.main import main
from scp_node.jobs import database
from scp_node.jobs.migrations import migrate

COMMANDS = [
    ("jobs", "list"),
    ("jobs", "list", "--json"),
    ("jobs", "list", "--conflicts"),
    ("jobs", "show", "1"),
    ("jobs", "retry", "1"),
    ("jobs", "purge", "1"),
    ("destinations",),
    ("destinations", "resume", "share"),
    ("audit", "show", "1.2.3"),
    ("audit", "verify"),
    ("recall", "--model", "resnet18", "--version", "1.0.0"),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path, restore_logging):
    """A node with one destination, in an empty folder."""
    for name in list(os.environ):
        if name.startswith("SCP_NODE__"):
            monkeypatch.delenv(name)
    destination = {"kind": "folder", "name": "share", "folder": str(tmp_path)}
    monkeypatch.setenv("SCP_NODE__DESTINATIONS", json.dumps([destination]))
    monkeypatch.setenv("SCP_NODE__SPOOL__MINIMUM_FREE_BYTES", "0")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["away", "garbage", "folder", "no tables any more", "half a file"])
def unusable(request, monkeypatch, tmp_path) -> str:
    file = tmp_path / "node.sqlite"
    url = f"sqlite:///{file}"
    match request.param:
        case "away":
            with socket.create_server(("127.0.0.1", 0)) as nobody:
                port = nobody.getsockname()[1]
            url = f"postgresql://u:hush-hush@127.0.0.1:{port}/x"
        case "garbage":
            file.write_bytes(b"no database at all" * 1000)
        case "folder":
            file.mkdir()
        case _:
            engine = database.open_engine(url)
            migrate(engine)
            engine.dispose()
            with closing(sqlite3.connect(file)) as connection:
                if request.param == "no tables any more":
                    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                    for (name,) in names:
                        if name not in ("schema_version", "sqlite_sequence"):
                            connection.execute(f"DROP TABLE {name}")
                else:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if request.param == "half a file":
                content = bytearray(file.read_bytes())
                for page in range(1, len(content) // 4096):
                    content[page * 4096 : (page + 1) * 4096] = b"\xff" * 4096
                file.write_bytes(content)
    monkeypatch.setenv("SCP_NODE__DATABASE__URL", url)
    return request.param


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_unusable_database_is_a_sentence_and_code_1(command, unusable, capsys):
    assert main(list(command)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("scp-node: the database cannot be used: ")
    assert captured.err.count("\n") == 1
    assert "hush" not in captured.err
    assert "SELECT" not in captured.err


def test_doctor_says_so_and_goes_on(unusable, capsys):
    assert main(["doctor", "--json"]) == 1
    output = capsys.readouterr().out
    found = [json.loads(line) for line in output.splitlines()]
    (said,) = [one for one in found if one["check"] == "database"]
    assert said["level"] == "failed"
    assert said["detail"].startswith("the database cannot be used: ")
    checks = {one["check"] for one in found}
    assert {"model resnet18", "receiver", "destination share"} <= checks
    assert "hush" not in output


def test_a_url_that_cannot_be_parsed_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setenv("SCP_NODE__DATABASE__URL", "postgresql://u:hush-hush@host:port/x")
    assert main(["jobs", "list"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "database.url" in captured.err
    assert "hush" not in captured.err
