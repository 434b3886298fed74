"""Storage Commitment of which nothing is heard: asked again, made anew, given up with a note."""

import pytest
from committing_archive import TIMEOUT_S, Archive, accept_report, transactions

from config.destinations import DicomDestination
from scp_node.jobs import database
from scp_node.jobs.breaker import Breakers
from scp_node.records import DeliveryState, InstanceState


def test_without_a_report_it_is_asked_again_and_then_delivered_with_a_note(results, to, silent):
    with Archive() as archive:
        archive.reports = False
        to(archive, commitment_attempts=2)
        (uid,) = results.add(1, "pacs")
        results.deliver(1, "pacs")
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        # Too early, as after a restart: it waits on.
        results.now += TIMEOUT_S / 2
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        assert len(archive.requests) == 1
        results.now += TIMEOUT_S / 2
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        assert len(archive.requests) == 2
        results.now += TIMEOUT_S
        assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    assert archive.stored == [uid]
    assert results.row(1, "pacs").last_error == "stored, not committed: asked 2 times, no report within 600 s"
    assert results.instance(1).state == InstanceState.DELIVERED
    # Better late than never.
    first, _ = transactions(results)
    assert accept_report(results, first.transaction_uid, committed=[uid])
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED


@pytest.mark.parametrize("options", [{"commits": False}, {"action_status": 0x0110}])
def test_a_peer_that_knows_no_commitment_is_asked_a_few_times_only(results, to, options):
    with Archive(**options) as archive:
        to(archive, commitment_attempts=3)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
        states = [results.deliver(1, "pacs") for _ in range(3)]
    assert states == [DeliveryState.COMMITTING, DeliveryState.COMMITTING, DeliveryState.DELIVERED]
    assert results.row(1, "pacs").last_error.startswith("stored, not committed: PACS ")
    assert results.instance(1).state == InstanceState.DELIVERED


def test_a_peer_that_is_away_is_asked_when_it_is_back_and_patience_ends_without_a_dead_letter(results, to):
    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
    assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
    row = results.row(1, "pacs")
    assert "connection refused" in row.last_error
    assert row.next_attempt_at == results.now + 10
    assert [transaction.state for transaction in transactions(results)] == ["void"]
    results.now += 8 * 86400
    assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    assert "not committed" in results.row(1, "pacs").last_error
    assert results.instance(1).state == InstanceState.DELIVERED


def test_a_request_that_was_cut_off_is_made_anew(results, to, monkeypatch):
    """The process dies between writing the transaction down and hearing whether it was taken."""

    class Killed(BaseException):
        pass

    def kill(*_arguments, **_options):
        raise Killed

    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr("scp_node.delivery.commitment.ask", kill)
            results.deliver(1, "pacs")
        results.deliver(1, "pacs")
    assert results.row(1, "pacs").state == DeliveryState.COMMITTED
    assert [transaction.state for transaction in transactions(results)] == ["void", "answered"]


def test_switched_off_meanwhile_what_is_stored_is_delivered(results, to):
    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        results.deliver(1, "pacs")
        results.destinations = (
            DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=archive.port, timeout_s=5),
        )
        assert results.deliver(1, "pacs") == DeliveryState.DELIVERED


def test_a_question_on_trial_that_need_not_be_asked_is_followed_by_another_trial(results, to):
    """Switched off meanwhile, so nothing was heard of the destination: others must not wait for a word of it."""
    with Archive() as archive:
        to(archive)
        results.add(1, "pacs")
        assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
        to(archive, storage_commitment=False)
    breakers = Breakers(results.settings, clock=results.clock)
    with database.write(results.engine) as connection:
        for number in range(results.settings.failures_before_pause):
            breakers.failed(connection, "pacs", 100 + number, "away", is_reached=False)
        breakers.grant(connection, "pacs", results.instance(1).id)
        assert breakers.due(connection, ["pacs"]) == []
    assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    with results.engine.connect() as connection:
        assert len(breakers.due(connection, ["pacs"])) == 1
