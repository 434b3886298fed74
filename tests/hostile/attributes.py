"""Attributes that lie, are missing, or are written to do harm where they are shown (SEC-21, 24, 40 to 43, 45, 47)."""

import struct
from collections.abc import Iterator

import numpy as np
from pydicom import Dataset
from pydicom.sequence import Sequence

from tests.hostile.cases import DELIVERED, UNREADABLE, Case, Expected, instance_of, not_eligible, refused
from tests.hostile.parts import data_set, element, elements, identity_of, joined, picture, radiograph, text

_PIXELS, _POOR = not_eligible("unsupported_pixels"), not_eligible("poor_quality")
_NO_RESULTS = Expected(state="dead_letter", reason="results")
_HIDING = {("Slope", "1e-320"), ("Window Width", "1e-320"), ("Window Width", "1\\2\\3")}
_INVALID_UID, _MISMATCH, _NOT_SUPPORTED, _CANNOT_UNDERSTAND = map(refused, ("0117", "a900", "0122", "c000"))


def cases() -> Iterator[Case]:
    """Yield all of them."""
    yield from _image_pixel_module()
    yield from _numbers()
    yield from _tables()
    yield from _identity()
    yield from _uids()
    yield from _texts()


def _changed(name: str, expected: Expected, changes: dict[int, bytes | None]) -> Case:
    """A sound radiograph in which some elements are replaced, or left out."""
    parts = elements(radiograph(name))
    for tag, raw in changes.items():
        if raw is None:
            del parts[tag]
        else:
            parts[tag] = raw
    return Case(name=name, content=joined(parts), expected=expected)


def _us(tag: int, *values: int) -> bytes:
    return element(tag, "US", struct.pack(f"<{len(values)}H", *values))


def _image_pixel_module() -> Iterator[Case]:
    table: tuple[tuple[str, Expected, dict[int, bytes | None]], ...] = (
        ("no Rows", UNREADABLE, {0x00280010: None}),
        ("0 rows", UNREADABLE, {0x00280010: _us(0x00280010, 0)}),
        ("0 columns", UNREADABLE, {0x00280011: _us(0x00280011, 0)}),
        ("65535 x 65535", UNREADABLE, {0x00280010: _us(0x00280010, 65535), 0x00280011: _us(0x00280011, 65535)}),
        ("one row more", UNREADABLE, {0x00280010: _us(0x00280010, 193)}),
        ("rows and columns swapped twice as wide", UNREADABLE, {0x00280011: _us(0x00280011, 320)}),
        ("Rows with two values", UNREADABLE, {0x00280010: _us(0x00280010, 192, 7)}),
        ("Rows of three bytes", UNREADABLE, {0x00280010: element(0x00280010, "US", b"\xc0\0\0")}),
        ("Rows as text", UNREADABLE, {0x00280010: element(0x00280010, "LO", b"many")}),
        ("Bits Allocated 0", _PIXELS, {0x00280100: _us(0x00280100, 0)}),
        ("Bits Allocated 1", _PIXELS, {0x00280100: _us(0x00280100, 1)}),
        ("Bits Allocated 12", _PIXELS, {0x00280100: _us(0x00280100, 12)}),
        ("Bits Allocated 32", _PIXELS, {0x00280100: _us(0x00280100, 32)}),
        ("Bits Allocated 64", _PIXELS, {0x00280100: _us(0x00280100, 64)}),
        ("no Bits Allocated", UNREADABLE, {0x00280100: None}),
        (
            "Bits Allocated 8 for 16",
            UNREADABLE,
            {0x00280100: _us(0x00280100, 8), 0x00280101: _us(0x00280101, 8), 0x00280102: _us(0x00280102, 7)},
        ),
        ("Bits Stored 0", UNREADABLE, {0x00280101: _us(0x00280101, 0)}),
        ("Bits Stored 17", UNREADABLE, {0x00280101: _us(0x00280101, 17)}),
        ("High Bit 3", UNREADABLE, {0x00280102: _us(0x00280102, 3)}),
        ("High Bit 16", UNREADABLE, {0x00280102: _us(0x00280102, 16)}),
        ("no High Bit", DELIVERED, {0x00280102: None}),
        ("Pixel Representation 2", UNREADABLE, {0x00280103: _us(0x00280103, 2)}),
        ("no Pixel Representation", UNREADABLE, {0x00280103: None}),
        ("0 samples", _PIXELS, {0x00280002: _us(0x00280002, 0)}),
        ("2 samples", _PIXELS, {0x00280002: _us(0x00280002, 2)}),
        ("65535 samples", _PIXELS, {0x00280002: _us(0x00280002, 65535)}),
        ("3 samples for 1", UNREADABLE, {0x00280002: _us(0x00280002, 3)}),
        ("palette colour without palette", _PIXELS, {0x00280004: element(0x00280004, "CS", b"PALETTE COLOR ")}),
        ("no photometric interpretation", _PIXELS, {0x00280004: None}),
        ("RGB with one sample", _PIXELS, {0x00280004: element(0x00280004, "CS", b"RGB ")}),
        (
            "a photometric interpretation of garbage",
            _PIXELS,
            {0x00280004: element(0x00280004, "CS", b"\x1b[2J\xff\xfe")},
        ),
        ("2 frames", _PIXELS, {0x00280008: element(0x00280008, "IS", b"2 ")}),
        ("2147483647 frames", _PIXELS, {0x00280008: element(0x00280008, "IS", b"2147483647")}),
        ("-1 frames", DELIVERED, {0x00280008: element(0x00280008, "IS", b"-1")}),
        ("frames as garbage", UNREADABLE, {0x00280008: element(0x00280008, "IS", b"many")}),
        ("no Pixel Data", not_eligible("no_pixels"), {0x7FE00010: None}),
        ("empty Pixel Data", UNREADABLE, {0x7FE00010: element(0x7FE00010, "OW", b"")}),
        (
            "float pixels",
            not_eligible("no_pixels"),
            {0x7FE00010: None, 0x7FE00008: element(0x7FE00008, "OF", bytes(4 * 192 * 160))},
        ),
        (
            "Pixel Data of VR UN",
            DELIVERED,
            {0x7FE00010: element(0x7FE00010, "UN", (picture().astype("<u2") * 16).tobytes())},
        ),
    )
    for what, expected, changes in table:
        yield _changed(f"pixel module/{what}", expected, changes)


def _numbers() -> Iterator[Case]:
    """Decimal strings that are none, or that no arithmetic survives; a wrong one is passed over and noted."""
    values = (
        "NaN",
        "inf",
        "-1e308",
        "1e400",
        "0",
        "",
        "abc",
        "1,5",
        "--1",
        "0x10",
        "9" * 16,
        "1e-320",
        "\\\\",
        "1\\2\\3",
    )
    for keyword, tag in (
        ("Slope", 0x00281053),
        ("Intercept", 0x00281052),
        ("Window Width", 0x00281051),
        ("Window Center", 0x00281050),
    ):
        for value in values:
            other = {0x00281053: 0x00281052, 0x00281052: 0x00281053}.get(tag)
            changes: dict[int, bytes | None] = {tag: element(tag, "DS", text(value))}
            if other:
                changes[other] = element(other, "DS", b"1 ")
            shown = value.encode("unicode_escape").decode() or "empty"
            # Legal numbers by which nothing can be seen: the quality gate finds what the window made of the picture.
            hides = (keyword, value) in _HIDING
            yield _changed(f"numbers/{keyword} {shown}", _POOR if hides else DELIVERED, changes)
    for value, expected in (("-4096", DELIVERED), ("-0", DELIVERED), ("0.5", _POOR)):
        yield _changed(f"numbers/Window Width {value}", expected, {0x00281051: element(0x00281051, "DS", text(value))})
    yield _changed(
        "numbers/padding of the whole range",
        not_eligible("poor_quality"),
        {0x00280120: _us(0x00280120, 0), 0x00280121: _us(0x00280121, 65535)},
    )
    yield _changed(
        "numbers/lung window as if HU",
        DELIVERED,
        {
            0x00281053: element(0x00281053, "DS", b"1 "),
            0x00281052: element(0x00281052, "DS", b"-1024 "),
            0x00281054: element(0x00281054, "LO", b"US"),
        },
    )
    yield from _shutters()


def _shutters() -> Iterator[Case]:
    """Display Shutters that hide nothing because they make no sense."""
    shapes: tuple[tuple[str, str, dict[int, str]], ...] = (
        ("rectangle without edges", "RECTANGULAR", {}),
        ("rectangle inside out", "RECTANGULAR", {0x00181602: "99", 0x00181604: "1", 0x00181606: "1", 0x00181608: "99"}),
        (
            "rectangle of words",
            "RECTANGULAR",
            {0x00181602: "left", 0x00181604: "right", 0x00181606: "", 0x00181608: "x"},
        ),
        ("circle that is huge", "CIRCULAR", {0x00181610: "1\\1", 0x00181612: "999999999999"}),
        ("circle elsewhere", "CIRCULAR", {0x00181610: "-5000\\-5000", 0x00181612: "3"}),
        ("polygon of one vertex", "POLYGONAL", {0x00181620: "1\\1"}),
        ("polygon of huge numbers", "POLYGONAL", {0x00181620: "1\\1\\2147483647\\1\\1\\-2147483648"}),
        ("shape of garbage", "\x1b[2J", {}),
    )
    for what, shape, values in shapes:
        changes: dict[int, bytes | None] = {0x00181600: element(0x00181600, "CS", text(shape))}
        changes |= {tag: element(tag, "IS", text(value)) for tag, value in values.items()}
        yield _changed(f"shutters/{what}", DELIVERED, changes)


def _tables() -> Iterator[Case]:
    """Lookup tables whose descriptors lie: passed over, or used as far as they go."""
    full = np.rint(np.arange(4096) / 4095 * 65535).astype("<u2").tobytes()
    table: tuple[tuple[str, tuple[int, int, int] | None, bytes], ...] = (
        ("no descriptor", None, full),
        ("0 entries for 65536", (0, 0, 16), full),
        ("65535 entries for 4096", (65535, 0, 16), full),
        ("0 bits", (4096, 0, 0), full),
        ("255 bits", (4096, 0, 255), full),
        ("a first input of 65535", (4096, 65535, 16), full),
        ("no data", (4096, 0, 16), b""),
        ("one byte of data", (4096, 0, 16), b"x"),
    )
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        for what, descriptor, data in table:
            name = f"tables/{keyword[:-11]} LUT with {what}"
            dataset = radiograph(name)
            item = Dataset()
            if descriptor is not None:
                item.add_new(0x00283002, "US", list(descriptor))
            item.add_new(0x00283006, "OW", data)
            setattr(dataset, keyword, Sequence([item]))
            # A table that turns everything black or white hides the picture from the quality gate.
            hides = what in ("a first input of 65535", "one byte of data")
            yield Case(
                name=name,
                content=data_set(dataset),
                expected=not_eligible("poor_quality") if hides and keyword == "ModalityLUTSequence" else DELIVERED,
            )
        name = f"tables/{keyword[:-11]} LUT without item"
        yield Case(name=name, content=data_set(radiograph(name, **{keyword: Sequence([])})), expected=DELIVERED)


_NAMES: tuple[tuple[str, bytes | None, bytes], ...] = (
    (
        "Korean, IR 149",
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    (
        "Japanese, IR 87",
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    ("half-width kana, IR 13", b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"),
    ("UTF-8", b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode()),
    ("GB18030", b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030")),
    ("Greek", b"ISO_IR 126", "Διονυσιος".encode("iso8859-7")),
    ("Cyrillic", b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5")),
    ("Arabic", b"ISO_IR 127", "قباني^لنزار".encode("iso8859-6")),
    ("Latin 1", b"ISO_IR 100", "Buc^Jérôme".encode("latin-1")),
    ("Korean bytes without a character set", None, b"\xc8\xab^\xb1\xe6\xb5\xbf"),
    ("Korean bytes called Latin 1", b"ISO_IR 100", b"\xc8\xab^\xb1\xe6\xb5\xbf"),
    ("a character set that does not exist", b"ISO_IR 149", b"\xc8\xab^\xb1\xe6\xb5\xbf"),
    ("a character set of garbage", b"\xff\x1b[0m;DROP", b"Kim^Cheolsu"),
    ("five components and six groups", b"ISO_IR 100", b"A^B^C^D^E^F=G=H=I=J"),
    ("a name of 1000 characters", b"ISO_IR 100", b"N" * 1000),
    ("an empty name", b"ISO_IR 100", b""),
)


def _identity() -> Iterator[Case]:
    for what, charset, name_bytes in _NAMES:
        name = f"identity/{what}"
        parts = elements(radiograph(name))
        del parts[0x00080005]
        if charset is not None:
            parts[0x00080005] = element(0x00080005, "CS", text(charset))
        parts[0x00100010] = element(0x00100010, "PN", text(name_bytes))
        yield Case(name=name, content=joined(parts), expected=DELIVERED, identity=identity_of(parts))
    for what, tag, vr, value in (
        ("Patient ID", 0x00100020, "LO", b""),
        ("Accession Number", 0x00080050, "SH", b""),
        ("Study Instance UID", 0x0020000D, "UI", b""),
        ("Series Instance UID", 0x0020000E, "UI", b""),
    ):
        is_uid = vr == "UI"
        for how, raw in (("without", None), ("with an empty", element(tag, vr, value))):
            yield _changed(f"identity/{how} {what}", UNREADABLE if is_uid else DELIVERED, {tag: raw})
    for what, value in (
        ("../../etc/passwd", b"../../etc/passwd"),
        ("letters", b"1.2.abc"),
        ("65 characters", b"1." + b"2" * 63),
        ("a newline", b"1.2\n3"),
    ):
        yield _changed(
            f"identity/Study Instance UID of {what}", _NO_RESULTS, {0x0020000D: element(0x0020000D, "UI", text(value))}
        )


def _uids() -> Iterator[Case]:
    """Of the command, of the Data Set, of both."""

    def one(what: str, instance: str | None, expected: Expected, inside: bytes | None = b"") -> Case:
        name = f"uids/{what}"
        parts = elements(radiograph(name))
        if inside is None:
            del parts[0x00080018]
        elif inside or instance:
            value = inside or (instance or "").encode()
            parts[0x00080018] = element(0x00080018, "UI", value + b"\0" * (len(value) % 2))
        return Case(name=name, content=joined(parts), expected=expected, instance=instance)

    for what, value in (
        ("a path", "../../../../tmp/x"),
        ("an absolute path", "/etc/passwd"),
        ("a Windows path", "..\\..\\x"),
        ("dots", ".."),
        ("a leading dot", ".1.2"),
        ("a doubled dot", "1..2"),
        ("65 characters", "1." + "2" * 63),
        ("letters", "1.2.x"),
        ("blanks inside", "1.2 3"),
        ("SQL", "1'; DROP TABLE instance; --"),
        ("a line feed", "1.2\n1.3"),
        ("an escape sequence", "1.2\x1b[2J"),
        ("HTML", "<script>1</script>"),
        ("nothing but a NUL", "\0"),
    ):
        yield one(f"the command's is {what}", value, _INVALID_UID)
    yield one("the command has none", None, _INVALID_UID)
    yield one("the Data Set has none", "", _MISMATCH, None)
    yield one("the Data Set has another", "", _MISMATCH, b"1.2.3")
    yield one("the Data Set has a path", "", _MISMATCH, b"../../x")
    name = "uids/another class in the Data Set"
    parts = elements(radiograph(name)) | {0x00080016: element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0")}
    yield Case(name=name, content=joined(parts), expected=_MISMATCH)
    for what, sop_class in (
        ("another class in the command", "1.2.840.10008.5.1.4.1.1.7"),
        ("no class in the command", ""),
        ("a class of garbage in the command", "x" * 64),
    ):
        name = f"uids/{what}"
        yield Case(name=name, content=data_set(radiograph(name)), expected=_NOT_SUPPORTED, command_class=sop_class)
    name = "uids/the command announces no Data Set"
    yield Case(name=name, content=None, expected=_CANNOT_UNDERSTAND)
    name = "uids/a class that is not offered"
    yield Case(
        name=name,
        content=data_set(radiograph(name)),
        expected=refused("refused"),
        sop_class="1.2.840.10008.5.1.4.1.1.2",
    )
    name = "uids/leading zeros in components"
    value = instance_of(name)[:40] + ".007"
    parts = elements(radiograph(name)) | {
        0x00080018: element(0x00080018, "UI", value.encode() + b"\0" * (len(value) % 2))
    }
    yield Case(name=name, content=joined(parts), expected=DELIVERED, instance=value)


def _texts() -> Iterator[Case]:
    """What would act where it is shown: in logs, tables, HTML, SQL, file names."""
    values: dict[str, bytes] = {
        "line feeds": b'CANARY\n{"event": "forged"}',
        "carriage returns": b"CANARY\r\nforged",
        "escape sequences": b"CANARY\x1b[2J\x1b[31m",
        "HTML": b"CANARY<script>alert(1)</script>",
        "a CSV formula": b"=cmd|' /C calc'!A0",
        "SQL": b"CANARY'); DROP TABLE instance; --",
        "a path": b"../../../../CANARY",
        "NULs": b"CA\0NA\0RY",
        "backslashes": b"CANARY\\..\\..\\x",
        "format strings": b"CANARY%s%n{0.__class__}",
    }
    for what, value in values.items():
        name = f"texts/{what}"
        parts = elements(radiograph(name))
        for tag, vr in (
            (0x00100010, "PN"),
            (0x00100020, "LO"),
            (0x00080050, "SH"),
            (0x00081030, "LO"),
            (0x00081070, "PN"),
            (0x00080080, "LO"),
        ):
            parts[tag] = element(tag, vr, text(value))
        yield Case(
            name=name,
            content=joined(parts),
            expected=DELIVERED,
            identity=identity_of(parts) if b"\0" not in value else {},
        )
    for what, keyword, value in (
        ("Body Part", 0x00180015, b"CHEST\n<b>"),
        ("View Position", 0x00185101, b"PA\x1b[2J"),
        ("Protocol Name", 0x00181030, b"CHEST PA\x1b]0;owned\x07"),
    ):
        yield _changed(
            f"texts/{what} that would act",
            DELIVERED,
            {keyword: element(keyword, "LO" if keyword == 0x00181030 else "CS", text(value))},
        )
