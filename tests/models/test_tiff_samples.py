"""Every layout of a TIFF's samples: equal to what a second decoder reads, or refused by name."""

import io
import itertools

import cv2
import numpy as np
import pytest
import tifffile
from image_decoding import InvalidImageError, StructureLimits, decode_image
from PIL import Image

from tests.models.tiff_writer import LONG, SHORT, page, tiff

HEIGHT, WIDTH = 21, 37
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
UNSPECIFIED, ASSOCIATED, SEPARATE = 0, 1, 2
# 16-bit colours lose their low byte in Pillow, where rounding would go up by one now and then.
TOLERANCE = 1
# Ink and black are rounded to 8 bits each, and their product once more.
INK_TOLERANCE = 2


def decode(data: bytes, limits: StructureLimits | None = None) -> np.ndarray:
    return np.asarray(decode_image(data, 1 << 20, 1 << 20, limits)).astype(int)


def noise(bits: int, per_pixel: int) -> np.ndarray:
    rng = np.random.default_rng(bits + per_pixel)
    return rng.integers(0, 1 << bits, (HEIGHT, WIDTH, per_pixel))


def expected_rgb(samples: np.ndarray, bits: int, photometric: int, extra=()) -> np.ndarray:
    """By the specification: full range of the declared bits, alpha dropped, inks on white paper."""
    full = (1 << bits) - 1
    channels = {RGB: 3, CMYK: 4}.get(photometric, 1)
    values = samples[..., :channels].astype(float)
    if extra[:1] == (ASSOCIATED,):
        alpha = samples[..., channels : channels + 1]
        values = np.where(
            alpha == 0, values, np.minimum(full, values * full / np.maximum(alpha, 1))
        )
    values *= 255 / full
    if photometric == WHITE_IS_ZERO:
        values = 255 - values
    if photometric == CMYK:
        values = (255 - values[..., :3]) * (255 - values[..., 3:]) / 255
    return np.broadcast_to(values, (*values.shape[:2], 3))


def tolerance(photometric: int) -> int:
    return INK_TOLERANCE if photometric == CMYK else TOLERANCE


COLOURS = {
    "white is zero": (WHITE_IS_ZERO, 1, ()),
    "grey": (BLACK_IS_ZERO, 1, ()),
    "grey and alpha": (BLACK_IS_ZERO, 2, (SEPARATE,)),
    "grey by alpha": (BLACK_IS_ZERO, 2, (ASSOCIATED,)),
    "rgb": (RGB, 3, ()),
    "rgb and alpha": (RGB, 4, (SEPARATE,)),
    "rgb by alpha": (RGB, 4, (ASSOCIATED,)),
    "rgb and more": (RGB, 4, (UNSPECIFIED,)),
    "rgb and two more": (RGB, 5, (UNSPECIFIED, SEPARATE)),
    "cmyk": (CMYK, 4, ()),
}
# Planes of these would need a decoder of our own; they are refused.
REFUSED_PLANES = {"grey by alpha": {*range(1, 17)}, "rgb and two more": {*range(1, 17)} - {8}}


@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("bits", range(1, 17))
def test_bits_byte_orders_planes_strips_and_tiles(bits, colours):
    photometric, per_pixel, extra = COLOURS[colours]
    samples = noise(bits, per_pixel)
    expected = expected_rgb(samples, bits, photometric, extra)
    for planar, order, deflate, (rows, tile), big in itertools.product(
        (False, True), "<>", (False, True), ((None, None), (5, None), (None, 16)), (False, True)
    ):
        if planar and per_pixel == 1:
            continue
        layout = page(
            samples,
            bits,
            photometric,
            planar=planar,
            order=order,
            deflate=deflate,
            rows_per_strip=rows,
            tile=tile,
            extra=list(extra) or None,
        )
        data = tiff([layout], order, big)
        if planar and bits in REFUSED_PLANES.get(colours, ()):
            with pytest.raises(
                InvalidImageError, match=r"image: expected .* got .*planes|of \d+ bits"
            ):
                decode(data)
            continue
        difference = np.abs(decode(data) - expected).max()
        assert difference <= tolerance(photometric), (planar, order, deflate, rows, tile, big)


COMPRESSIONS = [None, "lzw", "deflate", "packbits", "zstd", "lzma"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressions_and_predictors_against_tifffile(compression, dtype):
    for colours, predictor, tile, order in itertools.product(
        COLOURS, (False, True), (None, (16, 16)), "<>"
    ):
        photometric, per_pixel, extra = COLOURS[colours]
        if predictor and compression in (None, "packbits"):
            continue
        samples = noise(np.dtype(dtype).itemsize * 8, per_pixel).astype(dtype)
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer,
            samples if per_pixel > 1 else samples[..., 0],
            photometric={0: "miniswhite", 1: "minisblack", 2: "rgb", 5: "separated"}[photometric],
            planarconfig="contig" if per_pixel > 1 else None,
            extrasamples=list(extra) or None,
            compression=compression,
            predictor=predictor,
            tile=tile,
            byteorder=order,
            metadata=None,
        )
        read = tifffile.imread(io.BytesIO(buffer.getvalue())).reshape(samples.shape)
        expected = expected_rgb(read, read.itemsize * 8, photometric, extra)
        difference = np.abs(decode(buffer.getvalue()) - expected).max()
        assert difference <= tolerance(photometric), (colours, predictor, tile, order)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_16_and_of_8_bit_colours(bits, order):
    indices = noise(bits, 1)
    colours = np.random.default_rng(3).integers(0, 256, (3, 1 << bits))
    colours[0, 0] = 255
    for scale in (257, 1):
        color_map = {"t320": (SHORT, [int(c) * scale for c in colours.flat])}
        data = tiff([page(indices, bits, PALETTE, order=order, **color_map)], order)
        assert np.array_equal(decode(data), colours.T[indices[..., 0]])


def test_opencv_reads_the_same_from_packed_twelve_bits_and_planes_of_sixteen():
    grey, rgb = noise(12, 1), noise(16, 3)
    packed_grey = tiff([page(grey, 12, BLACK_IS_ZERO)])
    other = cv2.imdecode(np.frombuffer(packed_grey, np.uint8), cv2.IMREAD_UNCHANGED)
    assert other.shape == (HEIGHT, WIDTH)
    # OpenCV hands 12 bits out in the upper bits of 16.
    full = other.astype(float) * (255 / (4095 << 4 if other.max() > 4095 else 4095))
    assert np.abs(decode(packed_grey)[..., 0] - full).max() <= TOLERANCE
    planes = tiff([page(rgb, 16, RGB, planar=True)])
    read = tifffile.imread(io.BytesIO(planes)).transpose(1, 2, 0)
    assert np.array_equal(read, rgb)
    assert np.abs(decode(planes) - rgb / 257).max() <= TOLERANCE


def test_fill_order_2_turns_the_bits_around():
    samples = noise(1, 1)
    tags, strips = page(samples, 1, BLACK_IS_ZERO)
    turned = [
        np.packbits(np.unpackbits(np.frombuffer(s, np.uint8)), bitorder="little").tobytes()
        for s in strips
    ]
    data = tiff([(tags | {266: (SHORT, [2])}, turned)])
    assert np.array_equal(decode(data)[..., 0], samples[..., 0] * 255)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_jpeg", "jpeg"])
def test_fax_and_jpeg_inside_a_tiff(compression):
    ramp = np.tile(np.linspace(0, 255, 64), (48, 1)).astype(np.uint8)
    picture = Image.fromarray(ramp).convert("RGB" if "jpeg" in compression else "1")
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF", compression=compression)
    assert np.abs(decode(buffer.getvalue()) - np.asarray(picture.convert("RGB"))).max() <= 4


def one_page(photometric=BLACK_IS_ZERO, bits=8, per_pixel=1, **more):
    return tiff([page(noise(min(bits, 16), per_pixel), bits, photometric, **more)])


REFUSED = {
    "float": (one_page(bits=32, t339=(SHORT, [3])), "floating-point numbers in a TIFF"),
    "float rgb": (one_page(RGB, 32, 3, t339=(SHORT, [3] * 3)), "floating-point numbers"),
    "signed": (one_page(t339=(SHORT, [2])), "signed whole numbers"),
    "32 bits": (one_page(bits=32), "32-bit integers"),
    "two channels": (one_page(per_pixel=2, extra=[0]), "2 channels of 8 bits"),
    "two deep channels": (one_page(bits=16, per_pixel=2, extra=[0]), "2 channels of 16 bits"),
    "raw camera": (one_page(32803, 16), "raw colour filter"),
    "lab": (one_page(8, 8, 3), r"L\*a\*b\*"),
    "unknown colours": (one_page(77), "PhotometricInterpretation 77"),
    "jpeg 2000": (one_page(t259=(SHORT, [34712])), r"JPEG 2000 \(34712\)"),
    "unknown compression": (one_page(t259=(SHORT, [999])), r"unknown one \(999\)"),
    "fill order": (one_page(bits=16, t266=(SHORT, [2])), "FillOrder 2"),
    "other inks": (one_page(CMYK, 8, 4, t332=(SHORT, [2])), "InkSet 2"),
    "unequal bits": (one_page(RGB, 8, 3, t258=(SHORT, [5, 6, 5])), r"BitsPerSample \[5, 6, 5\]"),
    "short palette": (one_page(PALETTE, t320=(SHORT, [0] * 9)), "ColorMap"),
    "many samples": (one_page(t277=(SHORT, [400])), "samples per pixel"),
    "no size": (one_page(t256=(LONG, [0])), "1x1"),
    "giant tile": (one_page(tile=16, t322=(LONG, [1 << 20])), "tiles of at most"),
    "no directory": (b"II*\0\0\0\0\0", "no directory"),
    "directory outside": (b"II*\0\xff\0\0\0", "behind its end"),
    "no strips": (tiff([({256: (LONG, [4]), 257: (LONG, [4])}, [])]), "image: expected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(name):
    data, message = REFUSED[name]
    with pytest.raises(InvalidImageError, match=message) as refusal:
        decode(data)
    assert str(refusal.value).startswith("image: expected")


def a_page(shade: int, height: int, **more):
    return page(np.full((height, height, 1), shade), 8, BLACK_IS_ZERO, **more)


THUMBNAIL, LEVEL_OF_OLD = {"t254": (LONG, [1])}, {"t255": (SHORT, [2])}
MASK = {"t254": (LONG, [4])}


@pytest.mark.parametrize("big", [False, True])
def test_thumbnails_levels_and_transparency_pages_are_no_second_picture(big):
    picture = a_page(200, 16)
    for others in (
        [a_page(10, 4, **THUMBNAIL)],
        [a_page(10, 4, **LEVEL_OF_OLD)],
        [a_page(0, 16, **MASK), a_page(10, 8, **THUMBNAIL), a_page(10, 4, **THUMBNAIL)],
    ):
        for pages in ([picture, *others], [*others, picture]):
            decoded = decode(tiff(pages, big=big))
            assert decoded.shape == (16, 16, 3)
            assert (decoded == 200).all()
    assert (decode(tiff([a_page(10, 4, **THUMBNAIL)])) == 10).all()


def test_two_pictures_are_refused_and_directories_are_bounded():
    with pytest.raises(InvalidImageError, match="expected one picture.*TIFF of 2"):
        decode(tiff([a_page(1, 4), a_page(2, 4)]))
    thumbnails = [a_page(1, 4), *[a_page(2, 2, **THUMBNAIL)] * 5]
    assert (decode(tiff(thumbnails), StructureLimits(max_tiff_directories=6)) == 1).all()
    with pytest.raises(InvalidImageError, match="at most 5 directories.*max_tiff_directories"):
        decode(tiff(thumbnails), StructureLimits(max_tiff_directories=5))
    with pytest.raises(InvalidImageError, match="max_image_segments"):
        decode(tiff(thumbnails), StructureLimits(max_image_segments=20))


def test_a_chain_of_directories_that_bites_its_tail_ends():
    data = bytearray(tiff([a_page(7, 4)]))
    data[-4:] = data[4:8]
    assert (decode(bytes(data)) == 7).all()


def test_odd_metadata_cost_no_picture():
    odd = {
        "t700": (1, [255] * 9),  # XMP that is none
        "t282": (SHORT, [9, 9]),  # a resolution of another type
        "t34665": (LONG, [1 << 30]),  # EXIF behind the file's end
        "t34675": (1, [0] * 5),  # a colour profile of nothing
        "t274": (LONG, [70000]),  # an orientation that is none
        "t37724": (2, [b"x"] * 3),
    }
    assert (decode(tiff([a_page(7, 4, **odd)])) == 7).all()
