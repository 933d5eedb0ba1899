import io
import struct
import zlib

import numpy as np
import pytest
import torch
from image_decoding import InvalidImageError, decode_image, decode_stored, squash
from PIL import Image
from pixel_types import PIXEL_TYPES
from stored_picture import StoredPicture, pixels_of
from triangle_resize import resize_to_planes

MEGABYTE = 1 << 20


def decode(data: bytes, max_pixels: int = 10**6) -> np.ndarray:
    return np.asarray(decode_image(data, MEGABYTE, max_pixels))


def encoded(picture: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture without symmetry: red grows to the right, green downwards, blue marks the top left."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = 255 * ((rows < height // 3) & (columns < width // 3))
    return np.stack([columns * 255 // width, rows * 255 // height, blue], -1).astype(np.uint8)


LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_come_back_exactly(name):
    picture = gradient()
    data = encoded(Image.fromarray(picture), name.split()[0], **LOSSLESS[name])
    assert np.array_equal(decode(data), picture)


JPEGS = {
    "baseline": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "grey": ("L", {}),
    "cmyk": ("CMYK", {}),
}


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_come_back_nearly(name):
    mode, options = JPEGS[name]
    picture = Image.fromarray(gradient()).convert(mode)
    decoded = decode(encoded(picture, "JPEG", quality=97, subsampling=0, **options))
    expected = np.asarray(picture.convert("RGB")).astype(int)
    # JPEG rings at the blue patch's edge; the mean says whether it is the same picture.
    assert np.abs(decoded.astype(int) - expected).mean() < 3


# What each EXIF orientation asks of the stored pixels to become upright.
TO_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TO_UPRIGHT)
def test_every_exif_orientation_is_applied(orientation, file_format):
    stored = gradient()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 97, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = encoded(Image.fromarray(stored), file_format, exif=exif, **options.get(file_format, {}))
    expected = TO_UPRIGHT[orientation](stored)
    decoded = decode(data)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 3


def test_sixteen_bit_grey_keeps_its_full_range():
    ramp = np.linspace(0, 65535, 40 * 24).reshape(24, 40).astype(np.uint16)
    for file_format in ("PNG", "TIFF"):
        decoded = decode(encoded(Image.fromarray(ramp), file_format))
        assert np.array_equal(decoded[..., 0], np.round(ramp / 257).astype(np.uint8))
        assert (decoded[..., 0] == decoded[..., 2]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA"])
def test_other_pixel_modes_become_the_same_rgb(mode):
    picture = Image.fromarray(gradient()).convert("P").convert("RGB").convert(mode)
    file_format = "TIFF" if mode == "PA" else "PNG"
    decoded = decode(encoded(picture, file_format))
    assert np.array_equal(decoded, np.asarray(picture.convert("RGB")))


def test_alpha_is_dropped_as_the_reference_drops_it():
    rgba = np.dstack([gradient(), np.zeros((24, 40), np.uint8)])
    assert np.array_equal(decode(encoded(Image.fromarray(rgba), "PNG")), gradient())


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1)])
def test_extreme_shapes_are_pictures_too(size):
    picture = decode_image(encoded(Image.new("RGB", size, "red"), "PNG"), MEGABYTE, 10**6)
    assert picture.size == size
    planes = squash(StoredPicture(picture, 1), 64)
    assert planes.shape == (3, 64, 64)
    assert np.abs(planes - np.array([255, 0, 0]).reshape(3, 1, 1)).max() < 1e-3


def test_a_phones_jpeg_with_a_second_picture_gives_the_first():
    first, second = Image.fromarray(gradient()), Image.new("RGB", (8, 8))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=97)
    assert decode(data).shape == (24, 40, 3)


def claims(width: int, height: int) -> bytes:
    """A PNG of a few dozen bytes whose header claims this size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def animated(file_format: str) -> bytes:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue")]
    return encoded(frames[0], file_format, save_all=True, append_images=frames[1:])


BAD_FILES = {
    "empty": (b"", "image: .* got 0 bytes"),
    "text": (b"not an image at all", "image: expected a JPEG, PNG.*6e 6f 74"),
    "gif": (encoded(Image.new("RGB", (3, 3)), "GIF"), "image: expected a JPEG"),
    "truncated jpeg": (
        encoded(Image.fromarray(gradient(200, 200)), "JPEG")[:900],
        "image: expected a complete JPEG",
    ),
    "truncated png": (
        encoded(Image.fromarray(gradient()), "PNG")[:90],
        "image: expected a complete PNG",
    ),
    "header only": (b"\x89PNG\r\n\x1a\n", "image: "),
    "bomb": (claims(60000, 60000), "image: expected at most 1000000 pixels.*60000x60000"),
    "animated webp": (animated("WEBP"), "image: expected one picture.*WEBP of 3"),
    "animated png": (animated("PNG"), "image: expected one picture.*PNG of 3"),
    "multi-page tiff": (animated("TIFF"), "image: expected one picture.*TIFF of 3"),
    "float tiff": (
        encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
        "image: expected samples of 8 or 16 bits, got floating-point",
    ),
    "too many bytes": (b"x" * (MEGABYTE + 1), "image: expected at most 1048576 bytes"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_by_name(name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as the model sets it
    data, message = BAD_FILES[name]
    with pytest.raises(InvalidImageError, match=message):
        decode(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_damaged_files_never_raise_anything_else(file_format):
    rng = np.random.default_rng(0)
    sound = bytearray(encoded(Image.fromarray(gradient()), file_format))
    for _ in range(150):
        data = bytearray(sound)
        for position in rng.integers(0, len(data), 4):
            data[position] = rng.integers(256)
        try:
            decode(bytes(data))
        except InvalidImageError as error:
            assert str(error).startswith("image: ")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def references(pixels: np.ndarray, side: int) -> np.ndarray:
    """What Meta's transforms make of uint8 [H, W, 3], in double precision: [3, side, side]."""
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].double()
    resized = torch.nn.functional.interpolate(
        planes, (side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].numpy()


# Smaller and larger in one direction or both, one pixel, odd sides, a side that no power of two divides, rows
# that take their bands' whole memory, columns of which a single one is made of thousands.
SHAPES = [
    *((451, 300, 64), (640, 961, 64), (30, 20, 64), (1, 1, 64), (300, 40, 64), (40, 300, 64)),
    *((64, 64, 64), (65, 63, 64), (100, 70, 9), (9, 70_000, 32), (70_000, 9, 32)),
]


@pytest.mark.parametrize(("height", "width", "side"), SHAPES)
def test_resizing_is_the_references_to_a_thousandth_of_a_grey_level(height, width, side):
    pixels = noise(height, width)
    planes = squash(StoredPicture(Image.fromarray(pixels), 1), side)
    assert (planes.dtype, planes.flags.c_contiguous) == (np.float32, True)
    # Single precision adds up thousands of samples.
    assert np.abs(planes - references(pixels, side)).max() < 1e-3


def test_bands_of_few_rows_make_the_same_picture(monkeypatch):
    pixels = np.dstack([noise(200, 300), np.zeros((200, 300), np.uint8)])
    whole = resize_to_planes(pixels, 64)
    monkeypatch.setattr("triangle_resize.BAND_BYTES", 1)
    monkeypatch.setattr("triangle_resize.BLOCK_TAPS", 1)
    assert np.abs(resize_to_planes(pixels, 64) - whole).max() < 1e-3


@pytest.mark.parametrize("orientation", TO_UPRIGHT)
@pytest.mark.parametrize("box", [None, (3, 5, 40, 31)])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_turning_after_squashing_is_turning_before(orientation, box, resample):
    stored = noise(50, 70)
    upright = np.ascontiguousarray(TO_UPRIGHT[orientation](stored))
    x0, y0, x1, y1 = box or (0, 0, *upright.shape[1::-1])
    part = StoredPicture(Image.fromarray(np.ascontiguousarray(upright[y0:y1, x0:x1])), 1)
    turned_last = squash(StoredPicture(Image.fromarray(stored), orientation), 32, resample, box)
    difference = np.abs(turned_last - squash(part, 32, resample))
    assert difference.max() < (1e-3 if resample == "bilinear" else 1e-9)


@pytest.mark.parametrize("box", [(0, 0, 71, 50), (5, 5, 5, 9), (-1, 0, 9, 9), (60, 0, 20, 9)])
def test_a_box_beside_the_upright_picture_is_refused(box):
    turned = StoredPicture(Image.fromarray(noise(70, 50)), 6)
    with pytest.raises(InvalidImageError, match="image: expected a crop_box .* its 70x50 pixels"):
        squash(turned, 32, crop_box=box)


def test_pixels_of_a_picture_in_several_pieces_of_memory_are_the_same():
    pixels = noise(1100, 4100)  # more than Pillow takes at once
    with pytest.raises(ValueError, match="contiguous"):
        Image.fromarray(pixels).__arrow_c_array__()
    assert np.array_equal(pixels_of(Image.fromarray(pixels))[..., :3], pixels)


def test_bicubic_is_pillows_own_resize_of_the_8_bit_picture():
    picture = Image.fromarray(noise(90, 130, seed=2))
    planes = squash(StoredPicture(picture, 1), 64, "bicubic")
    expected = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(planes.transpose(1, 2, 0), expected)
    with pytest.raises(ValueError, match="resample: expected one of bilinear, bicubic, got 'area'"):
        squash(StoredPicture(picture, 1), 64, "area")


def test_a_jpeg_is_within_half_a_grey_level_of_the_exact_result_and_a_fiftieth_on_average():
    """In FP16, for dark and bright pictures; the exact one is decoded by Pillow and resized in doubles."""
    for low, high in ((0, 60), (0, 256), (200, 256)):
        picture = Image.fromarray((low + noise(700, 900) * ((high - low) / 256)).astype(np.uint8))
        data = encoded(picture, "JPEG", quality=95)
        expected = references(np.asarray(Image.open(io.BytesIO(data))), 64)
        stored = decode_stored(data, MEGABYTE, 10**6)
        pixels = squash(stored, 64, pixel_type=PIXEL_TYPES["TYPE_FP16"])
        assert (pixels.dtype, pixels.flags.c_contiguous) == (np.float16, True)
        difference = np.abs(pixels.astype(np.float64) + 128 - expected)
        assert difference.max() < 0.5
        assert difference.mean() < 0.02
        rounded = squash(stored, 64, pixel_type=PIXEL_TYPES["TYPE_UINT8"])
        assert np.abs(rounded - expected).max() <= 0.5 + 1e-3


def test_whole_grey_levels_are_exact_in_both_types():
    levels = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    assert np.array_equal(PIXEL_TYPES["TYPE_FP16"].of(levels.copy()).astype(int) + 128, levels)
    assert np.array_equal(PIXEL_TYPES["TYPE_UINT8"].of(levels.copy()), levels)


def test_fp16_is_rounded_to_the_nearest_as_numpy_does():
    planes = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    expected = (planes - 128).astype(np.float16)
    assert np.array_equal(PIXEL_TYPES["TYPE_FP16"].of(planes), expected)
