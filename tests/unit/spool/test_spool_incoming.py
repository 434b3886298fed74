"""A file that is being received: all bytes, in order, in whole blocks, however they come in."""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scp_node.spool import incoming
from scp_node.spool.incoming import HEAD_BYTES, IncomingFile
from scp_node.spool.writeback import begin_writing

BLOCK = incoming._BLOCK_BYTES


def pieces(lengths: Sequence[int]) -> list[bytes]:
    return [bytes([number % 251]) * length for number, length in enumerate(lengths)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.sampled_from([0, 1, 500, BLOCK - 1, BLOCK, BLOCK + 1]),
    batches=st.lists(
        st.lists(
            st.one_of(st.integers(0, 20), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])), max_size=6
        ),
        max_size=6,
    ),
)
def test_what_is_written_is_what_came(tmp_path: Path, header: int, batches: list[list[int]]) -> None:
    file = IncomingFile(tmp_path / "x.part", bytes(header))
    content = b""
    for batch in batches:
        file.write(*pieces(batch))
        content += b"".join(pieces(batch))
    file.close()
    assert file.path.read_bytes() == bytes(header) + content
    assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert file.head == content[:HEAD_BYTES]
    file.discard()


def test_all_writes_but_the_last_end_where_a_block_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins or ends within a block costs the kernel more."""
    file = IncomingFile(tmp_path / "x.part", bytes(390))
    ends = []
    original = os.writev

    def writev(descriptor: int, buffers: Sequence[bytes]) -> int:
        written = original(descriptor, buffers)
        ends.append(os.lseek(descriptor, 0, os.SEEK_CUR))
        return written

    monkeypatch.setattr(os, "writev", writev)
    for _ in range(5):
        file.write(*pieces([131060] * 4))
    file.close()
    assert len(ends) == 6
    assert all(end % BLOCK == 0 for end in ends[:-1])
    file.discard()


def test_small_pieces_are_not_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the kernel takes at once, and less than a block each."""
    calls = []
    original = os.writev
    monkeypatch.setattr(os, "writev", lambda *arguments: calls.append(1) or original(*arguments))
    file = IncomingFile(tmp_path / "x.part")
    file.write(*pieces([3] * 5000))
    for _ in range(1000):
        file.write(b"abc")
    file.close()
    assert file.path.stat().st_size == 18_000
    assert len(calls) <= 18_000 // BLOCK + 1
    file.discard()


def test_a_write_that_took_a_part_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before a quota, or on a signal."""
    original = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, buffers: original(descriptor, [b"".join(buffers)[:5000]]))
    file = IncomingFile(tmp_path / "x.part")
    content = os.urandom(50_000)
    file.write(content[:20_000], content[20_000:])
    file.close()
    assert file.path.read_bytes() == content
    file.discard()


def test_nothing_is_written_to_a_file_that_was_closed(tmp_path: Path) -> None:
    file = IncomingFile(tmp_path / "x.part")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.write(bytes(BLOCK))
    file.discard()
    assert not list(tmp_path.iterdir())


def test_the_kernel_begins_to_write_while_the_rest_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte once, in the order of the file; a small file is left to the fsync."""
    begun = []
    monkeypatch.setattr(incoming, "begin_writing", lambda _descriptor, start, count: begun.append((start, count)))
    small, large = IncomingFile(tmp_path / "small.part"), IncomingFile(tmp_path / "large.part", b"header")
    small.write(bytes(2**20))
    assert not begun
    for _ in range(6):
        large.write(bytes(2**20 - 100))
    end = 0
    for start, count in begun:
        assert start == end
        end += count
    assert 4 * 2**20 <= end <= 6 * 2**20
    small.discard()
    large.discard()


@pytest.mark.skipif(sys.platform != "linux", reason="sync_file_range is Linux's")
def test_a_hint_that_the_kernel_refuses_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    begin_writing(writing, 0, 4096)
    os.close(reading)
    os.close(writing)
    begin_writing(writing, 0, 4096)
    with (tmp_path / "x").open("wb", buffering=0) as file:
        file.write(bytes(8192))
        begin_writing(file.fileno(), 0, 8192)
