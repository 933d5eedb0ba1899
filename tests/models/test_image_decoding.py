import io
import struct
import zlib

import numpy as np
import pytest
import torch
from image_decoding import InvalidImageError, decode_image, resize_to_square
from PIL import Image

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
    resized = resize_to_square(picture, 64)
    assert resized.shape == (3, 64, 64)
    assert (resized[0] == 255).all()


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


def test_resizing_is_antialiased_and_squashes():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (640, 320, 3), np.uint8))
    resized = resize_to_square(noise, 16)
    assert (resized.dtype, resized.shape, resized.flags.c_contiguous) == ("u1", (3, 16, 16), True)
    # Averaging hundreds of pixels leaves grey; picking single ones would leave noise.
    assert resized.std() < 12


@pytest.mark.parametrize("size", [(451, 300), (640, 961), (30, 20)])
def test_resizing_is_the_references_but_for_one_rounding(size):
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(
        pixels, (64, 64), mode="bilinear", align_corners=False, antialias=True
    )
    difference = np.abs(resize_to_square(picture, 64) - expected[0].numpy())
    assert difference.max() <= 0.5 + 1e-3


def test_bicubic_is_pillows_own_resize_of_the_8_bit_picture():
    rng = np.random.default_rng(2)
    picture = Image.fromarray(rng.integers(0, 256, (90, 130, 3), np.uint8))
    resized = resize_to_square(picture, 64, "bicubic")
    assert (resized.dtype, resized.shape, resized.flags.c_contiguous) == ("u1", (3, 64, 64), True)
    expected = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(resized.transpose(1, 2, 0), expected)
    assert not np.array_equal(resized, resize_to_square(picture, 64))
    with pytest.raises(ValueError, match="resample: expected one of bilinear, bicubic, got 'area'"):
        resize_to_square(picture, 64, "area")
