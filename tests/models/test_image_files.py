"""PNG, JPEG, WebP and BMP of every layout against a second decoder, and metadata that cost no picture."""

import io
import struct
import zlib

import cv2
import imagecodecs
import numpy as np
import pytest
from image_decoding import InvalidImageError, StructureLimits, decode_image
from PIL import Image

HEIGHT, WIDTH = 24, 40
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes, limits: StructureLimits | None = None) -> np.ndarray:
    return np.asarray(decode_image(data, 1 << 23, 1 << 20, limits)).astype(int)


def by_opencv(data: bytes) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1].astype(int)


def smooth(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [
        columns * 255 // width,
        rows * 255 // height,
        (rows + columns) * 255 // (height + width),
    ]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def encoded(picture: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, *, sound: bool = True) -> bytes:
    checksum = zlib.crc32(kind + body) if sound else 0
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(samples: np.ndarray, bits: int, colour_type: int, further: bytes = b"") -> bytes:
    """[height, width, samples per pixel] as a PNG of any depth and colour type."""
    height, width, _ = samples.shape
    places = np.arange(bits - 1, -1, -1)
    spread = (samples[..., None] >> places & 1).astype(np.uint8).reshape(height, -1)
    rows = np.packbits(spread, axis=1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + further + chunk(b"IDAT", zlib.compress(filtered))
    return PNG_SIGNATURE + body + chunk(b"IEND", b"")


GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
PNG_LAYOUTS = [
    *[(GREY, bits) for bits in (1, 2, 4, 8, 16)],
    *[(PALETTE, bits) for bits in (1, 2, 4, 8)],
    *[(kind, bits) for kind in (RGB, GREY_ALPHA, RGBA) for bits in (8, 16)],
]
TRANSPARENT = {GREY: struct.pack(">H", 1), RGB: struct.pack(">HHH", 1, 1, 1), PALETTE: b"\0\x80"}


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("kind", "bits"), PNG_LAYOUTS)
def test_png_layouts_against_libpng(kind, bits, transparent):
    if transparent and kind not in TRANSPARENT:
        return
    rng = np.random.default_rng(kind * 16 + bits)
    per_pixel = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}[kind]
    samples = rng.integers(0, 1 << bits, (HEIGHT, WIDTH, per_pixel))
    colours = rng.integers(0, 256, (1 << bits, 3), np.uint8) if kind == PALETTE else None
    further = b"" if colours is None else chunk(b"PLTE", colours.tobytes())
    if transparent:
        further += chunk(b"tRNS", TRANSPARENT[kind])
    data = png(samples, bits, kind, further)
    if colours is not None:
        expected = colours[samples[..., 0]]
    else:
        channels = 3 if kind in (RGB, RGBA) else 1
        expected = samples[..., :channels] * (255 / ((1 << bits) - 1))
    # 16-bit colours lose their low byte, where rounding would go up by one now and then.
    assert np.abs(decode(data) - expected).max() <= 1
    if kind in (RGB, GREY, PALETTE) and not transparent:
        read = imagecodecs.png_decode(data)
        read = read if read.ndim == 3 else read[..., None]
        full = 65535 if read.dtype == np.uint16 else 255
        assert np.abs(decode(data) - read[..., :3] * (255 / full)).max() <= 1


def test_interlaced_png_is_the_same_picture():
    picture = smooth()
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    pixels, rows = np.asarray(picture), b""
    for x, y, dx, dy in [*passes, (0, 1, 1, 2)]:
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::dy, x::dx] if row.size)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    adam7 = (
        PNG_SIGNATURE
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert np.array_equal(decode(adam7), pixels)


JPEGS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "4:1:1": {"subsampling": "4:1:1"},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 1},
    "restart rows, progressive": {"restart_marker_rows": 1, "progressive": True},
    "kept rgb": {"keep_rgb": True},
}


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_against_opencv(name):
    data = encoded(smooth(), "JPEG", quality=92, **JPEGS[name])
    # Two builds of libjpeg differ by little where colours are spread over four pixels.
    assert np.abs(decode(data) - by_opencv(data)).max() <= 4
    assert np.abs(decode(data) - np.asarray(smooth())).mean() < 4


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_every_subsampling_of_another_encoder(subsampling):
    data = imagecodecs.jpeg8_encode(np.asarray(smooth()), level=92, subsampling=subsampling)
    assert np.abs(decode(data) - by_opencv(data)).max() <= 4
    assert np.abs(decode(data) - np.asarray(smooth())).mean() < 4


def test_grey_jpeg_against_opencv():
    data = encoded(smooth().convert("L"), "JPEG", quality=92)
    assert np.abs(decode(data) - by_opencv(data)).max() <= 1


@pytest.mark.parametrize("transform", [0, 2])
def test_inks_under_adobes_marker_are_read_inverted(transform):
    """Adobe writes CMYK (and YCCK) JPEGs inverted; a file without the marker means what it says."""
    inks = np.asarray(smooth().convert("CMYK")).copy()
    inks[..., 3] = 40
    data = imagecodecs.jpeg_encode(
        255 - inks, level=98, colorspace="CMYK", outcolorspace="YCCK" if transform else "CMYK"
    )
    at = data.find(b"Adobe")
    assert at > 0
    assert data[at + 11] == transform
    expected = (255 - inks[..., :3].astype(float)) * (255 - 40) / 255
    assert np.abs(decode(data) - expected).mean() < 4
    assert np.abs(decode(data) - by_opencv(data)).mean() < 4


def with_exif(orientation: int, *further: bytes, blob: bytes = b"") -> bytes:
    entries = sorted([struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0), *further])
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + blob


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


def jpeg_with(*segments: bytes) -> bytes:
    data = encoded(smooth(), "JPEG", quality=92)
    return data[:2] + b"".join(segments) + data[2:]


def png_with(*chunks: bytes) -> bytes:
    data = encoded(smooth(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


ODD_ENTRIES = {
    "signed altitude": struct.pack("<HHII", 0x8825, 4, 1, 9999),
    "short as long": struct.pack("<HHII", 0x103, 4, 1, 70000),
    "number as text": struct.pack("<HHI4s", 0x128, 2, 4, b"abc\0"),
    "unknown type": struct.pack("<HHI4s", 0x131, 77, 1 << 31, b"\xff" * 4),
}
BIG = zlib.compress(b"a" * (2 << 20))


@pytest.mark.parametrize("name", ODD_ENTRIES)
def test_odd_exif_turns_a_picture_all_the_same(name):
    exif = with_exif(6, ODD_ENTRIES[name])
    jpeg = jpeg_with(segment(0xE1, b"Exif\0\0" + exif))
    assert np.array_equal(decode(jpeg), np.rot90(decode(jpeg_with()), -1))
    assert np.array_equal(
        decode(png_with(chunk(b"eXIf", exif))), np.rot90(np.asarray(smooth()), -1)
    )


@pytest.mark.parametrize("kind", ["tEXt", "zTXt"])
def test_exif_in_a_pngs_text_turns_it(kind):
    text = b"\nexif\n      %d\n%s\n" % (len(with_exif(3)), with_exif(3).hex().encode())
    text = b"\0" + zlib.compress(text) if kind == "zTXt" else text
    data = png_with(chunk(kind.encode(), b"Raw profile type exif\0" + text))
    assert np.array_equal(decode(data), np.asarray(smooth())[::-1, ::-1])


XMP_TURNED = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
HARMLESS = {
    "broken eXIf": png_with(chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03broken")),
    "exif of nothing": png_with(chunk(b"eXIf", b"")),
    "orientation 9": png_with(chunk(b"eXIf", with_exif(9))),
    "comment with a wrong checksum": png_with(chunk(b"tEXt", b"a\0b", sound=False)),
    "2 MB of XMP": png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BIG)),
    "2 MB of comment": png_with(chunk(b"zTXt", b"Comment\0\0" + BIG)),
    "2 MB of profile": png_with(chunk(b"iCCP", b"profile\0\0" + BIG)),
    "broken profile": png_with(chunk(b"iCCP", b"profile\0\0no zlib")),
    "XMP alone turns nothing": png_with(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_TURNED)
    ),
    "no end chunk": png_with()[:-12],
}


@pytest.mark.parametrize("name", HARMLESS)
def test_metadata_cost_a_png_nothing_and_turn_nothing(name):
    assert np.array_equal(decode(HARMLESS[name]), np.asarray(smooth()))


def test_metadata_cost_a_jpeg_nothing_and_turn_nothing():
    plain = decode(jpeg_with())
    for odd in (
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP_TURNED),
        segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        segment(0xE1, b"Exif\0\0rubbish"),
        segment(0xE2, b"MPF\0rubbish") + segment(0xE2, b"ICC_PROFILE\0\x01\x09x"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
        segment(0xFE, b"\xff" * 9),
    ):
        assert np.array_equal(decode(jpeg_with(odd)), plain)


def test_an_extended_webp_is_its_picture_and_its_exif():
    picture = smooth()
    rgba = picture.copy()
    rgba.putalpha(128)
    for image in (picture, rgba):
        data = encoded(image, "WEBP", lossless=True, exact=True, exif=with_exif(8), xmp=XMP_TURNED)
        assert np.array_equal(decode(data), np.rot90(np.asarray(picture), 1))


@pytest.mark.parametrize("bits", [1, 4, 8, 24, 32])
def test_bmps_against_opencv(bits):
    mode = {1: "1", 4: "P", 8: "P", 24: "RGB", 32: "RGBA"}[bits]
    picture = smooth().quantize(16) if mode == "P" else smooth().convert(mode)
    data = encoded(picture, "BMP")
    assert np.array_equal(decode(data), by_opencv(data))


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times more."""
    data = encoded(smooth(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


def test_scans_are_counted_before_any_is_decoded():
    sound = scans(20)
    count = sound.count(b"\xff\xda")
    assert decode(sound, StructureLimits(max_jpeg_scans=count)).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(InvalidImageError, match=f"at most {count - 1} scans.*max_jpeg_scans"):
        decode(sound, StructureLimits(max_jpeg_scans=count - 1))
    # Scans of a thumbnail, or of a second picture behind the first, are not decoded: they count for nothing.
    thumbnail = segment(0xE1, b"Exif\0\0" + with_exif(1) + scans(20)[:60000])
    behind = jpeg_with(thumbnail) + sound
    assert decode(behind, StructureLimits(max_jpeg_scans=3)).shape == (HEIGHT, WIDTH, 3)


MANY = 300
SEGMENTS = {
    "chunks of a PNG": png_with(chunk(b"tEXt", b"a\0b") * MANY),
    "segments of a JPEG": jpeg_with(segment(0xFE, b"x") * MANY),
    "chunks of a WebP": encoded(smooth(), "WEBP", exif=with_exif(1)) + b"XMP \0\0\0\0" * MANY,
}


@pytest.mark.parametrize("what", SEGMENTS)
def test_parts_of_a_file_are_bounded(what):
    assert decode(SEGMENTS[what]).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(InvalidImageError, match=f"at most {MANY} {what}.*max_image_segments"):
        decode(SEGMENTS[what], StructureLimits(max_image_segments=MANY))


def frame(body: bytes) -> bytes:
    return b"\xff\xd8\xff" + segment(0xC0, body)[1:] + segment(0xDA, b"\0")


REFUSED = {
    "12-bit jpeg": (frame(b"\x0c\0\x08\0\x08\x01\x01\x11\0"), "8 bits in a JPEG file, got 12 bits"),
    "2 components": (frame(b"\x08\0\x08\0\x08\x02\x01\x11\0\x02\x11\0"), "components.*got 2"),
    "no end marker": (jpeg_with()[:-2], r"end marker \(FF D9\)"),
    "cut jpeg": (jpeg_with()[:-200], r"end marker \(FF D9\)"),
    "cut in the header": (jpeg_with()[:100], "cut or damaged before its picture"),
    "cut png": (png_with()[:-60], "complete PNG file, got one that is cut short"),
    "long row": (png(np.zeros((1, 2001, 1), int), 8, GREY), "2000 pixels in a row.*max_image_side"),
    "long column": (png(np.zeros((2001, 1, 1), int), 8, GREY), "in a row or column.*got 1x2001"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_is_wrong_and_nothing_of_the_inside(name):
    data, message = REFUSED[name]
    with pytest.raises(InvalidImageError, match=message) as refusal:
        decode(data, StructureLimits(max_image_side=2000))
    assert str(refusal.value).startswith("image: expected")
    assert not any(word in str(refusal.value) for word in ("object at", ".py", "line ", "PIL"))


BASE64_PNG = b"iVBORw0KGgoAAAANSUhEUgAAAUAAAADwCAIAAAD+"
UNREADABLE = {
    "base64 png": (BASE64_PNG, "base64 text"),
    "base64 jpeg": (b"/9j/4AAQSkZJRgABAQAAAQABAAD/2wBD", "base64 text"),
    "url-safe base64": (b"_9j_4AAQSkZJRgABAQAAAQABAAD_2wBD", "base64 text"),
    "base64 with line ends": (BASE64_PNG[:20] + b"\r\n" + BASE64_PNG[20:], "base64 text"),
    "data url": (b"data:image/png;base64," + BASE64_PNG, "a data URL"),
    "latin-1 png": (png_with().decode("latin-1").encode(), "turned into text"),
    "latin-1 jpeg": (jpeg_with().decode("latin-1").encode(), "turned into text"),
    "replaced png": (png_with().decode("utf-8", "replace").encode(), "turned into text"),
    "gif": (b"GIF89a" + bytes(20), "a GIF file"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC file"),
    "avif": (b"\0\0\0\x18ftypavif" + bytes(20), "an AVIF file"),
    "pdf": (b"%PDF-1.7\n", "a PDF file"),
    "svg": (b"\n <svg xmlns='x'>", "an SVG file"),
    "html": (b"<!DOCTYPE html><p>404", "an HTML page"),
    "path": (b"/data/photo.jpg", "look like a path or an address"),
    "address": (b"https://example.org/a.png", "look like a path or an address"),
    "text": (b"hello world", "none of them .they begin with 68 65"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_image_file_is_called_by_its_name(name):
    data, message = UNREADABLE[name]
    with pytest.raises(InvalidImageError, match=f"image: expected a JPEG, PNG.*got .*{message}"):
        decode(data)
