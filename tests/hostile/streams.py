"""Compressed frames cut off, damaged, mislabelled or lying about themselves (SEC-06, SEC-07, SEC-24; M6, M7)."""

import copy
import functools
import struct
from collections.abc import Iterator

import numpy as np
from pydicom import FileDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from scp_node.demo import encodings
from tests.hostile.cases import DELIVERED, UNREADABLE, Case, Expected, instance_of
from tests.hostile.parts import data_set, picture, radiograph, window, with_frame

_J2K_MARKERS = b"\xff\x4f\xff\x51"
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


@functools.cache
def _encoded(syntax: str) -> FileDataset:
    """Encode once: one encoder is a program of its own."""
    if syntax == JPEGBaseline8Bit:
        return encodings.encode(radiograph("x", picture(), bits_stored=8, **window(1, 0)), syntax)
    return encodings.encode(radiograph("x"), syntax)


def _compressed(name: str, syntax: str) -> tuple[FileDataset, bytes]:
    dataset = copy.deepcopy(_encoded(syntax))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = instance_of(name)
    return dataset, get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")


def _case(name: str, dataset: FileDataset, expected: Expected = UNREADABLE, content: bytes | None = None) -> Case:
    return Case(
        name=name,
        content=data_set(dataset) if content is None else content,
        expected=expected,
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
    )


def _codecs() -> Iterator[tuple[str, str]]:
    for syntax in encodings.encodable_transfer_syntaxes():
        if UID(syntax).is_encapsulated:
            yield syntax, UID(syntax).name.partition(",")[0].replace(" Image Compression", "") + f" {syntax[-3:]}"


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for syntax, label in _codecs():
        yield from _cut(syntax, label)
        yield from _damaged(syntax, label)
    yield from _lying_headers()
    yield from _wrong_labels()
    yield from _fragments()


def _cut(syntax: str, label: str) -> Iterator[Case]:
    for share in (0.0, 0.05, 0.5, 0.98):
        name = f"cut/{label} at {share:.0%}"
        dataset, frame = _compressed(name, syntax)
        yield _case(name, with_frame(dataset, frame[: int(len(frame) * share)] or b"\0\0"))
    if syntax == RLELossless:
        return
    for share in (0.3, 0.6, 0.9, 0.99):
        name = f"cut/{label} at {share:.0%}, its end put back"
        dataset, frame = _compressed(name, syntax)
        yield _case(name, with_frame(dataset, frame[: int(len(frame) * share)] + frame[-2:]))


def _damaged(syntax: str, label: str) -> Iterator[Case]:
    """Damage that is found by necessity: so many bytes are missing or foreign that nothing falls into step again."""
    for kind in ("half of it zeros", "a part missing", "noise in the middle"):
        name = f"damage/{label}, {kind}"
        dataset, frame = _compressed(name, syntax)
        middle, part = len(frame) // 2, len(frame) // 5
        if kind == "half of it zeros":
            changed = frame[:middle] + bytes(len(frame) - middle - 2) + frame[-2:]
        elif kind == "a part missing":
            changed = frame[:middle] + frame[middle + part :]
        else:
            noise = np.random.default_rng(4).integers(0, 0xFF, part).astype(np.uint8).tobytes()
            changed = frame[:middle] + noise + frame[middle + part :]
        yield _case(name, with_frame(dataset, changed))


def _size_place(frame: bytes) -> int:
    """Return where a JPEG frame header has its number of rows."""
    position = 2
    while frame[position + 1] not in (0xC0, 0xC1, 0xC3, 0xF7):
        position += 2 + struct.unpack_from(">H", frame, position + 2)[0]
    return position + 5


def _lying_headers() -> Iterator[Case]:
    for syntax, label in _codecs():
        if syntax == RLELossless:
            continue
        for rows, columns in ((65535, 65535), (193, 160), (0, 0)):
            name = f"lies/{label} says {rows} x {columns}"
            dataset, frame = _compressed(name, syntax)
            if frame.startswith(_J2K_MARKERS):
                frame = frame[:8] + struct.pack(">LL", columns, rows) + frame[16:]
            else:
                place = _size_place(frame)
                frame = frame[:place] + struct.pack(">HH", rows, columns) + frame[place + 4 :]
            yield _case(name, with_frame(dataset, frame))
    for what, place, value in (
        ("no segment", 0, 0),
        ("15 segments", 0, 15),
        ("a first offset of 0", 4, 0),
        ("an offset beyond the end", 8, 1 << 31),
        ("two equal offsets", 8, 64),
    ):
        name = f"lies/RLE header with {what}"
        dataset, frame = _compressed(name, RLELossless)
        yield _case(name, with_frame(dataset, frame[:place] + struct.pack("<L", value) + frame[place + 4 :]))
    for what, marker in (("progressive", 0xC2), ("arithmetic", 0xC9), ("hierarchical", 0xC5)):
        name = f"lies/JPEG Baseline that is {what}"
        dataset, frame = _compressed(name, JPEGBaseline8Bit)
        place = _size_place(frame) - 4
        yield _case(name, with_frame(dataset, frame[:place] + bytes([marker]) + frame[place + 1 :]))
    name = "lies/JPEG with three components"
    dataset, frame = _compressed(name, JPEGBaseline8Bit)
    place = _size_place(frame) + 4
    yield _case(name, with_frame(dataset, frame[:place] + b"\3" + frame[place + 1 :]))
    name = "lies/JPEG 2000 with 16384 components"
    dataset, frame = _compressed(name, JPEG2000Lossless)
    yield _case(name, with_frame(dataset, frame[:40] + b"\x40\0" + frame[42:]))


def _wrong_labels() -> Iterator[Case]:
    pairs = (
        (JPEGBaseline8Bit, JPEGLosslessSV1),
        (JPEGLosslessSV1, JPEGBaseline8Bit),
        (JPEGLSLossless, JPEGLosslessSV1),
        (JPEG2000Lossless, JPEGBaseline8Bit),
        (JPEGBaseline8Bit, JPEG2000Lossless),
        (RLELossless, JPEGBaseline8Bit),
        (JPEGLosslessSV1, RLELossless),
        (JPEG2000Lossless, JPEGLSLossless),
        (HTJ2KLossless, JPEGLSLossless),
        (JPEGLSLossless, HTJ2KLossless),
    )
    for actual, label in pairs:
        name = f"label/{UID(actual).name.partition(',')[0]} called {UID(label).name.partition(',')[0]}"
        if actual not in encodings.encodable_transfer_syntaxes():
            continue
        dataset, _ = _compressed(name, actual)
        dataset.file_meta.TransferSyntaxUID = UID(label)
        yield _case(name, dataset)
    # The same process under two names: decodable, and by necessity the same picture.
    name = "label/JPEG Lossless SV1 called JPEG Lossless"
    dataset, _ = _compressed(name, JPEGLosslessSV1)
    dataset.file_meta.TransferSyntaxUID = JPEGLossless
    yield _case(name, dataset, DELIVERED)
    name = "label/compressed called Explicit VR Little Endian"
    dataset, frame = _compressed(name, JPEGBaseline8Bit)
    native = radiograph(name, picture(), bits_stored=8)
    native.PixelData = frame + b"\0" * (len(frame) % 2)
    yield _case(name, native)
    name = "label/encapsulated, called Explicit VR Little Endian"
    dataset, _ = _compressed(name, JPEGBaseline8Bit)
    content = data_set(dataset)
    native = radiograph(name)
    assert native.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    yield _case(name, native, content=content)


def _fragments() -> Iterator[Case]:
    """Encapsulation, PS3.5 A.4."""
    frames: dict[str, tuple[list[bytes] | None, bytes | None, Expected]] = {}
    _, whole = _compressed("x", JPEGLosslessSV1)
    half = len(whole) // 4 * 2
    pieces = [whole[:half], whole[half:] + b"\0" * (len(whole) % 2)]

    def item(content: bytes) -> bytes:
        return _ITEM + struct.pack("<L", len(content)) + content

    frames["two fragments, empty offset table"] = (
        None,
        item(b"") + item(pieces[0]) + item(pieces[1]) + _END,
        DELIVERED,
    )
    frames["an empty fragment first"] = (
        None,
        item(b"") + item(b"") + item(pieces[0]) + item(pieces[1]) + _END,
        DELIVERED,
    )
    frames["an empty fragment last"] = (
        None,
        item(b"") + item(pieces[0]) + item(pieces[1]) + item(b"") + _END,
        DELIVERED,
    )
    frames["no fragment"] = (None, item(b"") + _END, UNREADABLE)
    frames["only empty fragments"] = (None, item(b"") + item(b"") * 5 + _END, UNREADABLE)
    frames["no offset table"] = (None, item(pieces[0]) + item(pieces[1]) + _END, UNREADABLE)
    frames["nothing"] = (None, _END, UNREADABLE)
    frames["the frame twice"] = (None, item(b"") + item(pieces[0] + pieces[1]) * 2 + _END, UNREADABLE)
    frames["another frame behind it"] = (
        None,
        item(struct.pack("<L", 0)) + item(pieces[0] + pieces[1]) + item(b"abcd") + _END,
        UNREADABLE,
    )
    frames["an offset beyond the end"] = (
        None,
        item(struct.pack("<L", 1 << 30)) + item(pieces[0] + pieces[1]) + _END,
        UNREADABLE,
    )
    frames["an offset into the middle"] = (
        None,
        item(struct.pack("<L", 100)) + item(pieces[0]) + item(pieces[1]) + _END,
        UNREADABLE,
    )
    frames["an offset table of 3 bytes"] = (None, item(b"abc") + item(pieces[0] + pieces[1]) + _END, UNREADABLE)
    frames["a fragment longer than the file"] = (
        None,
        item(b"") + _ITEM + struct.pack("<L", 1 << 30) + pieces[0],
        UNREADABLE,
    )
    frames["no end"] = (None, item(b"") + item(pieces[0]) + item(pieces[1]), UNREADABLE)
    frames["a foreign tag among fragments"] = (
        None,
        item(b"") + item(pieces[0]) + b"\x10\0\x10\0PN\4\0abcd" + item(pieces[1]) + _END,
        UNREADABLE,
    )
    for what, (_, raw, expected) in frames.items():
        name = f"fragments/{what}"
        dataset, frame = _compressed(name, JPEGLosslessSV1)
        assert len(frame) == len(whole)
        content = data_set(with_frame(dataset, whole))
        start = content.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12
        yield _case(name, dataset, expected, content[:start] + (raw or b""))
    name = "fragments/extended offset table that lies"
    dataset, frame = _compressed(name, JPEGLosslessSV1)
    dataset.PixelData = encapsulate([frame], has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    dataset.ExtendedOffsetTable = struct.pack("<Q", 1 << 40)
    dataset.ExtendedOffsetTableLengths = struct.pack("<Q", 1 << 40)
    yield _case(name, dataset, DELIVERED)
