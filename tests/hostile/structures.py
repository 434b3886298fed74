"""Data Sets that are broken as such: lengths, nesting, deflate, order, truncation (SEC-08, SEC-09; M8, M9)."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from scp_node.demo import encodings
from tests.hostile.cases import DELIVERED, EXPLICIT_LITTLE, UNREADABLE, Case, Expected, refused
from tests.hostile.parts import data_set, element, elements, joined, radiograph, text

_PIXELS = 0x7FE00010
_SEQUENCE = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff"
_ITEM_OPEN = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_CLOSE = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
_CANNOT_UNDERSTAND, _MISMATCH = refused("c000"), refused("a900")


def _case(name: str, content: bytes, expected: Expected, syntax: str = EXPLICIT_LITTLE) -> Case:
    return Case(name=name, content=content, expected=expected, transfer_syntax=syntax)


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _truncated()
    yield from _lengths()
    yield from _nested()
    yield from _deflated()
    yield from _foreign()
    yield from _odd_but_legal()


def _truncated() -> Iterator[Case]:
    for share, expected in (
        (0.001, _MISMATCH),
        # Between two elements: nothing tells it from a Data Set without pixels.
        (0.01, Expected(state="not_eligible", reason="no_pixels")),
        (0.02, UNREADABLE),
        (0.5, UNREADABLE),
        (0.9, UNREADABLE),
        (0.9999, UNREADABLE),
    ):
        name = f"truncated/Explicit Little Endian at {share:.2%}"
        content = data_set(radiograph(name))
        yield _case(name, content[: int(len(content) * share)], expected)
    for syntax, label in ((ImplicitVRLittleEndian, "Implicit"), (ExplicitVRBigEndian, "Big Endian")):
        for share in (0.02, 0.6):
            name = f"truncated/{label} at {share:.0%}"
            content = data_set(encodings.encode(radiograph(name), syntax))
            yield _case(name, content[: int(len(content) * share)], UNREADABLE, str(syntax))
    for what, change in (("one byte short", -1), ("two bytes short", -2), ("a row short", -320), ("twice as long", 2)):
        name = f"pixels/{what}"
        dataset = radiograph(name)
        dataset.PixelData = dataset.PixelData * 2 if change > 0 else dataset.PixelData[:change]
        parts = elements(dataset)
        parts[_PIXELS] = element(_PIXELS, "OW", dataset.PixelData)
        yield _case(name, joined(parts), UNREADABLE)


def _lengths() -> Iterator[Case]:
    for what, tag, vr, length, expected in (
        ("Patient's Name of 65534 bytes", 0x00100010, "PN", 65534, UNREADABLE),
        ("Patient's Name of 7 bytes", 0x00100010, "PN", 7, UNREADABLE),
        ("Pixel Data of 4 GiB", _PIXELS, "OW", 0xFFFFFFFE, UNREADABLE),
        ("Pixel Data of no length", _PIXELS, "OW", 0, UNREADABLE),
        ("a text of 2 GiB", 0x00204000, "UT", 0x7FFFFFFE, UNREADABLE),
        ("a text of undefined length", 0x00204000, "UT", 0xFFFFFFFF, UNREADABLE),
        ("unknown of 4 GiB", 0x00091001, "UN", 0xFFFFFFFE, UNREADABLE),
    ):
        name = f"lengths/{what}"
        parts = elements(radiograph(name))
        value = parts[tag][12 if vr == "OW" else 8 :] if tag in parts else b"abcd"
        parts[tag] = element(tag, vr, value, length)
        yield _case(name, joined(parts), expected)
    for what, raw, expected in (
        ("a sequence longer than the file", b"\x40\x00\x75\x02SQ\0\0" + struct.pack("<L", 1 << 30), UNREADABLE),
        (
            # The sequence says where it ends, and nothing beyond is taken for its item.
            "an item longer than its sequence",
            b"\x40\x00\x75\x02SQ\0\0" + struct.pack("<L", 8) + b"\xfe\xff\x00\xe0" + struct.pack("<L", 1 << 20),
            DELIVERED,
        ),
        ("a sequence without end", _SEQUENCE + _ITEM_OPEN, UNREADABLE),
    ):
        name = f"lengths/{what}"
        parts = elements(radiograph(name))
        parts[0x00400275] = raw
        yield _case(name, joined(parts), expected)


def _nested() -> Iterator[Case]:
    for depth, expected in ((50, DELIVERED), (1000, UNREADABLE), (20000, UNREADABLE)):
        name = f"nested/{depth} sequences"
        parts = elements(radiograph(name))
        parts[0x00400275] = (_SEQUENCE + _ITEM_OPEN) * depth + _CLOSE * depth
        yield _case(name, joined(parts), expected)
    name = "nested/10000 items"
    parts = elements(radiograph(name))
    parts[0x00400275] = _SEQUENCE + b"\xfe\xff\x00\xe0\0\0\0\0" * 10_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    yield _case(name, joined(parts), DELIVERED)


def squeezed(content: bytes, bomb_bytes: int) -> bytes:
    """Deflate, with a megabyte of zeros over and over behind it: squeezed once, it stands for itself anywhere."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = squeezer.compress(content) + squeezer.flush(zlib.Z_FULL_FLUSH)
    block = squeezer.compress(bytes(1 << 20)) + squeezer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (bomb_bytes >> 20) + squeezer.flush()


def _deflated() -> Iterator[Case]:
    syntax = str(DeflatedExplicitVRLittleEndian)
    name = "deflate/a bomb of 1 GiB behind the pixels"
    yield _case(name, squeezed(data_set(radiograph(name)), 1 << 30), UNREADABLE, syntax)
    name = "deflate/a bomb inside an element"
    parts = elements(radiograph(name))
    head = joined({tag: part for tag, part in parts.items() if tag < 0x00091001})
    bomb = squeezed(head + element(0x00091001, "UN", b"", 0x30000000), 0x30000000)
    yield _case(name, bomb, UNREADABLE, syntax)
    name = "deflate/not deflated"
    yield _case(name, data_set(radiograph(name)), _CANNOT_UNDERSTAND, syntax)
    name = "deflate/with a zlib header"
    yield _case(name, zlib.compress(data_set(radiograph(name))), _CANNOT_UNDERSTAND, syntax)
    for share in (0.5, 0.99):
        name = f"deflate/truncated at {share:.0%}"
        content = squeezed(data_set(radiograph(name)), 0)
        yield _case(name, content[: int(len(content) * share)], UNREADABLE, syntax)
    name = "deflate/damaged in the middle"
    content = bytearray(squeezed(data_set(radiograph(name)), 0))
    content[len(content) // 2 : len(content) // 2 + 64] = b"\xff" * 64
    yield _case(name, bytes(content), UNREADABLE, syntax)


def _foreign() -> Iterator[Case]:
    noise = np.random.default_rng(9).bytes(4000)
    for what, content, expected in (
        ("nothing", b"", _CANNOT_UNDERSTAND),
        ("one byte", b"\x08", _MISMATCH),
        ("zeros", bytes(5000), _CANNOT_UNDERSTAND),
        ("noise", noise, _CANNOT_UNDERSTAND),
        ("a PNG", b"\x89PNG\r\n\x1a\n" + noise, _CANNOT_UNDERSTAND),
        ("a program (MZ)", b"MZ\x90\0" + noise, _CANNOT_UNDERSTAND),
        ("a program (ELF)", b"\x7fELF\2\1\1\0" + noise, _CANNOT_UNDERSTAND),
        ("a script", b"#!/bin/sh\nrm -rf /\n" + noise, _CANNOT_UNDERSTAND),
        ("HTML", b"<html><script>alert(1)</script></html>" + noise, _CANNOT_UNDERSTAND),
        ("JSON", b'{"00080018": {"vr": "UI"}}' * 100, _CANNOT_UNDERSTAND),
    ):
        yield _case(f"foreign/{what}", content, expected)
    for what, start in (("MZ", b"MZ"), ("ELF", b"\x7fELF"), ("#!", b"#!/bin/sh\n")):
        name = f"foreign/a whole file with the preamble {what}"
        dataset = radiograph(name)
        yield _case(name, start + bytes(128 - len(start)) + b"DICM" + data_set(dataset), _CANNOT_UNDERSTAND)
    name = "foreign/Implicit called Explicit"
    yield _case(name, data_set(encodings.encode(radiograph(name), ImplicitVRLittleEndian)), _CANNOT_UNDERSTAND)
    name = "foreign/Explicit called Implicit"
    yield _case(name, data_set(radiograph(name)), _MISMATCH, str(ImplicitVRLittleEndian))
    name = "foreign/Big Endian called Little Endian"
    yield _case(name, data_set(encodings.encode(radiograph(name), ExplicitVRBigEndian)), _MISMATCH)
    name = "foreign/zeros behind the identity"
    parts = elements(radiograph(name))
    yield _case(name, parts[0x00080016] + parts[0x00080018] + bytes(3000), UNREADABLE)
    name = "foreign/noise behind the identity"
    parts = elements(radiograph(name))
    yield _case(name, parts[0x00080016] + parts[0x00080018] + noise, UNREADABLE)


def _odd_but_legal() -> Iterator[Case]:
    for what, extra in (
        (
            "private elements of odd kinds",
            {
                0x00090010: element(0x00090010, "LO", text("ACME")),
                0x00091001: element(0x00091001, "UN", b"\xff" * 300),
                0x00091002: element(0x00091002, "OB", bytes(1000)),
                0x00091003: element(0x00091003, "FD", struct.pack("<d", float("nan"))),
            },
        ),
        (
            "a private sequence of undefined length",
            {
                0x00090010: element(0x00090010, "LO", text("ACME")),
                0x00091001: b"\x09\0\x01\x10UN\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
            },
        ),
        ("private elements without a creator", {0x00091001: element(0x00091001, "LO", text("no creator"))}),
        ("group lengths", {0x00080000: element(0x00080000, "UL", struct.pack("<L", 99999))}),
        ("trailing padding", {0xFFFCFFFC: element(0xFFFCFFFC, "OB", bytes(64))}),
        (
            "digital signatures of garbage",
            {0xFFFAFFFA: b"\xfa\xff\xfa\xffSQ\0\0" + struct.pack("<L", 8) + b"\xfe\xff\x00\xe0\0\0\0\0"},
        ),
        (
            "overlay of another size",
            {
                0x60000010: element(0x60000010, "US", b"\xff\xff"),
                0x60000011: element(0x60000011, "US", b"\xff\xff"),
                0x60003000: element(0x60003000, "OW", bytes(8)),
            },
        ),
        (
            "curve data",
            {0x50000005: element(0x50000005, "US", b"\2\0"), 0x50003000: element(0x50003000, "OW", bytes(64))},
        ),
        (
            "an icon",
            {
                0x00880200: b"\x88\0\0\2SQ\0\0"
                + struct.pack("<L", 8 + 12 + 4)
                + b"\xfe\xff\x00\xe0"
                + struct.pack("<L", 16)
                + element(_PIXELS, "OB", b"abcd")
            },
        ),
    ):
        name = f"odd/{what}"
        yield _case(name, joined(elements(radiograph(name)) | extra), DELIVERED)
    name = "odd/Pixel Data inside another sequence only"
    parts = elements(radiograph(name))
    del parts[_PIXELS]
    parts[0x00880200] = (
        b"\x88\0\0\2SQ\0\0"
        + struct.pack("<L", 24)
        + b"\xfe\xff\x00\xe0"
        + struct.pack("<L", 16)
        + element(_PIXELS, "OB", b"abcd")
    )
    yield _case(name, joined(parts), Expected(state="not_eligible", reason="no_pixels"))
    name = "odd/one byte a PDU"
    yield Case(name=name, content=data_set(radiograph(name))[:3000], expected=UNREADABLE, fragments=3000)
