"""Reads a multipart body while it arrives, part by part, in constant memory; writes nothing itself."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser
from starlette.requests import Request

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_MAXIMUM_BOUNDARY = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class MultipartError(Exception):
    """The body is not what its Content-Type says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartBegins:
    """A new part.

    Parameters
    ----------
    name
        Of the form field; empty in multipart/related.
    file_name
        As sent, without control characters and folders, at most 120 characters; for people only, never a path.
    """

    name: str
    file_name: str
    content_type: str


@dataclass(frozen=True, slots=True)
class PartData:
    """The next bytes of the part."""

    content: bytes


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The part is complete."""


Event = PartBegins | PartData | PartEnds


async def read_parts(request: Request, *, subtype: str, maximum_parts: int) -> AsyncIterator[Event]:
    """Yield what a multipart body consists of.

    Parameters
    ----------
    subtype
        ``form-data`` or ``related``.

    Raises
    ------
    MultipartError
        Not multipart of this kind, damaged, cut short, or of more parts than that.
    """
    kind = parse_content_type(request.headers.get("content-type", ""))
    boundary = kind.get_param("boundary")
    if kind.get_content_type() != f"multipart/{subtype}" or not isinstance(boundary, str):
        raise MultipartError(f"the body must be multipart/{subtype} with a boundary")
    if not 0 < len(boundary) <= _MAXIMUM_BOUNDARY:
        raise MultipartError("the boundary is empty or too long")
    collector = _Collector(maximum_parts)
    parser = MultipartParser(boundary.encode("latin-1", "replace"), collector.callbacks())
    async for chunk in request.stream():
        if not chunk:
            continue
        try:
            parser.write(chunk)
        except MultipartParseError as error:
            raise MultipartError("the body is no valid multipart") from error
        for event in collector.take():
            yield event
    if not collector.is_complete:
        raise MultipartError("the body ends before its last boundary")


def parse_content_type(value: str) -> Message:
    """Read a header like ``multipart/related; type="application/dicom"; boundary=x``."""
    message = Message()
    message["content-type"] = _CONTROL.sub("", value)
    return message


class _Collector:
    """Turns the parser's callbacks into events."""

    def __init__(self, maximum_parts: int) -> None:
        self.is_complete = False
        self._maximum_parts = maximum_parts
        self._parts = 0
        self._events: list[Event] = []
        self._headers: dict[str, str] = {}
        self._field = bytearray()
        self._value = bytearray()

    def callbacks(self) -> "MultipartCallbacks":
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self._events.append(PartData(bytes(data[start:end]))),
            "on_part_end": lambda: self._events.append(PartEnds()),
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._finish_headers,
            "on_end": self._end,
        }

    def take(self) -> list[Event]:
        """What has happened since the last call."""
        events, self._events = self._events, []
        return events

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._maximum_parts:
            raise MultipartError(f"more than {self._maximum_parts} parts")
        self._headers = {}

    def _end_header(self) -> None:
        self._headers[self._field.decode("latin-1").strip().lower()] = self._value.decode("utf-8", "replace").strip()
        self._field.clear()
        self._value.clear()

    def _finish_headers(self) -> None:
        disposition = Message()
        disposition["content-disposition"] = _CONTROL.sub("", self._headers.get("content-disposition", ""))
        name = disposition.get_param("name", "", "content-disposition")
        file_name = disposition.get_filename("") or ""
        self._events.append(
            PartBegins(
                name=name if isinstance(name, str) else "",
                file_name=display_name(file_name),
                content_type=self._headers.get("content-type", ""),
            )
        )

    def _end(self) -> None:
        self.is_complete = True


def display_name(name: str) -> str:
    """A file's name as it may be shown: the last part of its path, no control characters, not too long."""
    last = re.split(r"[/\\]", _CONTROL.sub("", name))[-1].strip()
    return last if len(last) <= 120 else f"{last[:100]}…{last[-19:]}"
