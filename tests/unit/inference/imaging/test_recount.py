"""The recount of lossless JPEG says what the walk from code to code says: in a sound scan the same, else nothing."""

import imagecodecs
import numpy as np
import pytest

from inference.errors import CodestreamError
from inference.imaging import huffman, jpeg

LENGTHS = [2, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16]
"""Of the codes of categories 0 to 16: a prefix code that leaves the code of ones alone free."""


def predicted(samples, row, column, *, first_row, selection, precision):
    if row == first_row:
        return samples[row, column - 1] if column else 1 << precision >> 1
    if column == 0:
        return samples[row - 1, 0]
    a, b, c = samples[row, column - 1], samples[row - 1, column], samples[row - 1, column - 1]
    return (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)[selection - 1]


def code_of(difference):
    """Code and number behind it (T.81 H.1.2.2), as text of zeros and ones."""
    difference = (int(difference) + 32768) % 65536 - 32768
    category = abs(difference).bit_length()
    first = 0
    for known, length in sorted(enumerate(LENGTHS), key=lambda item: item[1]):
        if known == category:
            text = f"{first >> (16 - length):0{length}b}"
        first += 1 << (16 - length)
    if 0 < category < 16:
        text += f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
    return text


def encode(samples, *, selection=1, precision=16, rows_per_interval=0):
    """A lossless JPEG stream after T.81 Annex H, restart markers included."""
    rows, columns = samples.shape
    samples = samples.astype(int)
    step = rows_per_interval or rows
    intervals = []
    for top in range(0, rows, step):
        text = "".join(
            code_of(
                samples[row, column]
                - predicted(samples, row, column, first_row=top, selection=selection, precision=precision)
            )
            for row in range(top, min(top + step, rows))
            for column in range(columns)
        )
        text += "1" * (-len(text) % 8)
        data = int(text, 2).to_bytes(len(text) // 8, "big")
        intervals.append(data.replace(b"\xff", b"\xff\x00"))
    scan = intervals[0]
    for number, interval in enumerate(intervals[1:]):
        scan += bytes([0xFF, 0xD0 + number % 8]) + interval
    order = sorted(range(17), key=lambda category: LENGTHS[category])
    table = bytes([0, *(LENGTHS.count(length) for length in range(1, 17)), *order])
    parts = [(0xC4, table)]
    if rows_per_interval:
        parts.append((0xDD, (rows_per_interval * columns).to_bytes(2, "big")))
    header = bytes([precision]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    parts += [(0xC3, header + b"\x01\x01\x11\x00"), (0xDA, bytes([1, 1, 0, selection, 0, 0]))]
    made = b"".join(b"\xff" + bytes([marker]) + (len(one) + 2).to_bytes(2, "big") + one for marker, one in parts)
    return b"\xff\xd8" + made + scan + b"\xff\xd9"


def picture(precision, shape=(23, 31)):
    random = np.random.default_rng(precision)
    samples = random.normal(0, 40, shape).cumsum(1).astype(int) % (1 << precision)
    samples[3, 4:9] = [0, (1 << precision) - 1, 0, 1 << precision >> 1, 0]
    return samples.astype(np.uint8 if precision <= 8 else np.uint16)


def verdict(frame, samples):
    try:
        huffman.check_scans(list(jpeg.segments(frame)), samples)
    except CodestreamError as error:
        return str(error)
    return "sound"


@pytest.fixture
def no_walk(monkeypatch):
    """Whoever begins to walk fails."""

    def refuse(*_):
        raise AssertionError("the walk was asked")

    monkeypatch.setattr(huffman, "_Walk", refuse)


@pytest.mark.parametrize("selection", range(1, 8))
@pytest.mark.parametrize(("precision", "rows_per_interval"), [(8, 0), (12, 5), (16, 0), (16, 1), (15, 23)])
def test_a_sound_scan_needs_no_walk(no_walk, selection, precision, rows_per_interval):
    samples = picture(precision)
    frame = encode(samples, selection=selection, precision=precision, rows_per_interval=rows_per_interval)
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(frame), samples)
    assert verdict(frame, samples) == "sound"


def test_a_large_scan_is_followed_over_its_pieces(no_walk):
    samples = picture(14, (257, 300))
    assert verdict(encode(samples, precision=14), samples) == "sound"


@pytest.mark.parametrize("rows_per_interval", [0, 4])
def test_damage_is_judged_as_the_walk_judges_it(rows_per_interval):
    """Every bit of the scan, one after the other: whatever the decoder makes of it."""
    samples = picture(12, (9, 11))
    frame = encode(samples, precision=12, selection=4, rows_per_interval=rows_per_interval)
    begin = frame.index(b"\xff\xda") + 10
    sound = 0
    for bit in range(8 * begin, 8 * (len(frame) - 2)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            decoded = imagecodecs.jpeg8_decode(bytes(damaged))
        except RuntimeError:
            continue
        found = verdict(bytes(damaged), decoded)
        assert found == verdict(bytes(damaged), None)
        sound += found == "sound"
    assert sound < 0.8 * 8 * (len(frame) - begin)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_scan_cut_short_is_refused_with_its_decoded_samples(place):
    samples = picture(12)
    frame = encode(samples, precision=12)
    cut = frame[: int(place * len(frame))] + b"\xff\xd9"
    assert "ends before its pixels" in verdict(cut, imagecodecs.jpeg8_decode(cut))


def test_samples_of_another_picture_are_a_hint_and_no_verdict():
    samples = picture(12)
    frame = encode(samples, precision=12)
    assert verdict(frame, samples[::-1].copy()) == "sound"
    assert "damaged" in verdict(frame[:-2] + b"\x00\x00\xff\xd9", samples)
