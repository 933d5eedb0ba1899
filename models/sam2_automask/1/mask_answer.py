"""Found masks ► the answer's tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from candidates import Candidate, mask_of
from mask_encoding import InvalidOutputError, OutputLimits, parse_mask_formats, to_png

Array = npt.NDArray[Any]
FORMATS = ("rle", "bitmap", "png")
DEFAULT_FORMATS = frozenset({"rle"})


def parse_formats(values: list[bytes] | None) -> frozenset[str]:
    """The formats named by `mask_format`, of which logits is none here; rle where the tensor is absent.

    Raises:
        InvalidOutputError: a format that is not one of FORMATS.
    """
    return parse_mask_formats(values, FORMATS, DEFAULT_FORMATS)


def answer_tensors(
    found: list[Candidate],
    original_hw: tuple[int, int],
    formats: frozenset[str],
    limits: OutputLimits,
    check: Callable[[], None],
) -> dict[str, Array]:
    """All outputs but the image's id; a format that was not asked for has 0 elements.

    Raises:
        InvalidOutputError: bitmaps or PNGs would exceed a limit.
    """
    _check_size(len(found), original_hw, formats, limits)
    boxes = np.array([each.box_xyxy for each in found], np.int32).reshape(-1, 4)
    crops = np.array([each.crop_xyxy for each in found], np.int32).reshape(-1, 4)
    return {
        "masks_rle": _texts(
            [_rle(each, original_hw) for each in found] if "rle" in formats else []
        ),
        **_pixels(found, original_hw, formats, check),
        "area": np.array([each.area for each in found], np.int32),
        "bbox": _xywh(boxes),
        "predicted_iou": np.array([each.predicted_iou for each in found], np.float32),
        "stability_score": np.array([each.stability_score for each in found], np.float32),
        "point_coords": np.array([each.point_xy for each in found], np.float32).reshape(-1, 2),
        "crop_box": _xywh(crops),
        "original_hw": np.array(original_hw, np.int32),
    }


def _check_size(
    masks: int, original_hw: tuple[int, int], formats: frozenset[str], limits: OutputLimits
) -> None:
    height, width = original_hw
    dear = sorted(formats - {"rle"})
    pixels = masks * height * width
    what = f"{masks} masks of {width}x{height} as {' and '.join(dear)} = {len(dear) * pixels}"
    if "bitmap" in formats and pixels > limits.max_output_bytes:
        raise InvalidOutputError(
            f"mask_format: expected an answer of at most {limits.max_output_bytes} bytes (max_output_bytes),"
            f" got {what}; ask for rle, or for fewer masks by max_masks"
        )
    if len(dear) * pixels > limits.max_encoded_pixels:
        raise InvalidOutputError(
            f"mask_format: expected at most {limits.max_encoded_pixels} pixels to encode"
            f" (max_encoded_pixels), got {what}; ask for rle, or for fewer masks by max_masks"
        )


def _pixels(
    found: list[Candidate],
    original_hw: tuple[int, int],
    formats: frozenset[str],
    check: Callable[[], None],
) -> dict[str, Array]:
    bitmaps = np.zeros((len(found), *original_hw) if "bitmap" in formats else (0, 0, 0), np.uint8)
    pngs: list[bytes] = []
    if formats & {"bitmap", "png"}:
        for index, each in enumerate(found):
            check()
            mask = mask_of(each, original_hw)
            if "bitmap" in formats:
                bitmaps[index] = mask
            if "png" in formats:
                pngs.append(to_png(np.ascontiguousarray(mask)))
    return {"masks": bitmaps, "masks_png": _texts(pngs)}


def _rle(candidate: Candidate, original_hw: tuple[int, int]) -> bytes:
    return json.dumps({"size": list(original_hw), "counts": candidate.counts.decode()}).encode()


def _texts(values: list[bytes]) -> Array:
    tensor = np.empty(len(values), np.object_)
    tensor[:] = values
    return tensor


def _xywh(boxes_xyxy: npt.NDArray[np.int32]) -> Array:
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)
