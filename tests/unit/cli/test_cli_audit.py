"""`scp-node audit`, and what `scp-node jobs` can do beside list, show, retry and cancel."""

import json
import os
import time
import zipfile

import pytest
import sqlalchemy as sa

from scp_node.cli.main import main
from scp_node.jobs import database, queues, sealing, tables, trace
from scp_node.jobs.migrations import migrate
from scp_node.jobs.trace import Event

UID = "1.2.840.1"


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path, restore_logging):
    """A node's database and spool with one dead letter, one object set aside, and their trace."""
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    spool = tmp_path / "spool"
    monkeypatch.setenv("SCP_NODE__DATABASE__URL", url)
    monkeypatch.setenv("SCP_NODE__SPOOL__FOLDER", str(spool))
    monkeypatch.chdir(tmp_path)
    engine = database.open_engine(url)
    migrate(engine)
    queues.migrate(url)
    files = [f"objects/{digest}/{digest}/{digest * 32}.dcm" for digest in ("aa", "bb")]
    for file in files:
        (spool / file).parent.mkdir(parents=True)
        (spool / file).write_bytes(file.encode())
    with database.write(engine) as connection:
        connection.execute(
            sa.insert(tables.instance).values(
                sop_instance_uid=UID,
                sop_class_uid="1",
                transfer_syntax_uid="1",
                sha256="aa" * 32,
                size_bytes=4,
                file=files[0],
                calling_ae_title="CR1",
                called_ae_title="N",
                peer_address="127.0.0.1",
                priority="routine",
                received_at=time.time(),
                state="dead_letter",
                reason="unreadable",
                detail="cut off",
                causes=json.dumps(["SourceError: cut off (at source.py:1 in read)", "EOFError (at codec.py:2 in run)"]),
                job_id=f"analyse:m:{UID}:aa:1",
                round=1,
                crashes=0,
                notes="[]",
                updated_at=time.time(),
            )
        )
        connection.execute(
            sa.insert(tables.conflict).values(
                sop_instance_uid=UID,
                sha256="bb" * 32,
                file=files[1],
                calling_ae_title="CR2",
                peer_address="127.0.0.2",
                received_at=time.time(),
            )
        )
        trace.record(connection, Event.RECEIVED, UID, instance_id=1, calling_ae_title="CR\x1b[31m1")
        trace.record(connection, Event.GIVEN_UP, UID, instance_id=1, reason="unreadable")
    yield engine
    engine.dispose()


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_trace_is_shown_by_uid_and_number_for_people_and_programs(capsys):
    assert main(["audit", "show", UID, "--json"]) == 0
    assert [line["event"] for line in lines(capsys)] == ["received", "given_up"]
    assert main(["audit", "show", "1"]) == 0
    text = capsys.readouterr().out
    assert "given_up" in text
    assert "not sealed yet" in text
    assert "\x1b" not in text
    assert main(["audit", "show", "9.9"]) == 1
    assert "nothing is recorded" in capsys.readouterr().err


def test_verify_says_whether_the_trace_is_whole(engine, capsys):
    sealing.seal(engine)
    capsys.readouterr()
    assert main(["audit", "verify", "--json"]) == 0
    (found,) = lines(capsys)
    assert (found["is_whole"], found["records"], found["unsealed"], found["last_seal"]) == (True, 2, 0, 1)
    assert main(["audit", "verify", "--expect", f"1:{found['digest']}"]) == 0
    assert "whole" in capsys.readouterr().out
    assert main(["audit", "verify", "--expect", f"1:{'0' * 64}"]) == 1
    assert "not the one that was noted" in capsys.readouterr().out
    with database.write(engine) as connection:
        connection.exec_driver_sql("UPDATE trace SET detail = '{}' WHERE id = 1")
    assert main(["audit", "verify"]) == 1
    assert "NOT" in capsys.readouterr().out


def test_a_seal_that_is_none_is_wrong_usage():
    with pytest.raises(SystemExit) as stop:
        main(["audit", "verify", "--expect", "1:xyz"])
    assert stop.value.code == 2


def test_show_gives_the_chain_of_causes(capsys):
    assert main(["jobs", "show", UID]) == 0
    text = capsys.readouterr().out
    assert "SourceError: cut off" in text
    assert "EOFError (at codec.py:2 in run)" in text
    assert main(["jobs", "show", UID, "--json"]) == 0
    assert lines(capsys)[0]["causes"][1] == "EOFError (at codec.py:2 in run)"


def test_conflicts_are_listed_exported_and_purged(capsys, tmp_path):
    assert main(["jobs", "list", "--conflicts"]) == 0
    assert "bbbbbbbb" in capsys.readouterr().out
    assert main(["jobs", "list", "--conflicts", "--json"]) == 0
    assert lines(capsys)[0]["calling_ae_title"] == "CR2"
    assert main(["jobs", "export", UID, str(tmp_path / "aside.zip"), "--conflict", "bbbb"]) == 0
    with zipfile.ZipFile(tmp_path / "aside.zip") as content:
        assert content.read("received.dcm").endswith(b"bb.dcm")
    capsys.readouterr()
    assert main(["jobs", "purge", UID, "--conflict", "bbbb"]) == 0
    # What the conflict was with is not removed, and nobody shall think so.
    assert capsys.readouterr().out == f"only the object set aside under {UID} (SHA-256 bbbb...) is removed\n"
    assert main(["jobs", "show", UID]) == 0
    assert main(["jobs", "purge", UID, "--conflict", "bbbb"]) == 1
    capsys.readouterr()
    assert main(["jobs", "list", "--conflicts", "--json"]) == 0
    assert lines(capsys) == []


def test_a_dead_letter_is_exported_and_purged_and_its_trace_stays(capsys, tmp_path):
    assert main(["jobs", "export", "1", str(tmp_path / "case")]) == 0
    assert json.loads((tmp_path / "case" / "job.json").read_text())["instance"]["reason"] == "unreadable"
    assert main(["jobs", "purge", "1"]) == 0
    assert main(["jobs", "show", UID]) == 1
    assert [name for _, _, names in os.walk(tmp_path / "spool" / "objects" / "aa") for name in names] == []
    capsys.readouterr()
    assert main(["audit", "show", UID, "--json"]) == 0
    assert [line["event"] for line in lines(capsys)] == ["received", "given_up", "exported", "removed"]


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--uid", "1.2.840"], 1),
        (["--uid", "1.3"], 0),
        (["--from", "CR1", "--reason", "unreadable"], 1),
        (["--from", "CR9"], 0),
        (["--since", "2020-01-01"], 1),
        (["--until", "2020-01-01T10:00"], 0),
    ],
)
def test_lists_can_be_filtered(arguments, count, capsys):
    assert main(["jobs", "list", "--json", *arguments]) == 0
    assert len(lines(capsys)) == count


def test_a_time_that_is_none_is_wrong_usage():
    with pytest.raises(SystemExit) as stop:
        main(["jobs", "list", "--since", "yesterday"])
    assert stop.value.code == 2


def test_what_makes_no_sense_to_recall_is_refused(capsys):
    assert main(["recall", "--model", "resnet18"]) == 1
    assert "name a version" in capsys.readouterr().err


@pytest.mark.parametrize("digest", ["xyz", "5f0c1g", "", "ab" * 33])
def test_a_digest_that_is_none_is_wrong_usage(digest, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["recall", "--model", "resnet18", "--weights", digest])
    assert stop.value.code == 2
    assert "hexadecimal" in capsys.readouterr().err


@pytest.mark.parametrize("json_", [[], ["--json"]])
@pytest.mark.parametrize("arguments", [["--model", "resnet81"], ["--version", "9"], ["--weights", "ee"]])
def test_a_recall_of_what_never_was_says_what_was(engine, arguments, json_, capsys):
    """Mistyped, "nothing" would read as "nobody is affected"."""
    said = {"probability": 0.5, "is_positive": True}
    predictions = [
        {"model": "resnet18", "version": "1.0.0", "weights_sha256": "5f" * 32, **said},
        {"model": "densenet121", "version": "2.1\x1b[31m", "weights_sha256": "aa" * 32, **said},
    ]
    with database.write(engine) as connection:
        for _ in range(2):
            trace.record(connection, Event.ANALYSED, UID, instance_id=1, predictions=predictions, results=[])
    wanted = dict(zip(("--model", "--version"), ("resnet18", "1.0.0"), strict=True))
    wanted[arguments[0]] = arguments[1]
    assert main(["recall", *(word for pair in wanted.items() for word in pair), *json_]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no analysis by" in captured.err
    assert arguments[1] in captured.err
    assert "known: densenet121 2.1\\x1b[31m (aaaaaaaaaaaa), resnet18 1.0.0 (5f5f5f5f5f5f)\n" in captured.err
    assert captured.err.count("\n") == 1


def test_a_recall_in_a_trace_without_analyses_says_so(capsys):
    assert main(["recall", "--model", "resnet18", "--weights", "5F"]) == 1
    assert "known: none" in capsys.readouterr().err


def test_a_digest_may_be_given_in_capital_letters(engine, capsys):
    one = {"model": "resnet18", "version": "1", "weights_sha256": "5f" * 32, "probability": 0.5, "is_positive": True}
    with database.write(engine) as connection:
        trace.record(connection, Event.ANALYSED, UID, instance_id=1, predictions=[one], results=[])
    assert main(["recall", "--model", "resnet18", "--weights", "5F5F", "--json"]) == 0
    assert len(lines(capsys)) == 1
