"""An error of this node inside a deliver job is an attempt that failed, not the end of the delivery."""

import pytest

from config.destinations import DicomDestination, FolderDestination
from scp_node.jobs import committing, confirmations
from scp_node.jobs.lease import LeaseLostError
from scp_node.records import DeliveryState, InstanceState

pytestmark = pytest.mark.databases

WEEK_S = 7 * 86400


@pytest.fixture
def share(results, tmp_path):
    """A folder that takes everything."""
    results.destinations = (FolderDestination(kind="folder", name="share", folder=tmp_path / "share"),)
    results.add(1, "share")
    return results.destinations[0].folder


def _raise(error):
    def raising(*_arguments, **_options):
        raise error

    return raising


def test_an_error_costs_an_attempt_and_what_was_confirmed_stays_so(results, share, monkeypatch):
    before = results.row(1, "share").job_id
    with monkeypatch.context() as patch:
        patch.setattr(confirmations, "judge", _raise(MemoryError()))
        assert results.deliver(1, "share") == DeliveryState.WAITING
    row = results.row(1, "share")
    assert (row.attempts, row.setbacks, row.last_error) == (1, 1, "error of this node: MemoryError")
    assert row.job_id != before
    assert row.next_attempt_at == results.now + 10
    (file,) = share.iterdir()
    file.unlink()
    assert results.deliver(1, "share") == DeliveryState.DELIVERED
    assert list(share.iterdir()) == []


def test_an_error_before_anything_is_known_is_followed_by_another_attempt(results, share, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(confirmations, "pending", _raise(OSError(5, "Input/output error")))
        assert results.deliver(1, "share") == DeliveryState.WAITING
    assert results.deliver(1, "share") == DeliveryState.DELIVERED


def test_an_error_that_stays_ends_with_patience(results, share, monkeypatch):
    monkeypatch.setattr(confirmations, "judge", _raise(TypeError()))
    results.deliver(1, "share")
    results.now += WEEK_S
    assert results.deliver(1, "share") == DeliveryState.REFUSED
    assert results.row(1, "share").last_error == "gave up after 604800 s: error of this node: TypeError"
    assert results.instance(1).state == InstanceState.DEAD_LETTER


def test_a_lost_lease_is_no_error(results, share, monkeypatch):
    monkeypatch.setattr(confirmations, "judge", _raise(LeaseLostError()))
    before = results.row(1, "share")
    with pytest.raises(LeaseLostError):
        results.deliver(1, "share")
    assert results.row(1, "share").job_id == before.job_id


def test_an_error_while_asking_for_commitment_is_followed_by_another_question(results, monkeypatch):
    results.destinations = (
        DicomDestination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, timeout_s=1, storage_commitment=True),
    )
    results.add(1, "pacs")
    monkeypatch.setattr(confirmations, "judge", lambda *_: (DeliveryState.DELIVERED, ""))
    assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
    monkeypatch.setattr(committing, "missing", _raise(MemoryError()))
    assert results.deliver(1, "pacs") == DeliveryState.COMMITTING
    assert results.row(1, "pacs").next_attempt_at == results.now + 10
    results.now += WEEK_S
    assert results.deliver(1, "pacs") == DeliveryState.DELIVERED
    note = "not committed: gave up after 604800 s: error of this node: MemoryError"
    assert results.row(1, "pacs").last_error == note
