"""Low-resolution mask logits to masks at the original image's size, in the formats that were asked for."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

FloatArray = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

MASK_FORMATS = ("bitmap", "logits", "rle", "png")
DEFAULT_MASK_FORMATS = frozenset({"bitmap"})
LOW_RES_LIMIT = 32.0
MASK_THRESHOLD = 0.0


class InvalidOutputError(ValueError):
    """The wanted output cannot be made; the message names the tensor, what was expected and what came."""


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


def parse_mask_formats(values: list[bytes] | None) -> frozenset[str]:
    """The formats named by `mask_format`; bitmap where the tensor is absent, none where it is empty.

    Raises:
        InvalidOutputError: a format that is not one of MASK_FORMATS.
    """
    if values is None:
        return DEFAULT_MASK_FORMATS
    names = [value.decode("utf-8", errors="replace") for value in values]
    for name in names:
        if name not in MASK_FORMATS:
            raise InvalidOutputError(
                f"mask_format: expected any of {', '.join(MASK_FORMATS)}, got {name[:40]!r}"
            )
    return frozenset(names)


def encode_masks(
    low_res_logits: FloatArray,
    original_hw: tuple[int, int],
    formats: frozenset[str],
    max_output_bytes: int,
) -> EncodedMasks:
    """Upsamples [B, M, s, s] logits to the original size and encodes them.

    Upsampling is bilinear without corner alignment and the threshold is 0, as in
    `SAM2Transforms.postprocess_masks` of the SAM 2 repository.

    Raises:
        InvalidOutputError: the answer would be larger than max_output_bytes.
    """
    objects, candidates = low_res_logits.shape[:2]
    height, width = original_hw
    full_size = (objects, candidates, height, width)
    pixels = objects * candidates * height * width
    wanted_bytes = pixels * ("bitmap" in formats) + 4 * pixels * ("logits" in formats)
    if wanted_bytes > max_output_bytes:
        raise InvalidOutputError(
            f"mask_format: expected an answer of at most {max_output_bytes} bytes (max_output_bytes), got"
            f" {objects} objects x {candidates} masks of {width}x{height} as"
            f" {' and '.join(sorted(formats & {'bitmap', 'logits'}))} = {wanted_bytes} bytes; ask for"
            " rle or png, or for fewer objects at a time"
        )
    encoded = EncodedMasks(
        masks=np.empty(full_size if "bitmap" in formats else (0, 0, 0, 0), np.uint8),
        mask_logits=np.empty(full_size if "logits" in formats else (0, 0, 0, 0), np.float32),
        masks_rle=np.empty((objects, candidates) if "rle" in formats else (0, 0), np.object_),
        masks_png=np.empty((objects, candidates) if "png" in formats else (0, 0), np.object_),
    )
    if formats:
        # One plane at a time: a request for RLE of many objects never holds more than one full mask.
        for index in np.ndindex(objects, candidates):
            _encode_plane(low_res_logits[index], index, original_hw, formats, encoded)
    return encoded


def clamp_low_res(low_res_logits: FloatArray) -> FloatArray:
    """Low-res logits as they are handed back: within ±32, the range a mask prompt was trained on."""
    return np.clip(low_res_logits, -LOW_RES_LIMIT, LOW_RES_LIMIT)


def _encode_plane(
    low_res: FloatArray,
    index: tuple[int, ...],
    original_hw: tuple[int, int],
    formats: frozenset[str],
    encoded: EncodedMasks,
) -> None:
    height, width = original_hw
    logits = cv2.resize(low_res, (width, height), interpolation=cv2.INTER_LINEAR)
    if "logits" in formats:
        encoded.mask_logits[index] = logits
    if formats == {"logits"}:
        return
    mask = (logits > MASK_THRESHOLD).astype(np.uint8)
    if "bitmap" in formats:
        encoded.masks[index] = mask
    if "rle" in formats:
        encoded.masks_rle[index] = _to_rle(mask)
    if "png" in formats:
        encoded.masks_png[index] = _to_png(mask)


def _to_rle(mask: UInt8Array) -> bytes:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return json.dumps({"size": rle["size"], "counts": rle["counts"].decode("ascii")}).encode()


def _to_png(mask: UInt8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).save(buffer, format="PNG")
    return buffer.getvalue()
