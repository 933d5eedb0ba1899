"""How a TIFF's samples are laid out, and which layouts are read; the others are refused by name."""

from __future__ import annotations

from dataclasses import dataclass

from image_errors import InvalidImageError
from tiff_directories import Directory

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
# Whatever the samples are, these give the writer's bytes back: none, LZW, Deflate (two numbers), PackBits,
# LZMA, Zstandard.
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


def layout_of(directory: Directory) -> Layout:
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


def check_tiles(directory: Directory, max_pixels: int) -> None:
    """A tile is decoded whole, however small the picture in it is."""
    width, length = directory.value(TILE_WIDTH, 1), directory.value(TILE_LENGTH, 1)
    if width * length > max_pixels:
        raise InvalidImageError(
            f"image: expected tiles of at most {max_pixels} pixels (max_image_pixels), got {width}x{length}"
        )


def check_layout(directory: Directory, layout: Layout) -> None:
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


def _refuse(expected: str, got: str) -> None:
    raise InvalidImageError(f"image: expected {expected}, got {got} in a TIFF file")
