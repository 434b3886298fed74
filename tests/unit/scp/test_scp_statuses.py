"""Every error has one answer."""

import pytest
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from scp_node.errors import NodeError, SpoolFullError
from scp_node.scp.statuses import (
    SUCCESS,
    Answer,
    DataSetError,
    DataSetMismatchError,
    InvalidUidError,
    SopClassError,
    Status,
    answer_to,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SpoolFullError("x"), 0xA700),
        (InvalidUidError("x"), 0x0117),
        (SopClassError("x"), 0x0122),
        (DataSetMismatchError("x"), 0xA900),
        (DataSetError("x"), 0xC000),
        (NodeError("x"), 0xA700),
        (OSError(5, "broken disk"), 0xA700),
        (RuntimeError("database is locked"), 0xA700),
    ],
)
def test_an_error_becomes_a_status(error: Exception, status: int) -> None:
    assert answer_to(error).status == status


def test_comments_fit_and_tell_nothing_of_the_inside() -> None:
    assert answer_to(DataSetError("x" * 100)).comment == "x" * 64
    inside = "postgresql://user@host"
    for error in (RuntimeError(inside), OSError(2, inside), SpoolFullError(inside)):
        assert "host" not in answer_to(error).comment


def test_success_says_nothing() -> None:
    assert Answer(status=Status.SUCCESS) == SUCCESS
    assert SUCCESS.status == 0


def test_every_status_is_one_of_the_storage_service() -> None:
    assert all(int(status) in STORAGE_SERVICE_CLASS_STATUS for status in Status)
