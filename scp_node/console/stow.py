"""STOW-RS (PS3.18 10.5): objects by HTTP, through the very intake that C-STORE has."""

from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from config.base import Priority
from scp_node.console.access import Visitor
from scp_node.console.guard import problem
from scp_node.console.multipart import PartBegins, PartData, parse_content_type, read_parts
from scp_node.console.requests import OpenServices, Operator
from scp_node.console.services import Services
from scp_node.jobs.acting import acting_as
from scp_node.jobs.user_actions import REFUSED, STORE
from scp_node.scp.callers import Peer
from scp_node.scp.contexts import supported_contexts
from scp_node.scp.elements import Encoding, elements
from scp_node.scp.handlers import AcceptedContext, Handlers, Reception
from scp_node.scp.messages import Command, CommandField
from scp_node.scp.part10 import decode_uid, is_uid
from scp_node.scp.statuses import Answer, DataSetError, SopClassError, Status, StoreError, answer_to

router = APIRouter(prefix="/dicom-web", tags=["DICOMweb"])

CALLING_AE_TITLE = "STOW-RS"
"""Stands where a C-STORE has its Calling AE Title."""
_MAXIMUM_PARTS = 10_000
_WRITE_BYTES = 1 << 20
_PREAMBLE = 132
_META = Encoding(is_implicit_vr=False, is_little_endian=True)
_MAXIMUM_META_BYTES = 16384

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/related": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/dicom+json": {}}, "description": "All instances are stored."},
    202: {"description": "Some instances are stored, some are not."},
    400: {"description": "No multipart body of DICOM objects."},
    403: {"description": "The role does not allow it."},
    409: {"description": "No instance is stored."},
    413: {"description": "Larger than console.maximum_upload_bytes."},
    415: {"description": 'Only multipart/related; type="application/dicom" is taken.'},
    503: {"description": "There is no database yet."},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What became of one part."""

    sop_class_uid: str
    sop_instance_uid: str
    answer: Answer


@router.post("/studies", openapi_extra=_BODY, responses=_RESPONSES, response_class=JSONResponse)
async def store(request: Request, services: OpenServices, visitor: Operator) -> Response:
    """Store instances; each is durable, and its job too, before the answer says so."""
    kind = parse_content_type(request.headers.get("content-type", ""))
    inner = kind.get_param("type")
    if kind.get_content_type() != "multipart/related" or inner != "application/dicom":
        return problem(415, 'only multipart/related; type="application/dicom" is taken')
    peer = Peer(
        calling_ae_title=CALLING_AE_TITLE,
        called_ae_title=services.settings.receiver.ae_title,
        address=visitor.address,
        priority=Priority.ROUTINE,
    )
    handlers = await anyio.to_thread.run_sync(lambda: services.handlers)
    supported = await anyio.to_thread.run_sync(_supported, services)
    stored: list[Stored] = []
    part: _Part | None = None
    try:
        async for event in read_parts(request, subtype="related", maximum_parts=_MAXIMUM_PARTS):
            if isinstance(event, PartBegins):
                part = _Part(handlers, peer, supported)
            elif part is None:
                continue
            elif isinstance(event, PartData):
                if part.take(event.content):
                    await anyio.to_thread.run_sync(part.write)
            else:
                with acting_as(visitor.name, visitor.address):
                    stored.append(await anyio.to_thread.run_sync(part.end))
                part = None
    finally:
        if part is not None:
            part.discard()
        # Also of a body that breaks off: what came before it is stored.
        await anyio.to_thread.run_sync(_record, services, visitor, stored)
    if not stored:
        return problem(400, "the body has no parts")
    good = sum(1 for one in stored if one.answer.status is Status.SUCCESS)
    status = 200 if good == len(stored) else 202 if good else 409
    return JSONResponse(_response(stored), status_code=status, media_type="application/dicom+json")


class _Part:
    """One object on its way to the disk.

    Bytes are gathered on the event loop and written by a thread, some at a time.
    """

    def __init__(self, handlers: Handlers, peer: Peer, supported: frozenset[tuple[str, str]]) -> None:
        self._handlers = handlers
        self._peer = peer
        self._supported = supported
        self._buffer = bytearray()
        self._reception: Reception | None = None
        self._error: StoreError | None = None
        self._identity = "", ""

    def take(self, content: bytes) -> bool:
        """Take the next bytes; whether it is time to write."""
        if self._error is None:
            self._buffer += content
        return len(self._buffer) >= _WRITE_BYTES

    def write(self) -> None:
        """Write what was gathered."""
        if self._error is not None:
            self._buffer.clear()
            return
        if self._reception is None:
            try:
                self._begin()
            except StoreError as error:
                self._error = error
                self._buffer.clear()
                return
        if self._reception is not None:
            self._reception.write(bytes(self._buffer))
        self._buffer.clear()

    def end(self) -> Stored:
        """File the object, and say what became of it."""
        self.write()
        sop_class_uid, sop_instance_uid = self._identity
        if self._reception is not None:
            answer = self._handlers.on_c_store(self._reception)
        else:
            answer = answer_to(self._error or DataSetError("the part is empty"))
            self._handlers.refused(answer)
        return Stored(sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid, answer=answer)

    def discard(self) -> None:
        """The request ended in the middle of it."""
        if self._reception is not None:
            self._reception.discard()

    def _begin(self) -> None:
        """Read the File Meta Information; what follows it is the Data Set (PS3.10 7.1)."""
        content = bytes(self._buffer[: _PREAMBLE + 12 + _MAXIMUM_META_BYTES])
        if content[128:_PREAMBLE] != b"DICM" or content[_PREAMBLE : _PREAMBLE + 8] != b"\2\0\0\0UL\4\0":
            raise DataSetError("no DICOM file with File Meta Information")
        length = int.from_bytes(content[_PREAMBLE + 8 : _PREAMBLE + 12], "little")
        begin = _PREAMBLE + 12
        if length > _MAXIMUM_META_BYTES or len(content) < begin + length:
            raise DataSetError("File Meta Information is too long or cut short")
        meta = dict(elements(content[begin : begin + length], _META))
        sop_class_uid, sop_instance_uid, transfer_syntax_uid = (
            decode_uid(meta.get(tag, b"")) for tag in (0x00020002, 0x00020003, 0x00020010)
        )
        self._identity = sop_class_uid, sop_instance_uid
        if (sop_class_uid, transfer_syntax_uid) not in self._supported:
            raise SopClassError("SOP Class or transfer syntax is not taken here")
        self._reception = self._handlers.begin_c_store(
            Command(
                field=CommandField.C_STORE_RQ,
                message_id=0,
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                has_data_set=True,
            ),
            AcceptedContext(abstract_syntax_uid=sop_class_uid, transfer_syntax_uid=transfer_syntax_uid),
            self._peer,
        )
        del self._buffer[: begin + length]


def _supported(services: Services) -> frozenset[tuple[str, str]]:
    """SOP Classes and transfer syntaxes that C-STORE takes."""
    return frozenset(
        (str(context.abstract_syntax), str(syntax))
        for context in supported_contexts(services.transfer_syntaxes)
        for syntax in context.transfer_syntax or ()
    )


def _record(services: Services, visitor: Visitor, stored: list[Stored]) -> None:
    for one in stored:
        services.record(
            visitor,
            STORE,
            # What is no UID may be anything, a name too.
            subject=one.sop_instance_uid if is_uid(one.sop_instance_uid) else "",
            after="stored" if one.answer.status is Status.SUCCESS else f"{REFUSED}{one.answer.comment}",
        )


def _response(stored: list[Stored]) -> dict[str, Any]:
    """The Store Instances Response Module (PS3.18 Annex I) as DICOM JSON."""
    good = [_reference(one) for one in stored if one.answer.status is Status.SUCCESS]
    bad = [
        _reference(one) | {"00081197": {"vr": "US", "Value": [int(one.answer.status)]}}
        for one in stored
        if one.answer.status is not Status.SUCCESS
    ]
    module: dict[str, Any] = {}
    if bad:
        module["00081198"] = {"vr": "SQ", "Value": bad}
    if good:
        module["00081199"] = {"vr": "SQ", "Value": good}
    return module


def _reference(one: Stored) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [one.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [one.sop_instance_uid]},
    }
