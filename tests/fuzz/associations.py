"""Fuzzes what reads bytes of a connection: A-ASSOCIATE-RQ, P-DATA, Command Sets, the beginning of Data Sets.

What may leave are the errors that the receiver answers or aborts with.
"""

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["scp_node.scp", "pynetdicom.pdu", "pynetdicom.pdu_items"]):
    from pynetdicom.pdu import A_ASSOCIATE_RQ

    from scp_node.scp.assembly import Assembler, split_fragments, take_apart
    from scp_node.scp.elements import IMPLICIT_LITTLE, Encoding, elements
    from scp_node.scp.handlers import AcceptedContext, Handlers, Reception
    from scp_node.scp.messages import Command, CommandError, parse_command
    from scp_node.scp.part10 import Implementation, is_uid, read_identity
    from scp_node.scp.statuses import StoreError

from config.base import Priority
from config.storage import SpoolSettings
from scp_node.records import Intake, ReceivedInstance
from scp_node.scp.callers import Peer
from scp_node.spool.store import Spool
from tests.support.raw_dicom import associate_request, data, data_set, store_command

_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_CR = "1.2.840.10008.5.1.4.1.1.1"
_PEER = Peer(calling_ae_title="FUZZ", called_ae_title="NODE", address="127.0.0.1", priority=Priority.ROUTINE)
_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
_SPOOL = Spool(SpoolSettings(folder=_FOLDER / "spool", minimum_free_bytes=0, retention_days=1))
_SPOOL.create()
accepted: list[ReceivedInstance] = []


def _accept(instance: ReceivedInstance) -> Intake:
    # What gets here was told to be sound: a UID that could be a path must not.
    assert is_uid(instance.sop_instance_uid)
    assert instance.file.parent == _SPOOL.incoming
    accepted[:] = [instance]
    return Intake.FILED


_HANDLERS = Handlers(
    spool=_SPOOL,
    accept=_accept,
    implementation=Implementation(class_uid="1.2.3", version_name="FUZZ"),
    maximum_object_bytes=1 << 20,
)


def _messages(content: bytes, syntax: str) -> None:
    """The body of P-DATA-TFs to the answers; four bytes of length lead each PDU."""
    context = AcceptedContext(abstract_syntax_uid=_CR, transfer_syntax_uid=syntax)

    def begin(command: Command, _context_id: int) -> Reception:
        return _HANDLERS.begin_c_store(command, context, _PEER)

    assembler = Assembler(begin)
    try:
        assert take_apart(memoryview(content), len(content))[1] <= len(content)
        for _, request in assembler.receive(split_fragments(memoryview(content))):
            if isinstance(request, Reception):
                _HANDLERS.on_c_store(request)
    except (CommandError, ValueError):
        pass
    finally:
        assembler.discard()
    assert not list(_SPOOL.incoming.iterdir()), "a temporary file was left"


def one_input(content: bytes) -> None:
    """Take one input; its first byte says which of the readers gets the rest."""
    if len(content) < 2:
        return
    kind, choice, rest = content[0] % 5, content[1], content[2:]
    syntax = _SYNTAXES[choice % len(_SYNTAXES)]
    if kind == 0:
        _messages(rest, syntax)
    elif kind == 1:
        with contextlib.suppress(CommandError):
            parse_command(rest)
    elif kind == 2:
        with contextlib.suppress(StoreError):
            read_identity(rest, syntax)
    elif kind == 3:
        encoding = (IMPLICIT_LITTLE, Encoding(is_implicit_vr=False, is_little_endian=choice & 8 == 0))[choice & 1]
        with contextlib.suppress(StoreError):
            for tag, value in elements(rest, encoding):
                assert 0 <= tag < 1 << 32
                assert len(value) <= len(rest)
    else:
        # The library's own decoder: it may raise what it likes, the connection's thread ends by it; it may not hang.
        with contextlib.suppress(Exception):
            request = A_ASSOCIATE_RQ()
            request.decode(rest)
            request.to_primitive()


def seeds() -> Iterator[bytes]:
    """Yield a corpus to begin with."""
    store = data(store_command(), 3)[6:] + data(data_set(filler=64), 2)[6:]
    for choice in range(4):
        yield bytes([0, choice]) + store
        yield bytes([2, choice]) + data_set(filler=16)
        yield bytes([3, choice]) + data_set(filler=16)
    yield bytes([1, 0]) + store_command()
    yield bytes([4, 0]) + associate_request()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.CRITICAL)
    import structlog

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if len(sys.argv) > 2 and sys.argv[1] == "--seeds":
        for index, seed in enumerate(seeds()):
            (Path(sys.argv[2]) / f"seed-{index}").write_bytes(seed)
    else:
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()
