"""The mask generator's parameters, by the names of Meta's SAM2AutomaticMaskGenerator, and our own."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from triton_sam2._errors import InvalidInputError


class GeneratorParameters(TypedDict, total=False):
    """What to generate; the server has the defaults, checks every value and names what it does not know."""

    points_per_side: int | None
    points_per_batch: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    mask_threshold: float
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    crop_n_points_downscale_factor: int
    point_grids: Sequence[ArrayLike] | None
    min_mask_region_area: int
    use_m2m: bool
    multimask_output: bool
    min_mask_area: int
    max_mask_area: int | None
    mask_nms_thresh: float | None
    mask_containment_thresh: float | None
    max_masks: int | None


def plain_parameters(parameters: Mapping[str, object]) -> dict[str, Any]:
    """The same with numpy's arrays and numbers as plain ones, which JSON can hold."""
    return {name: _plain(name, value) for name, value in parameters.items()}


def _plain(name: str, value: object) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(name, each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InvalidInputError(
        f"{name}: expected a number, true or false, or lists of numbers, got {type(value).__name__}"
    )
