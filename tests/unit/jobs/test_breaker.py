"""One destination that is down costs one question now and then; when it is back, all that waits goes on at once."""

import threading

import pytest
import sqlalchemy as sa

from config.destinations import DicomDestination, FolderDestination
from config.settings import NodeSettings
from config.storage import DatabaseSettings, SpoolSettings
from scp_node.demo.pacs import StandInPacs
from scp_node.jobs import database
from scp_node.jobs.admin import Admin
from scp_node.jobs.breaker import Breakers, BreakerState
from scp_node.jobs.recovery import job_table
from scp_node.jobs.tables import breaker
from scp_node.records import DeliveryState, InstanceState

WEEK_S = 7 * 86400


@pytest.fixture
def share(results, tmp_path):
    """A folder that can be taken away: a file lies where it should be."""
    results.destinations = (FolderDestination(kind="folder", name="share", folder=tmp_path / "share"),)
    return results.destinations[0].folder


def _away(folder):
    if folder.exists():
        folder.rmdir()
    folder.write_text("in the way")


def _open(results):
    """Fail as often as it takes."""
    for number in range(1, results.settings.failures_before_pause + 1):
        results.add(number, "share")
        assert results.deliver(number, "share") == DeliveryState.WAITING
    assert results.health("share").state is BreakerState.OPEN


@pytest.mark.databases
def test_failures_in_a_row_open_it_and_then_deliveries_are_put_off_untried(results, share):
    _away(share)
    results.add(1, "share")
    results.deliver(1, "share")
    results.deliver(1, "share")
    assert results.health("share").state is BreakerState.CLOSED
    results.deliver(1, "share")
    health = results.health("share")
    assert (health.state, health.failures, health.waiting) == (BreakerState.OPEN, 3, 1)
    assert "cannot write" in health.last_error
    assert health.next_probe_at.timestamp() == results.now + 2

    share.unlink()  # nobody has noticed yet that it is back
    results.add(2, "share")
    assert results.deliver(2, "share") == DeliveryState.WAITING
    row = results.row(2, "share")
    assert (row.attempts, row.next_attempt_at) == (0, results.now + 3600)
    assert row.last_error.startswith("waits until the destination is back: cannot write")
    assert not share.exists()
    assert results.health("share").waiting == 2


def test_the_next_question_is_put_later_and_later_up_to_the_longest_wait(results, share):
    _away(share)
    _open(results)
    probing = results.probing()
    waits = []
    for _ in range(6):
        results.now = results.health("share").next_probe_at.timestamp()
        assert not probing.ask("share").is_reachable
        waits.append(results.health("share").next_probe_at.timestamp() - results.now)
    for wait, whole in zip(waits, [4, 8, 15, 15, 15, 15], strict=True):
        assert whole / 2 <= wait <= whole
    # Deliveries were not touched by all that.
    assert results.row(1, "share").attempts == 1


@pytest.mark.databases
def test_when_it_is_back_one_delivery_is_on_trial_and_its_success_lets_all_go_on(results, share):
    _away(share)
    _open(results)
    results.now += 86400
    for number in (4, 5):
        results.add(number, "share")
        results.deliver(number, "share")
    share.unlink()
    probing = results.probing()
    assert probing.ask("share").is_reachable
    assert results.health("share").state is BreakerState.HALF_OPEN
    # The one that was tried least: it says most about the destination.
    assert [number for number in range(1, 6) if results.due_now(results.row(number, "share").job_id)] == [4]
    with results.engine.connect() as connection:
        jobs = job_table(connection.dialect.name)
        waiting = sa.select(jobs.c.workflow_uuid).where(jobs.c.status.in_(("ENQUEUED", "DELAYED")))
        first = connection.execute(waiting.order_by(jobs.c.priority)).scalars().first()
    assert first == results.row(4, "share").job_id, "the trial does not stand in line behind the others"
    assert results.deliver(1, "share") == DeliveryState.WAITING, "one at a time"
    assert results.deliver(4, "share") == DeliveryState.DELIVERED
    assert results.health("share").state is BreakerState.CLOSED

    assert probing.resume("share") == 4
    for number in (1, 2, 3, 5):
        row = results.row(number, "share")
        assert results.due_now(row.job_id)
        assert (row.next_attempt_at, row.setbacks) == (None, 0)
        assert results.deliver(number, "share") == DeliveryState.DELIVERED
    assert probing.resume("share") == 0
    with results.engine.connect() as connection:
        assert not connection.execute(sa.select(breaker.c.is_resuming)).scalar_one()
    assert results.instance(5).state == InstanceState.DELIVERED


def test_a_trial_that_fails_opens_it_again(results, share):
    _away(share)
    _open(results)
    share.unlink()
    results.probing().ask("share")
    _away(share)
    assert results.deliver(1, "share") == DeliveryState.WAITING
    health = results.health("share")
    assert health.state is BreakerState.OPEN
    assert health.next_probe_at.timestamp() > results.now
    assert not results.due_now(results.row(2, "share").job_id)


def test_a_trial_that_is_never_heard_of_is_followed_by_another_question(results, share):
    """Cancelled by an operator, or the whole node was switched off."""
    _away(share)
    _open(results)
    share.unlink()
    probing = results.probing()
    probing.ask("share")
    with results.engine.connect() as connection:
        assert Breakers(results.settings, clock=lambda: results.now).due(connection, ["share"]) == []
        assert len(Breakers(results.settings, clock=lambda: results.now + 600).due(connection, ["share"])) == 1


@pytest.mark.databases
def test_one_process_asks_at_a_time(results, share):
    _away(share)
    _open(results)
    results.now += 3
    mine, theirs = (Breakers(results.settings, clock=lambda: results.now) for _ in range(2))
    with results.engine.connect() as connection:
        (seen,) = mine.due(connection, ["share"])
    with database.write(results.engine) as connection:
        assert mine.claim(connection, seen, 60)
    with database.write(results.engine) as connection:
        assert not theirs.claim(connection, seen, 60)
        assert theirs.due(connection, ["share"]) == []


def test_one_object_that_a_destination_chokes_on_does_not_speak_for_the_others(results, tmp_path):
    """0x0110 for ever, for one instance: it is tried again and again, and nobody else waits."""
    with StandInPacs(tmp_path / "pacs", answer=lambda uid: 0x0110 if uid == "2.25.10" else 0) as pacs:
        results.destinations = (_to("pacs", pacs),)
        results.add(1, "pacs")
        for _ in range(6):
            assert results.deliver(1, "pacs") == DeliveryState.WAITING
        assert results.health("pacs").state is BreakerState.CLOSED
        assert results.health("pacs").failures == 1
        results.add(2, "pacs")
        assert results.deliver(2, "pacs") == DeliveryState.DELIVERED
        assert results.health("pacs").failures == 0
        # One failure is no outage: its success hastens nothing.
        assert results.row(1, "pacs").next_attempt_at == results.now + 320


def test_a_destination_that_is_full_is_paused_and_a_real_delivery_finds_out_when_it_is_not(results, tmp_path):
    """0xA700 for all: C-ECHO answers all the while, so only a trial can tell."""
    full = True
    with StandInPacs(tmp_path / "pacs", answer=lambda uid: 0xA700 if full else 0) as pacs:
        results.destinations = (_to("pacs", pacs),)
        for number in (1, 2, 3):
            results.add(number, "pacs")
            results.deliver(number, "pacs")
        assert results.health("pacs").state is BreakerState.OPEN
        probing = results.probing()
        assert probing.ask("pacs").is_reachable
        assert results.deliver(1, "pacs") == DeliveryState.WAITING
        assert results.health("pacs").state is BreakerState.OPEN
        full = False
        probing.ask("pacs")
        assert results.deliver(2, "pacs") == DeliveryState.DELIVERED
        assert probing.resume("pacs") == 2


def test_a_destination_that_rejects_c_echo_and_takes_c_store_is_not_locked_out(results, tmp_path, free_port):
    class NoEcho(StandInPacs):
        verification = False

    port = free_port()
    results.destinations = (DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_s=60),)
    for number in (1, 2, 3):
        results.add(number, "pacs")
        results.deliver(number, "pacs")
    assert results.health("pacs").state is BreakerState.OPEN
    probing = results.probing()
    assert not probing.ask("pacs").is_present
    with NoEcho(tmp_path / "pacs", port=port):
        outcome = probing.ask("pacs")
        assert (outcome.is_reachable, outcome.is_present) == (False, True)
        assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
        assert probing.resume("pacs") == 2


def test_patience_ends_while_a_destination_is_down(results, share):
    _away(share)
    _open(results)
    results.now += WEEK_S - 100
    assert results.deliver(1, "share") == DeliveryState.WAITING
    assert results.row(1, "share").next_attempt_at == results.row(1, "share").first_attempt_at + WEEK_S
    results.now += 100
    assert results.deliver(1, "share") == DeliveryState.REFUSED
    assert results.row(1, "share").last_error.startswith("gave up after 604800 s: cannot write")
    assert results.instance(1).state == InstanceState.DEAD_LETTER
    # Who came later has patience of its own.
    results.add(9, "share")
    assert results.deliver(9, "share") == DeliveryState.WAITING


@pytest.mark.databases
def test_who_was_off_for_longer_than_patience_lasts_tries_before_it_gives_up(results, share):
    """A node that was switched off, or a clock that was put forward: nobody has asked the destination since."""
    _away(share)
    _open(results)
    results.now += 2 * WEEK_S
    assert results.deliver(1, "share") == DeliveryState.REFUSED
    assert results.row(1, "share").attempts == 2
    share.unlink()
    assert results.deliver(2, "share") == DeliveryState.DELIVERED
    assert results.health("share").state is BreakerState.CLOSED


@pytest.mark.parametrize("back_s", [86400, 3600])
def test_a_clock_that_goes_back_does_not_put_the_next_question_off(results, share, back_s):
    _away(share)
    _open(results)
    breakers = Breakers(results.settings, clock=lambda: results.now)
    with results.engine.connect() as connection:
        assert breakers.due(connection, ["share"]) == []
        results.now -= back_s
        assert [row.destination for row in breakers.due(connection, ["share"])] == ["share"]


def test_a_claim_for_a_slow_destination_holds(results, share):
    """It is longer than any other wait."""
    _away(share)
    _open(results)
    results.now += 3
    breakers = Breakers(results.settings, clock=lambda: results.now)
    with database.write(results.engine) as connection:
        (row,) = breakers.due(connection, ["share"])
        assert breakers.claim(connection, row, 4000.0)
    with results.engine.connect() as connection:
        assert breakers.due(connection, ["share"], longest_claim_s=4000.0) == []
        results.now -= 86400
        assert len(breakers.due(connection, ["share"], longest_claim_s=4000.0)) == 1


def test_a_trial_that_has_nothing_to_send_is_followed_by_another_at_once(results, share):
    """Its file is missing: nothing was heard of the destination, and the others must not wait for a word of it."""
    _away(share)
    _open(results)
    results.add(4, "share")
    results.deliver(4, "share")
    results.spool.path("results/2.25.40.dcm").unlink()
    share.unlink()
    probing = results.probing()
    probing.ask("share")
    assert results.deliver(4, "share") == DeliveryState.REFUSED
    assert results.health("share").state is BreakerState.HALF_OPEN
    probing.look()
    probing.stop()
    assert results.deliver(1, "share") == DeliveryState.DELIVERED
    assert results.health("share").state is BreakerState.CLOSED


def test_a_destination_that_is_still_being_asked_is_not_asked_again(results, share, monkeypatch):
    """A share that hangs: a thread for each question would add up for as long as it does."""
    _away(share)
    _open(results)
    answer, is_asked, asked = threading.Event(), threading.Event(), []

    def hang(*_arguments):
        asked.append(1)
        is_asked.set()
        assert answer.wait(60)
        raise OSError

    monkeypatch.setattr("scp_node.delivery.catalog.echo", hang)
    probing = results.probing()
    try:
        for _ in range(5):
            results.now += 600
            probing.look()
        assert is_asked.wait(60)
        assert len(asked) == 1
    finally:
        answer.set()
        probing.stop()
    results.now += 600
    probing.look()
    probing.stop()
    assert len(asked) == 2


def test_with_nothing_waiting_an_answer_closes_it(results, share):
    _away(share)
    _open(results)
    results.now += WEEK_S
    for number in (1, 2, 3):
        results.deliver(number, "share")
    share.unlink()
    results.probing().ask("share")
    assert results.health("share").state is BreakerState.CLOSED


def test_a_look_asks_what_is_due_and_resumes_what_is_to_be(results, share):
    _away(share)
    _open(results)
    probing = results.probing()
    probing.look()
    assert results.health("share").state is BreakerState.OPEN, "not due yet"
    share.unlink()
    results.now += 3
    probing.look()
    probing.stop()
    assert results.health("share").state is BreakerState.HALF_OPEN
    results.deliver(1, "share")
    results.probing().look()
    assert results.due_now(results.row(2, "share").job_id)
    assert results.due_now(results.row(3, "share").job_id)


def test_many_are_resumed_in_portions(results, share, monkeypatch):
    monkeypatch.setattr("scp_node.jobs.probing._AT_ONCE", 2)
    _away(share)
    _open(results)
    for number in range(4, 8):
        results.add(number, "share")
        results.deliver(number, "share")
    share.unlink()
    with database.write(results.engine) as connection:
        Breakers(results.settings, clock=lambda: results.now).close(connection, "share")
    probing = results.probing()
    assert [probing.resume("share") for _ in range(5)] == [2, 2, 2, 1, 0]


def test_an_outage_of_one_destination_leaves_the_others_alone(results, share, tmp_path):
    results.destinations += (FolderDestination(kind="folder", name="other", folder=tmp_path / "other"),)
    _away(share)
    _open(results)
    results.add(7, "share", "other")
    assert results.deliver(7, "other") == DeliveryState.DELIVERED
    assert results.deliver(7, "share") == DeliveryState.WAITING
    assert results.health("other").state is BreakerState.CLOSED


def _to(name, pacs):
    return DicomDestination(name=name, ae_title="PACS", host="127.0.0.1", port=pacs.port, timeout_s=60)


def test_what_an_operator_retries_is_tried_though_its_destination_is_down(results, share, tmp_path):
    _away(share)
    _open(results)
    settings = NodeSettings(
        spool=SpoolSettings(folder=tmp_path / "spool"),
        database=DatabaseSettings(url=str(results.engine.url)),
        destinations=results.destinations,
    )
    share.unlink()
    with Admin(settings) as admin:
        admin.retry("1.2.2")
    assert results.deliver(1, "share") == DeliveryState.WAITING
    assert results.deliver(2, "share") == DeliveryState.DELIVERED
    assert results.health("share").state is BreakerState.CLOSED
