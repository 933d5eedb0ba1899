"""A TIFF file's bytes to its one picture: what Pillow does not know is unpacked here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from image_errors import InvalidImageError, StructureLimits, check_size
from PIL import Image, ImageOps, TiffImagePlugin
from pillow_decoding import decode_samples, read_header, to_eight_bits, to_rgb
from tiff_directories import Directory, alone, damaged, find_picture
from tiff_layouts import (
    BITS,
    BLACK_IS_ZERO,
    CHANNELS,
    CMYK,
    COLOR_MAP,
    EXTRA_SAMPLES,
    GREYS,
    INK_SET,
    ORIENTATION,
    PALETTE,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    RGB,
    SAMPLE_FORMAT,
    SAMPLES,
    SEPARATE_ALPHA,
    TILE_WIDTH,
    WHITE_IS_ZERO,
    WIDTH,
    Layout,
    check_layout,
    check_tiles,
    layout_of,
)

# libtiff for uncompressed files as well: Pillow's own reader takes planes of 16 bits for planes of 8.
TiffImagePlugin.READ_LIBTIFF = True

# What is unpacked at once: rows of about this many samples.
UNPACKED_SAMPLES = 1 << 20

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]


def decode_tiff(data: bytes, max_pixels: int, limits: StructureLimits) -> tuple[Image.Image, int]:
    """The one picture of a TIFF file, of mode RGB, and its orientation (not applied yet).

    Raises:
        InvalidImageError: several pictures, a layout that is not read, a damaged file.
    """
    directory = find_picture(data, limits)
    layout = layout_of(directory)
    check_size(layout.width, layout.length, max_pixels, limits.max_image_side)
    check_tiles(directory, max_pixels)
    check_layout(directory, layout)
    if layout.pillow_reads_it:
        picture = to_rgb(_decode(directory, _normalised(directory, layout)))
    else:
        picture = _unpack(_decode(directory, _as_rows_of_bytes(layout)), layout)
    if layout.photometric == WHITE_IS_ZERO:
        picture = ImageOps.invert(picture)
    return to_rgb(picture), _orientation_of(directory)


def _normalised(directory: Directory, layout: Layout) -> dict[int, tuple[int, ...]]:
    """Tags in the words that Pillow knows: one number for each sample, no meaning for what is extra."""
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
    channels = CHANNELS[layout.photometric]
    pixels = np.empty((layout.length, layout.width, channels), np.uint8)
    for rows in _blocks(layout):
        # Block by block: the whole as an array would be another copy of it.
        box = (0, rows.start, rows_of_bytes.width, rows.stop)
        samples = _samples(np.asarray(rows_of_bytes.crop(box)), layout)
        colours = samples[..., :channels]
        if layout.has_associated_alpha:
            pixels[rows] = _without_alpha(colours, samples[..., channels, None], layout.bits)
        else:
            pixels[rows] = to_eight_bits(colours, layout.bits)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)
    return picture if mode != "CMYK" else picture.convert("RGB")


def _blocks(layout: Layout) -> Iterator[slice]:
    rows = max(1, UNPACKED_SAMPLES // (layout.width * layout.samples))
    return (
        slice(start, min(start + rows, layout.length)) for start in range(0, layout.length, rows)
    )


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
        samples = _packed_samples(raw, layout.width * per_pixel, layout.bits)
    samples = samples.reshape(shape)
    if not layout.has_predictor:
        return samples
    # The file holds differences from the pixel to the left, anew in each tile.
    step = layout.tile_width or layout.width
    for left in range(0, layout.width, step):
        tile = samples[:, left : left + step]
        np.cumsum(tile, axis=1, dtype=np.uint16, out=tile)
    return samples & np.uint16((1 << layout.bits) - 1)


def _packed_samples(raw: UInt8Array, count: int, bits: int) -> UInt16Array:
    """[rows, count] samples of so many bits, which follow each other without regard to bytes."""
    # Whichever bit of a byte it begins at, a sample of 16 bits or less ends within three bytes.
    padded = np.pad(raw, ((0, 0), (0, 2))).astype(np.uint32)
    three_bytes = padded[:, :-2] << 16 | padded[:, 1:-1] << 8 | padded[:, 2:]
    first_bits = np.arange(count) * bits
    shifts = (24 - bits - first_bits % 8).astype(np.uint32)
    values = three_bytes[:, first_bits // 8] >> shifts & np.uint32((1 << bits) - 1)
    return values.astype(np.uint16)


def _without_alpha(colours: UInt16Array, alpha: UInt16Array, bits: int) -> UInt8Array:
    """The colours before they were multiplied with alpha; as they are where alpha is 0."""
    divisor = np.maximum(alpha, 1).astype(np.uint32)
    straight = (colours.astype(np.uint32) * 255 + divisor // 2) // divisor
    limited = np.minimum(straight, 255).astype(np.uint8)
    return np.where(alpha == 0, to_eight_bits(colours, bits), limited)


def _orientation_of(directory: Directory) -> int:
    try:
        orientation = directory.value(ORIENTATION, 1)
    except InvalidImageError:  # odd metadata cost no picture
        return 1
    return orientation if 1 <= orientation <= 8 else 1
