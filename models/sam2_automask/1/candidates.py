"""One low-resolution plane ► a candidate mask with its figures, or nothing where a filter drops it.

Filters and their order are `SAM2AutomaticMaskGenerator._process_batch`'s: stability at the crop's full
size, then the crop's edges; the filter by area between them is ours. Everything is computed in blocks of
one plane: beside the mask itself, a byte a pixel, nothing of full size exists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from generator_parameters import GeneratorParameters
from mask_planes import FullSizePlane, RunLengths
from point_crops import BoxXyxy, PointCrop
from pycocotools import mask as coco_mask

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

# How near a box may come to an edge of its crop that is no edge of the image, in pixels.
CROP_EDGE_TOLERANCE = 20.0
# What a Python object for a candidate takes beside its run lengths, about.
CANDIDATE_BYTES = 1000


@dataclass(frozen=True)
class Candidate:
    """A mask at the image's size, as the counts of COCO's compressed RLE; everything in the image's pixels.

    box_xyxy names the outermost pixels of the mask, inclusive.
    """

    counts: bytes
    area: int
    box_xyxy: BoxXyxy
    predicted_iou: float
    stability_score: float
    point_xy: tuple[float, float]
    crop_xyxy: BoxXyxy

    @property
    def held_bytes(self) -> int:
        return len(self.counts) + CANDIDATE_BYTES


@dataclass(frozen=True)
class PlaneView:
    """What the planes of a crop are looked at with."""

    crop: PointCrop
    original_hw: tuple[int, int]
    parameters: GeneratorParameters


def look_at(
    low_res_logits: FloatArray,
    predicted_iou: float,
    point_xy: FloatArray,
    view: PlaneView,
) -> Candidate | None:
    """The candidate of one plane [s, s] of a crop; `point_xy` from the crop's corner. None: dropped."""
    crop, original_hw, parameters = view.crop, view.original_hw, view.parameters
    cut = parameters.mask_threshold
    high = np.float32(cut + parameters.stability_score_offset)
    low = np.float32(cut - parameters.stability_score_offset)
    plane = FullSizePlane(low_res_logits, crop.hw)
    certain = possible = 0
    blocks = []
    for start, stop in plane.blocks(positive_only=True, threshold=float(low)):
        logits = plane.logits(start, stop)
        certain += np.count_nonzero(logits > high)
        possible += np.count_nonzero(logits > low)
        blocks.append((start, logits > np.float32(cut)))
    stability = np.float32(certain) / np.float32(possible) if possible else np.float32(np.nan)
    wanted = np.float32(parameters.stability_score_thresh)
    if wanted > 0 and not stability >= wanted:
        return None
    x0, y0, x1, y1 = crop.box_xyxy
    run_lengths = RunLengths(original_hw)
    for start, inside in blocks:
        run_lengths.add(x0 + start, _padded(inside, y0, original_hw[0]))
    lengths = run_lengths.lengths()
    area = int(lengths[1::2].sum())
    if not is_wanted_area(area, parameters):
        return None
    box = box_of(lengths, original_hw[0]) or (x0, y0, x0, y0)
    if _is_cut_off(box, crop.box_xyxy, original_hw):
        return None
    return Candidate(
        counts=_compressed(lengths, original_hw),
        area=area,
        box_xyxy=box,
        predicted_iou=predicted_iou,
        stability_score=float(stability),
        point_xy=(float(point_xy[0] + np.float32(x0)), float(point_xy[1] + np.float32(y0))),
        crop_xyxy=(x0, y0, x1, y1),
    )


def is_wanted_area(area: int, parameters: GeneratorParameters) -> bool:
    maximum = parameters.max_mask_area
    return area >= parameters.min_mask_area and (maximum is None or area <= maximum)


def box_of(run_lengths: IntArray, height: int) -> BoxXyxy | None:
    """Outermost pixels of a mask by its run lengths (columns, zeros first); None where it is empty."""
    ends = np.cumsum(run_lengths)
    starts, ends = ends[:-1:2], ends[1::2]
    held = ends > starts[: len(ends)]
    starts, ends = starts[: len(ends)][held], ends[held]
    if not len(starts):
        return None
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height
    # A run that goes on in the next column reaches the bottom of this one and the top of that one.
    if (starts // height != (ends - 1) // height).any():
        return left, 0, right, height - 1
    return left, int((starts % height).min()), right, int(((ends - 1) % height).max())


def mask_of(candidate: Candidate, original_hw: tuple[int, int]) -> UInt8Array:
    """Pixels [H, W] of 0 and 1."""
    mask: UInt8Array = coco_mask.decode({"size": list(original_hw), "counts": candidate.counts})
    return mask


def with_mask(candidate: Candidate, mask: UInt8Array) -> Candidate:
    """The same candidate with another mask [H, W]."""
    rle: Any = coco_mask.encode(np.asfortranarray(mask))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (0, 0, 0, 0)
    if rows.size:
        box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    return replace(candidate, counts=rle["counts"], area=int(np.count_nonzero(mask)), box_xyxy=box)


def _padded(block: npt.NDArray[np.bool_], top: int, height: int) -> npt.NDArray[np.bool_]:
    if len(block) == height:
        return block
    padded = np.zeros((height, block.shape[1]), np.bool_)
    padded[top : top + len(block)] = block
    return padded


def _is_cut_off(box: BoxXyxy, crop: BoxXyxy, original_hw: tuple[int, int]) -> bool:
    height, width = original_hw
    return any(
        abs(at - crop_edge) <= CROP_EDGE_TOLERANCE and abs(at - image_edge) > CROP_EDGE_TOLERANCE
        for at, crop_edge, image_edge in zip(box, crop, (0, 0, width, height), strict=True)
    )


def _compressed(lengths: IntArray, original_hw: tuple[int, int]) -> bytes:
    uncompressed = {"size": list(original_hw), "counts": lengths}
    counts: bytes = coco_mask.frPyObjects(uncompressed, *original_hw)["counts"]
    return counts
