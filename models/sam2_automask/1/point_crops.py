"""Where to look: the crops of an image and the points in each of them.

Source: `generate_crop_boxes` and `build_all_layer_point_grids` of the SAM 2 repository's `utils/amg.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from generator_parameters import GeneratorParameters, InvalidParameterError

FloatArray = npt.NDArray[np.float32]
UnitArray = npt.NDArray[np.float64]
BoxXyxy = tuple[int, int, int, int]


@dataclass(frozen=True)
class PointCrop:
    """A part of the image, x0, y0, x1, y1, and the points in it, [N, 2] x, y from the part's corner."""

    box_xyxy: BoxXyxy
    points_xy: FloatArray

    @property
    def hw(self) -> tuple[int, int]:
        x0, y0, x1, y1 = self.box_xyxy
        return y1 - y0, x1 - x0


def lay_out(
    parameters: GeneratorParameters, original_hw: tuple[int, int], max_points: int, max_crops: int
) -> list[PointCrop]:
    """The whole image first, then every layer's crops, column by column, each with its layer's grid.

    Raises:
        InvalidParameterError: more crops or points than the limits allow, a layer without points, or crops
            of an image that has too few pixels for them.
    """
    layers = parameters.crop_n_layers
    crops = sum(4**layer for layer in range(layers + 1))
    if crops > max_crops:
        raise InvalidParameterError(
            f"crop_n_layers: expected at most {max_crops} images to encode (max_crops), got"
            f" {layers} layers = {crops}"
        )
    sizes = [_grid_size(parameters, layer) for layer in range(layers + 1)]
    points = sum(4**layer * size for layer, size in enumerate(sizes))
    if points > max_points:
        name = "points_per_side" if parameters.point_grids is None else "point_grids"
        raise InvalidParameterError(
            f"{name}: expected at most {max_points} points in all crops together (max_points), got {points}"
        )
    return [
        PointCrop(box, _points_in(box, _grid(parameters, layer)))
        for layer in range(layers + 1)
        for box in _boxes(original_hw, layer, parameters.crop_overlap_ratio)
    ]


def _grid_size(parameters: GeneratorParameters, layer: int) -> int:
    if parameters.point_grids is not None:
        return len(parameters.point_grids[layer])
    return _points_a_side(parameters, layer) ** 2


def _points_a_side(parameters: GeneratorParameters, layer: int) -> int:
    side = parameters.points_per_side or 0
    factor: int = parameters.crop_n_points_downscale_factor**layer
    if side < factor:
        raise InvalidParameterError(
            f"crop_n_points_downscale_factor: expected at least one point a side in every layer, got"
            f" points_per_side {side} / {factor} in layer {layer}"
        )
    return side // factor


def _grid(parameters: GeneratorParameters, layer: int) -> UnitArray:
    if parameters.point_grids is not None:
        return parameters.point_grids[layer]
    count = _points_a_side(parameters, layer)
    margin = 1 / (2 * count)
    along = np.linspace(margin, 1 - margin, count)
    return np.stack([np.tile(along, count), np.repeat(along, count)], axis=1)


def _points_in(box: BoxXyxy, grid: UnitArray) -> FloatArray:
    x0, y0, x1, y1 = box
    points: FloatArray = (grid * np.array([[x1 - x0, y1 - y0]])).astype(np.float32)
    return points


def _boxes(original_hw: tuple[int, int], layer: int, overlap_ratio: float) -> list[BoxXyxy]:
    height, width = original_hw
    if layer == 0:
        return [(0, 0, width, height)]
    a_side = 2**layer
    overlap = int(overlap_ratio * min(height, width) * (2 / a_side))
    crop_width, crop_height = (
        math.ceil((overlap * (a_side - 1) + length) / a_side) for length in (width, height)
    )
    boxes = [
        (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))
        for x0 in ((crop_width - overlap) * i for i in range(a_side))
        for y0 in ((crop_height - overlap) * i for i in range(a_side))
    ]
    for x0, y0, x1, y1 in boxes:
        if x1 <= x0 or y1 <= y0:
            raise InvalidParameterError(
                f"crop_n_layers: expected an image that {a_side} x {a_side} crops divide,"
                f" got {width}x{height} pixels"
            )
    return boxes
