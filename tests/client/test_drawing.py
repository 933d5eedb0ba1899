"""Pictures to draw on are read as the server reads them: upright, whatever else is in their metadata."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from triton_sam2._errors import InvalidInputError
from triton_sam2._results.drawing import upright_rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encoded(file_format, **options):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_the_orientation_turns_the_picture(orientation, file_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(file_format, exif=exif)
    with Image.open(io.BytesIO(content)) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    np.testing.assert_array_equal(upright_rgb(content), expected)


def test_odd_tags_beside_the_orientation_do_not_matter():
    # One directory of two entries: orientation 6, and a SHORT tag (ISO speed) stored as the LONG 70000.
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x8827, 4, 1, 70000)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
    assert upright_rgb(encoded("JPEG", exif=exif)).shape == (20, 12, 3)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_broken_metadata_turns_nothing(exif):
    content = encoded("JPEG", exif=exif)
    with Image.open(io.BytesIO(content)) as file:
        expected = np.asarray(file.convert("RGB"))
    np.testing.assert_array_equal(upright_rgb(content), expected)


def chunk(name, data, checksum=None):
    body = name + data
    checksum = zlib.crc32(body) if checksum is None else checksum
    return struct.pack(">I", len(data)) + body + struct.pack(">I", checksum)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"tEXt", b"a\0b", checksum=0),
    ],
    ids=["comment", "profile", "XMP", "checksum"],
)
def test_texts_and_profiles_of_a_png_do_not_matter(extra):
    content = encoded("PNG")
    np.testing.assert_array_equal(upright_rgb(content[:33] + extra + content[33:]), PIXELS)


@pytest.mark.parametrize(
    "content", [b"text", encoded("PNG")[:60], encoded("JPEG")[:60], b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_picture_is_invalid_input(content):
    with pytest.raises(InvalidInputError, match="cannot draw on it"):
        upright_rgb(content)


def test_arrays_are_pixels():
    np.testing.assert_array_equal(upright_rgb(PIXELS), PIXELS)
    for grey in (PIXELS[:, :, 0], PIXELS[:, :, :1]):
        np.testing.assert_array_equal(upright_rgb(grey), np.repeat(PIXELS[:, :, :1], 3, axis=2))
    with pytest.raises(InvalidInputError, match="float64"):
        upright_rgb(PIXELS / 2)
