"""Low-resolution mask logits to masks at the original image's size, in the formats that were asked for."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from mask_planes import MASK_THRESHOLD, FullSizePlane, RunLengths
from PIL import Image
from pycocotools import mask as coco_mask

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

MASK_FORMATS = ("bitmap", "logits", "rle", "png")
DEFAULT_MASK_FORMATS = frozenset({"bitmap"})
LOW_RES_LIMIT = 32.0


class InvalidOutputError(ValueError):
    """The wanted output cannot be made; the message names the tensor, what was expected and what came."""


class EncodingCancelledError(RuntimeError):
    """The work was given up because nobody waits for it."""


@dataclass(frozen=True)
class EncodedMasks:
    """Masks of B objects with M candidates each; a format that was not asked for has 0 elements.

    Shapes: masks uint8 [B, M, H, W] of 0 and 1; mask_logits float32 [B, M, H, W]; masks_rle and
    masks_png [B, M] of bytes.
    """

    masks: UInt8Array
    mask_logits: FloatArray
    masks_rle: npt.NDArray[np.object_]
    masks_png: npt.NDArray[np.object_]


def parse_mask_formats(
    values: list[bytes] | None,
    known: tuple[str, ...] = MASK_FORMATS,
    default: frozenset[str] = DEFAULT_MASK_FORMATS,
) -> frozenset[str]:
    """The formats named by `mask_format`; the default where the tensor is absent, none where it is empty.

    Raises:
        InvalidOutputError: a format that is not known.
    """
    if values is None:
        return default
    names = [value.decode("utf-8", errors="replace") for value in values]
    for name in names:
        if name not in known:
            raise InvalidOutputError(
                f"mask_format: expected any of {', '.join(known)}, got {name[:40]!r}"
            )
    return frozenset(names)


@dataclass(frozen=True)
class OutputLimits:
    """Largest answer, and most work, that one request may ask for.

    max_output_bytes counts full-size bitmaps and logits; max_encoded_pixels counts masks times formats times
    height times width, whatever the format: RLE and PNG are small to send and dear to make.
    """

    max_output_bytes: int
    max_encoded_pixels: int


class MaskEncoding:
    """Upsamples [B, M, s, s] logits to the original size and encodes them, step by step.

    Upsampling is bilinear without corner alignment and the threshold is 0, as in
    `SAM2Transforms.postprocess_masks` of the SAM 2 repository. Beside the answer itself it holds no more than
    one plane.
    """

    def __init__(
        self,
        low_res_logits: FloatArray,
        original_hw: tuple[int, int],
        formats: frozenset[str],
        limits: OutputLimits,
        plane_of: Callable[[tuple[int, ...]], FullSizePlane] | None = None,
    ) -> None:
        """`plane_of` gives each index's plane where it is more than its own logits enlarged.

        Raises InvalidOutputError where the answer would exceed a limit.
        """
        self._low_res_logits = low_res_logits
        self._plane_of = plane_of or self._own_plane
        self._original_hw = original_hw
        self._formats = formats
        objects, candidates = low_res_logits.shape[:2]
        self.pixels = objects * candidates * original_hw[0] * original_hw[1] * len(formats)
        self._check(limits)
        full_size = (objects, candidates, *original_hw)
        self.encoded = EncodedMasks(
            # Zeros that nobody touches take no memory until they are sent.
            masks=np.zeros(full_size if "bitmap" in formats else (0, 0, 0, 0), np.uint8),
            mask_logits=np.empty(full_size if "logits" in formats else (0, 0, 0, 0), np.float32),
            masks_rle=np.empty((objects, candidates) if "rle" in formats else (0, 0), np.object_),
            masks_png=np.empty((objects, candidates) if "png" in formats else (0, 0), np.object_),
        )

    def steps(self) -> Iterator[None]:
        """Does the work; between two steps (a megapixel, or a PNG) others may have their turn."""
        if self._formats:
            for index in np.ndindex(*self._low_res_logits.shape[:2]):
                yield from self._encode_plane(index)

    def _encode_plane(self, index: tuple[int, ...]) -> Iterator[None]:
        formats, hw = self._formats, self._original_hw
        plane = self._plane_of(index)
        bitmap = None
        if "bitmap" in formats:
            bitmap = self.encoded.masks[index]
        elif "png" in formats:
            bitmap = np.zeros(hw, np.uint8)
        run_lengths = RunLengths(hw) if "rle" in formats else None
        for start, stop in plane.blocks(positive_only="logits" not in formats):
            logits = plane.logits(start, stop)
            if "logits" in formats:
                self.encoded.mask_logits[index][:, start:stop] = logits
            inside = logits > MASK_THRESHOLD
            if bitmap is not None:
                bitmap[:, start:stop] = inside
            if run_lengths is not None:
                run_lengths.add(start, inside)
            yield
        if run_lengths is not None:
            self.encoded.masks_rle[index] = _to_rle(run_lengths, hw)
        if "png" in formats and bitmap is not None:
            self.encoded.masks_png[index] = to_png(bitmap)
        yield

    def _own_plane(self, index: tuple[int, ...]) -> FullSizePlane:
        return FullSizePlane(self._low_res_logits[index], self._original_hw)

    def _check(self, limits: OutputLimits) -> None:
        objects, candidates = self._low_res_logits.shape[:2]
        height, width = self._original_hw
        formats = self._formats
        masks = f"{objects} objects x {candidates} masks of {width}x{height}"
        pixels = objects * candidates * height * width
        wanted_bytes = pixels * ("bitmap" in formats) + 4 * pixels * ("logits" in formats)
        if wanted_bytes > limits.max_output_bytes:
            raise InvalidOutputError(
                f"mask_format: expected an answer of at most {limits.max_output_bytes} bytes"
                f" (max_output_bytes), got {masks} as"
                f" {' and '.join(sorted(formats & {'bitmap', 'logits'}))} = {wanted_bytes} bytes; ask for"
                " rle or png, or for fewer objects at a time"
            )
        if self.pixels > limits.max_encoded_pixels:
            raise InvalidOutputError(
                f"mask_format: expected at most {limits.max_encoded_pixels} pixels to encode"
                f" (max_encoded_pixels), got {masks} as {' and '.join(sorted(formats))} ="
                f" {self.pixels}; ask for fewer objects or formats at a time"
            )


def encode_masks(
    low_res_logits: FloatArray,
    original_hw: tuple[int, int],
    formats: frozenset[str],
    limits: OutputLimits,
    is_cancelled: Callable[[], bool] = lambda: False,
    *,
    plane_of: Callable[[tuple[int, ...]], FullSizePlane] | None = None,
) -> EncodedMasks:
    """All of a MaskEncoding's steps in one go; `is_cancelled` is asked after each of them.

    Raises:
        InvalidOutputError: the answer would exceed a limit.
        EncodingCancelledError: nobody wants it any more.
    """
    encoding = MaskEncoding(low_res_logits, original_hw, formats, limits, plane_of)
    for _ in encoding.steps():
        if is_cancelled():
            raise EncodingCancelledError("cancelled between two masks")
    return encoding.encoded


def clamp_low_res(low_res_logits: FloatArray) -> FloatArray:
    """Low-res logits as they are handed back: within ±32, the range a mask prompt was trained on."""
    return np.clip(low_res_logits, -LOW_RES_LIMIT, LOW_RES_LIMIT)


def _to_rle(run_lengths: RunLengths, hw: tuple[int, int]) -> bytes:
    uncompressed = {"size": list(hw), "counts": run_lengths.lengths()}
    rle = coco_mask.frPyObjects(uncompressed, *hw)
    return json.dumps({"size": rle["size"], "counts": rle["counts"].decode("ascii")}).encode()


def to_png(mask: UInt8Array) -> bytes:
    """A mask [H, W] of 0 and 1 as a PNG file of 0 and 255."""
    buffer = io.BytesIO()
    # Masks are long runs: looking for nothing else makes smaller files in two thirds of the time.
    Image.fromarray(mask * np.uint8(255)).save(buffer, format="PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()
