"""PNG and JPEG become grey values; 8-bit JPEG exactly as Pillow's own conversion, which the models were trained on."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from inference.errors import SourceError, UnsupportedPixelsError
from inference.imaging.render import render
from inference.imaging.source import read_header, read_pixels
from inference.records import FileFormat, RenderRule
from scp_node.demo import phantoms

GREY = phantoms.chest_array(96, 80, 8).astype(np.uint8)


@pytest.fixture
def load(tmp_path):
    """Save a picture, read it."""

    def load(image, format="PNG", **options):
        file = tmp_path / "picture"
        image.save(file, format=format, **options)
        return read_pixels(read_header(file))

    return load


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_png_of_any_mode_gives_the_grey_values(mode, load):
    image = load(Image.fromarray(GREY).convert(mode))
    assert image.header.file_format is FileFormat.PNG
    assert (image.bits_stored, image.is_signed) == (8, False)
    np.testing.assert_array_equal(image.stored_values, GREY)


def test_png_of_sixteen_bits_stays_sixteen_bits(load):
    values = phantoms.chest_array(96, 80, 16)
    image = load(Image.fromarray(values))
    assert image.bits_stored == 16
    np.testing.assert_array_equal(image.stored_values, values)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_exactly_what_pillow_makes_grey(mode, load, tmp_path):
    image = load(Image.fromarray(GREY).convert(mode), "JPEG", quality=60, subsampling=2 if mode == "RGB" else 0)
    with Image.open(tmp_path / "picture") as picture:
        expected = np.asarray(picture.convert("L"))
    np.testing.assert_array_equal(image.stored_values, expected)
    np.testing.assert_array_equal(render(image, RenderRule.AUTO).display_values, expected)


def test_nearly_grey_jpeg_is_exactly_what_pillow_makes_grey(load, tmp_path):
    tinted = np.stack([GREY, GREY, np.clip(GREY.astype(int) - 9, 0, 255)], axis=2).astype(np.uint8)
    image = load(Image.fromarray(tinted), "JPEG", quality=90)
    with Image.open(tmp_path / "picture") as picture:
        assert np.ptp(np.asarray(picture), axis=2).max() > 4, "the channels differ"
        np.testing.assert_array_equal(image.stored_values, np.asarray(picture.convert("L")))


def test_transparent_parts_are_black(load):
    alpha = np.full_like(GREY, 255)
    alpha[:20] = 0
    image = load(Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])))
    assert image.stored_values[:20].max() == 0
    np.testing.assert_array_equal(image.stored_values[20:], GREY[20:])


def test_the_orientation_of_exif_is_applied(load):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    image = load(Image.fromarray(GREY), "JPEG", quality=95, exif=exif.tobytes())
    assert image.stored_values.shape == (80, 96)
    assert np.abs(image.stored_values.astype(int) - np.rot90(GREY, -1)).mean() < 3


def test_colour_and_inks_are_unsupported(load):
    colour = np.dstack([GREY, GREY // 4, GREY // 4])
    with pytest.raises(UnsupportedPixelsError, match="coloured"):
        load(Image.fromarray(colour))
    with pytest.raises(UnsupportedPixelsError, match="CMYK"):
        load(Image.fromarray(GREY).convert("CMYK"), "JPEG")


def test_a_small_coloured_stamp_is_accepted(load):
    stamped = np.dstack([GREY] * 3)
    stamped[:6, :6] = (255, 0, 0)
    assert load(Image.fromarray(stamped)).stored_values.shape == (96, 80)


def test_animated_png_is_unsupported(load):
    other = Image.fromarray(255 - GREY)
    with pytest.raises(UnsupportedPixelsError, match="animated"):
        load(Image.fromarray(GREY), save_all=True, append_images=[other])


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_truncated_pictures_are_refused(format, tmp_path):
    stream = io.BytesIO()
    Image.fromarray(phantoms.chest_array(256, 256, 8).astype(np.uint8)).save(stream, format=format)
    file = tmp_path / "picture"
    for share in (0.05, 0.4, 0.9):
        file.write_bytes(stream.getvalue()[: int(len(stream.getvalue()) * share)])
        with pytest.raises(SourceError, match="cannot be decoded"):
            read_pixels(read_header(file))


def test_a_png_that_promises_gigapixels_is_refused(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    file = tmp_path / "picture"
    size = struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    with pytest.raises(SourceError, match="more than this node reads"):
        read_pixels(read_header(file))
