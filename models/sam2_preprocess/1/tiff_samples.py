"""How a TIFF's samples are laid out, and whether they are read: rightly, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from image_errors import InvalidImageError, StructureLimits, check_size
from PIL import Image, ImageOps, TiffImagePlugin
from pillow_decoding import decode_samples, read_header, to_eight_bits, to_rgb
from tiff_directories import Directory, alone, damaged, find_picture

# libtiff for uncompressed files as well: Pillow's own reader takes planes of 16 bits for planes of 8.
TiffImagePlugin.READ_LIBTIFF = True

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
SAMPLES, PLANAR, PREDICTOR, COLOR_MAP, ORIENTATION = 277, 284, 317, 320, 274
TILE_WIDTH, TILE_LENGTH, INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT = 322, 323, 332, 338, 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
GREYS = (WHITE_IS_ZERO, BLACK_IS_ZERO)
CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
OTHER_PHOTOMETRICS = {
    4: "a transparency mask",
    8: "CIE L*a*b* colours",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "a camera's raw colour filter samples",
    32844: "LogL samples",
    32845: "LogLuv samples",
    34892: "a camera's linear raw samples",
}
FAX_COMPRESSIONS, OLD_JPEG, JPEG, WEBP = (2, 3, 4), 6, 7, 50001
# Whatever the samples are, these give the bytes back that the writer put in: none, LZW, Deflate (two
# numbers), PackBits, LZMA, Zstandard.
LOSSLESS_COMPRESSIONS = (1, 5, 8, 32946, 32773, 34925, 50000)
OTHER_COMPRESSIONS = {
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34676: "SGI Log",
    34677: "SGI Log 24",
    34712: "JPEG 2000",
    34887: "LERC",
    34934: "JPEG XR",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
UNSIGNED = (1, 4)  # 4: nobody said what they are
OTHER_SAMPLE_FORMATS = {
    2: "signed whole numbers",
    3: "floating-point numbers",
    5: "complex numbers",
}
ASSOCIATED_ALPHA, SEPARATE_ALPHA = 1, 2
MAX_SAMPLES, MAX_PLANES = 16, 4
# What is unpacked at once: rows of about this many samples.
UNPACKED_SAMPLES = 1 << 20

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Layout:
    """What the sample tags say."""

    width: int
    length: int
    bits: int
    samples: int
    photometric: int
    extra_samples: tuple[int, ...]
    compression: int
    fill_order: int
    is_planar: bool
    has_predictor: bool
    tile_width: int | None
    order: str

    @property
    def has_associated_alpha(self) -> bool:
        """Whether the colours are stored multiplied with the alpha that follows them."""
        return self.photometric in (*GREYS, RGB) and self.extra_samples[:1] == (ASSOCIATED_ALPHA,)

    @property
    def pillow_reads_it(self) -> bool:
        """Whether Pillow knows the layout; the others are unpacked here."""
        if self.compression not in LOSSLESS_COMPRESSIONS:
            return True
        if self.has_associated_alpha:
            return (
                False  # Pillow divides by alpha after rounding to 8 bits, and not at all in planes
            )
        if self.photometric in GREYS and len(self.extra_samples) > 0:
            return self.bits == 8 and len(self.extra_samples) == 1
        if self.photometric == RGB:
            return (self.bits == 8 and self.samples <= 6) or (self.bits == 16 and self.samples <= 4)
        if self.photometric == CMYK:
            return self.bits == 8 and self.samples <= 6
        return self.bits in (1, 2, 4, 8) or (self.photometric in GREYS and self.bits == 16)


def decode_tiff(data: bytes, max_pixels: int, limits: StructureLimits) -> tuple[Image.Image, int]:
    """The one picture of a TIFF file, of mode RGB, and its orientation (not applied yet).

    Raises:
        InvalidImageError: several pictures, a layout that is not read, a damaged file.
    """
    directory = find_picture(data, limits)
    layout = _layout_of(directory)
    check_size(layout.width, layout.length, max_pixels, limits.max_image_side)
    _check_tiles(directory, max_pixels)
    _check_layout(directory, layout)
    if layout.pillow_reads_it:
        picture = to_rgb(_decode(directory, _normalised(directory, layout)))
    else:
        picture = _unpack(_decode(directory, _as_rows_of_bytes(layout)), layout)
    if layout.photometric == WHITE_IS_ZERO:
        picture = ImageOps.invert(picture)
    return to_rgb(picture), _orientation_of(directory)


def _layout_of(directory: Directory) -> Layout:
    compression = directory.value(COMPRESSION, 1)
    samples = directory.value(SAMPLES, 3 if compression == OLD_JPEG else 1)
    guessed = (
        RGB if samples >= 3 else WHITE_IS_ZERO if compression in FAX_COMPRESSIONS else BLACK_IS_ZERO
    )
    photometric = YCBCR if compression == OLD_JPEG else directory.value(PHOTOMETRIC, guessed)
    bits = directory.values(BITS, (1,))
    if len(set(bits[:samples])) != 1 or not 1 <= bits[0] <= 64:
        raise InvalidImageError(
            f"image: expected samples of one size in a TIFF file, got BitsPerSample {list(bits[:8])}"
        )
    if not 1 <= samples <= MAX_SAMPLES:
        raise InvalidImageError(
            f"image: expected 1 to {MAX_SAMPLES} samples per pixel in a TIFF file, got {samples}"
        )
    missing = max(0, samples - CHANNELS.get(photometric, samples))
    extra = (directory.values(EXTRA_SAMPLES, ())[:missing] + (0,) * missing)[:missing]
    return Layout(
        width=directory.value(WIDTH, 0),
        length=directory.value(LENGTH, 0),
        bits=bits[0],
        samples=samples,
        photometric=photometric,
        extra_samples=extra,
        compression=compression,
        fill_order=directory.value(FILL_ORDER, 1),
        is_planar=samples > 1 and directory.value(PLANAR, 1) == 2,
        has_predictor=directory.value(PREDICTOR, 1) != 1,
        tile_width=directory.value(TILE_WIDTH, 0) or None,
        order=directory.form.order,
    )


def _check_tiles(directory: Directory, max_pixels: int) -> None:
    """A tile is decoded whole, however small the picture in it is."""
    width, length = directory.value(TILE_WIDTH, 1), directory.value(TILE_LENGTH, 1)
    if width * length > max_pixels:
        raise InvalidImageError(
            f"image: expected tiles of at most {max_pixels} pixels (max_image_pixels), got {width}x{length}"
        )


def _check_layout(directory: Directory, layout: Layout) -> None:
    formats = set(directory.values(SAMPLE_FORMAT, (1,))[: layout.samples])
    if strange := [value for value in formats if value not in UNSIGNED]:
        _refuse(
            "samples of 8 or 16 bits",
            OTHER_SAMPLE_FORMATS.get(strange[0], f"SampleFormat {strange[0]}"),
        )
    if layout.bits > 16:
        _refuse("samples of at most 16 bits", f"{layout.bits}-bit integers")
    if layout.photometric not in CHANNELS:
        _refuse(
            "grey, RGB, palette, CMYK or YCbCr samples",
            OTHER_PHOTOMETRICS.get(
                layout.photometric, f"PhotometricInterpretation {layout.photometric}"
            ),
        )
    channels = CHANNELS[layout.photometric]
    if layout.samples < channels and not (layout.photometric == YCBCR and layout.samples == 1):
        _refuse(f"at least {channels} samples per pixel", f"{layout.samples}")
    if layout.photometric == CMYK and directory.value(INK_SET, 1) != 1:
        _refuse("cyan, magenta, yellow and black inks", f"InkSet {directory.value(INK_SET, 1)}")
    if layout.photometric in GREYS and any(
        kind not in (ASSOCIATED_ALPHA, SEPARATE_ALPHA) for kind in layout.extra_samples
    ):
        _refuse(
            "grey samples, alone or with alpha",
            f"{layout.samples} channels of {layout.bits} bits that are neither colours nor alpha",
        )
    _check_compression(layout)


def _check_compression(layout: Layout) -> None:
    compression, bits = layout.compression, layout.bits
    known = (*LOSSLESS_COMPRESSIONS, *FAX_COMPRESSIONS, OLD_JPEG, JPEG, WEBP)
    if compression not in known:
        name = OTHER_COMPRESSIONS.get(compression, "an unknown one")
        _refuse("a compression that is read", f"{name} ({compression})")
    if compression in FAX_COMPRESSIONS and (bits, layout.samples) != (1, 1):
        _refuse("fax compression of 1-bit samples", f"{layout.samples} samples of {bits} bits")
    if compression in (OLD_JPEG, JPEG, WEBP) and bits != 8:
        _refuse("samples of 8 bits under JPEG and WebP compression", f"{bits} bits")
    if layout.photometric == YCBCR and (bits != 8 or layout.extra_samples):
        _refuse("YCbCr of three 8-bit samples", f"{layout.samples} samples of {bits} bits")
    if layout.photometric == PALETTE and bits not in (
        (1, 2, 4, 8) if layout.samples == 1 else (8,)
    ):
        _refuse("palette indices of 1 to 8 bits", f"{layout.samples} samples of {bits} bits")
    if layout.fill_order != 1 and not (bits <= 8 and layout.samples == 1):
        _refuse("FillOrder 1", f"FillOrder {layout.fill_order} with {bits}-bit samples")
    if layout.has_predictor and (bits not in (8, 16) or layout.compression in FAX_COMPRESSIONS):
        _refuse("a predictor with samples of 8 or 16 bits alone", f"{bits} bits")
    if layout.has_associated_alpha and layout.is_planar and layout.samples == 2:
        _refuse("grey samples beside their alpha", "grey multiplied with alpha in separate planes")
    if not layout.pillow_reads_it and layout.is_planar and layout.samples > MAX_PLANES:
        _refuse(f"at most {MAX_PLANES} separate planes", f"{layout.samples} of {bits} bits")


def _normalised(directory: Directory, layout: Layout) -> dict[int, tuple[int, ...]]:
    """Tags in the words that Pillow knows: one number for each sample, extra ones without a meaning."""
    colours = layout.samples - len(layout.extra_samples)
    # Alpha is dropped, so whatever is extra may be called unspecified.
    extra = (0,) * len(layout.extra_samples)
    replaced = {
        BITS: (layout.bits,) * (colours + len(extra)),
        SAMPLES: (colours + len(extra),),
        PHOTOMETRIC: (BLACK_IS_ZERO if layout.photometric in GREYS else layout.photometric,),
        EXTRA_SAMPLES: extra,
        SAMPLE_FORMAT: (),
        PLANAR: (2 if layout.is_planar else 1,),
    }
    if layout.photometric == PALETTE:
        replaced[COLOR_MAP] = _color_map(directory, layout.bits)
    return replaced


def _color_map(directory: Directory, bits: int) -> tuple[int, ...]:
    colors = directory.values(COLOR_MAP, ())
    if len(colors) != 3 << bits:
        raise damaged(f"expected {3 << bits} numbers in ColorMap, got {len(colors)}")
    # Some writers put 8-bit values where 16 bits are meant; libtiff reads those so, too.
    return colors if max(colors) > 255 else tuple(value * 257 for value in colors)


def _as_rows_of_bytes(layout: Layout) -> dict[int, tuple[int, ...]]:
    """Tags under which libtiff hands out each row's bytes as they are in the file, decompressed.

    Samples pixel by pixel look like one grey plane of bytes, planes like a picture of so many 8-bit colours.
    """
    planes = layout.samples if layout.is_planar else 1
    bits = layout.bits * (1 if layout.is_planar else layout.samples)
    replaced = {
        WIDTH: ((layout.width * bits + 7) // 8,),
        BITS: (8,) * planes,
        SAMPLES: (planes,),
        PHOTOMETRIC: ({1: BLACK_IS_ZERO, 2: BLACK_IS_ZERO, 3: RGB, 4: CMYK}[planes],),
        PLANAR: (2 if layout.is_planar else 1,),
        EXTRA_SAMPLES: (SEPARATE_ALPHA,) if planes == 2 else (),
    }
    if layout.tile_width is not None:
        replaced[TILE_WIDTH] = ((layout.tile_width * bits + 7) // 8,)
    left_out = (SAMPLE_FORMAT, PREDICTOR, COLOR_MAP, INK_SET)
    return replaced | dict.fromkeys(left_out, ())


def _decode(directory: Directory, replaced: dict[int, tuple[int, ...]]) -> Image.Image:
    picture = read_header("TIFF", alone(directory, replaced))
    decode_samples(picture, "TIFF")
    return picture


def _unpack(rows_of_bytes: Image.Image, layout: Layout) -> Image.Image:
    """Samples of any number of bits out of the rows' bytes, as an 8-bit picture."""
    raw = np.asarray(rows_of_bytes)
    channels = CHANNELS[layout.photometric]
    pixels = np.empty((layout.length, layout.width, channels), np.uint8)
    for rows in _blocks(layout):
        samples = _samples(raw[rows], layout)
        pixels[rows] = to_eight_bits(samples[..., :channels], layout.bits)
        if layout.has_associated_alpha:
            _divide_by_alpha(pixels[rows], samples[..., :channels], samples[..., channels, None])
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)
    return picture if mode != "CMYK" else picture.convert("RGB")


def _blocks(layout: Layout) -> Iterator[slice]:
    rows = max(1, UNPACKED_SAMPLES // (layout.width * layout.samples))
    return (slice(start, start + rows) for start in range(0, layout.length, rows))


def _samples(raw: UInt8Array, layout: Layout) -> UInt16Array:
    """[rows, width, samples] as whole numbers."""
    if layout.is_planar:
        planes = [_row_samples(raw[..., k], layout, 1) for k in range(layout.samples)]
        return np.concatenate(planes, axis=2)
    return _row_samples(raw, layout, layout.samples)


def _row_samples(raw: UInt8Array, layout: Layout, per_pixel: int) -> UInt16Array:
    shape = len(raw), layout.width, per_pixel
    if layout.bits == 16:
        samples = np.ascontiguousarray(raw).view(layout.order + "u2").astype(np.uint16)
    elif layout.bits == 8:
        samples = raw.astype(np.uint16)
    else:
        count = layout.width * per_pixel
        bits = np.unpackbits(raw, axis=1, count=count * layout.bits)
        padded = np.zeros((len(raw), count, 16), np.uint8)
        padded[..., 16 - layout.bits :] = bits.reshape(len(raw), count, layout.bits)
        samples = np.packbits(padded, axis=2).view(">u2").astype(np.uint16)
    samples = samples.reshape(shape)
    if not layout.has_predictor:
        return samples
    # The file holds differences from the pixel to the left, anew in each tile.
    step = layout.tile_width or layout.width
    for left in range(0, layout.width, step):
        tile = samples[:, left : left + step]
        np.cumsum(tile, axis=1, dtype=np.uint16, out=tile)
    return samples & np.uint16((1 << layout.bits) - 1)


def _divide_by_alpha(pixels: UInt8Array, colours: UInt16Array, alpha: UInt16Array) -> None:
    """Colours as they were before they were multiplied with alpha; left alone where alpha is 0."""
    straight = np.rint(colours * np.float32(255) / np.maximum(alpha, 1))
    visible = np.broadcast_to(alpha > 0, pixels.shape)
    pixels[visible] = np.minimum(straight, 255)[visible].astype(np.uint8)


def _orientation_of(directory: Directory) -> int:
    try:
        orientation = directory.value(ORIENTATION, 1)
    except InvalidImageError:  # odd metadata cost no picture
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _refuse(expected: str, got: str) -> None:
    raise InvalidImageError(f"image: expected {expected}, got {got} in a TIFF file")
