"""`scp-node jobs` on a database as a node leaves it: the documented JSON, tables for people, exit codes."""

import json
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from inference.records import Reason
from scp_node.cli.main import main
from scp_node.jobs import database, tables
from scp_node.jobs.accession import KEY_FILE, Pseudonyms
from scp_node.jobs.migrations import migrate
from scp_node.jobs.states import DeadLetterReason
from scp_node.records import InstanceState

UIDS = {state: f"1.2.3.{number}" for number, state in enumerate(InstanceState, 1)}
FIELDS = [
    "id",
    "sop_instance_uid",
    "study_instance_uid",
    "state",
    "reason",
    "calling_ae_title",
    "received_at",
    "deliveries",
]


def instance(state: InstanceState) -> dict[str, object]:
    now = time.time()
    return {
        "sop_instance_uid": UIDS[state],
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": "ab" * 32,
        "size_bytes": 1234567,
        "file": "objects/ab/abab",
        "calling_ae_title": "CR\x1b[31m1",
        "called_ae_title": "SCP_NODE",
        "peer_address": "127.0.0.1",
        "priority": "routine",
        "received_at": now,
        "state": state.value,
        "reason": {"not_eligible": "lateral", "dead_letter": "delivery"}.get(state.value),
        "detail": "View Position (0018,5101) is LL" if state is InstanceState.NOT_ELIGIBLE else "",
        "job_id": f"analyse:{state.value}",
        "round": 0,
        "crashes": 0,
        "analysed_at": now if state.is_final else None,
        "duration_s": 1.5 if state.is_final else None,
        "window_source": "window_attributes" if state.is_final else None,
        "window_center": 2047.5,
        "window_width": 4095,
        "window_function": "LINEAR",
        "notes": '["no body part is named"]',
        "updated_at": now,
    }


@pytest.fixture(autouse=True)
def _node_database(monkeypatch, tmp_path, restore_logging):
    """One instance in each state; the dead letter was refused by one destination and taken by another."""
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    monkeypatch.setenv("SCP_NODE__DATABASE__URL", url)
    monkeypatch.chdir(tmp_path)
    engine = database.open_engine(url)
    migrate(engine)
    with database.write(engine) as connection:
        connection.execute(sa.insert(tables.instance), [instance(state) for state in InstanceState])
        number = connection.execute(
            sa.select(tables.instance.c.id).where(tables.instance.c.state == "dead_letter")
        ).scalar_one()
        for destination, state, attempts, error in (
            ("pacs", "refused", 3, "PACS answered 0xC000: cannot understand"),
            ("archive", "delivered", 1, ""),
        ):
            connection.execute(
                sa.insert(tables.delivery).values(
                    instance_id=number,
                    destination=destination,
                    state=state,
                    attempts=attempts,
                    last_error=error,
                    job_id=f"deliver:{destination}",
                    round=0,
                    updated_at=time.time(),
                )
            )
    engine.dispose()


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_list_has_one_line_per_instance_with_the_documented_fields(capsys):
    assert main(["jobs", "list", "--json"]) == 0
    found = lines(capsys)
    assert [line["sop_instance_uid"] for line in found] == list(UIDS.values())
    assert [line["state"] for line in found] == [state.value for state in InstanceState]
    for line in found:
        assert list(line) == FIELDS
    dead = found[-1]
    assert dead["reason"] == "delivery"
    assert dead["deliveries"] == [
        {"destination": "archive", "state": "delivered", "attempts": 1, "last_error": ""},
        {
            "destination": "pacs",
            "state": "refused",
            "attempts": 3,
            "last_error": "PACS answered 0xC000: cannot understand",
        },
    ]


def test_list_by_state_and_limit(capsys):
    assert main(["jobs", "list", "--json", "--state", "not_eligible"]) == 0
    assert [line["reason"] for line in lines(capsys)] == ["lateral"]
    assert main(["jobs", "list", "--json", "--limit", "2"]) == 0
    assert len(lines(capsys)) == 2


def test_an_examination_is_found_by_its_study_or_its_accession_number(capsys, tmp_path, monkeypatch):
    """What a PACS shows of it: who asks has neither SOP Instance UID nor number in the list."""
    monkeypatch.setenv("SCP_NODE__SPOOL__FOLDER", str(tmp_path))
    assert main(["jobs", "list", "--json", "--accession", "A-4711"]) == 0
    assert lines(capsys) == []
    assert not (tmp_path / KEY_FILE).exists(), "a search makes no key"
    pseudonym = Pseudonyms(tmp_path).of("A-4711")
    engine = database.open_engine(f"sqlite:///{tmp_path / 'node.sqlite'}")
    for uid, values in (("1.3", {"study_instance_uid": "9.8.7"}), ("1.4", {"accession_pseudonym": pseudonym})):
        with database.write(engine) as connection:
            row = instance(InstanceState.RECEIVED) | {"sop_instance_uid": uid} | values
            connection.execute(sa.insert(tables.instance).values(row))
    engine.dispose()
    for arguments, uid in ((["--uid", "9.8.7"], "1.3"), (["--uid", "1.3"], "1.3"), (["--accession", "a-4711 "], "1.4")):
        assert main(["jobs", "list", "--json", *arguments]) == 0
        assert [line["sop_instance_uid"] for line in lines(capsys)] == [uid]
    assert main(["jobs", "show", "1.3"]) == 0
    assert "9.8.7" in capsys.readouterr().out


def test_every_reason_there_is_can_be_asked_for_and_no_other(capsys):
    """Mistyped, an empty list would read as "there are none"."""
    for reason in (*Reason, *DeadLetterReason):
        assert main(["jobs", "list", "--json", "--reason", reason.value]) == 0
    assert len(lines(capsys)) == 2
    with pytest.raises(SystemExit) as stop:
        main(["jobs", "list", "--reason", "body_part"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "'body_part'" in error
    assert "not_chest" in error
    assert "time_limit" in error


def test_looking_for_a_reason_loads_no_torch(tmp_path):
    program = (
        "import sys; from scp_node.cli.main import main\n"
        "code = main(['jobs', 'list', '--json', '--reason', 'lateral'])\n"
        "print(code, sorted({'torch', 'openvino', 'cv2', 'dbos'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("arguments", [["--state", "lost"], ["--limit", "0"], ["--limit", "x"]])
def test_wrong_arguments_are_code_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(["jobs", "list", *arguments])
    assert stop.value.code == 2


def test_the_table_shows_newest_first_without_control_characters(capsys):
    assert main(["jobs", "list", "--limit", "3"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "CR\\x1b[31m1" in text
    assert UIDS[InstanceState.DEAD_LETTER] in text
    assert UIDS[InstanceState.RECEIVED] not in text
    assert "pacs: refused after 3" in text
    assert "1 received, 1 analysing" in text
    assert "the newest 3 of 6" in text


def test_show_by_uid_and_by_number(capsys):
    assert main(["jobs", "show", UIDS[InstanceState.NOT_ELIGIBLE]]) == 0
    text = capsys.readouterr().out
    assert "lateral: View Position (0018,5101) is LL" in text
    assert "no body part is named" in text
    assert "1.2 MB" in text
    assert main(["jobs", "show", "1"]) == 0
    assert UIDS[InstanceState.RECEIVED] in capsys.readouterr().out


@pytest.mark.parametrize("action", ["show", "retry", "cancel"])
def test_an_unknown_id_is_code_1_and_a_sentence(action, capsys):
    assert main(["jobs", action, "9.9.9"]) == 1
    captured = capsys.readouterr()
    assert "9.9.9" in captured.err
    assert captured.err.count("\n") == 1


def test_cancel_gives_up_and_a_second_time_says_so(capsys):
    uid = UIDS[InstanceState.RECEIVED]
    assert main(["jobs", "cancel", uid]) == 0
    assert f"{uid} is dead_letter" in capsys.readouterr().out
    assert main(["jobs", "cancel", UIDS[InstanceState.DELIVERED]]) == 1
    assert "nothing to cancel" in capsys.readouterr().err
