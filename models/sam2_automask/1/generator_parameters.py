"""The parameters of one request, as a JSON object: Meta's names and defaults, and our additions, each off."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
# Above this, grids and crops are refused by their limits anyway; it keeps the arithmetic finite.
LARGEST_COUNT = 1 << 20


class InvalidParameterError(ValueError):
    """A parameter cannot be used; the message names it, what was expected and what came."""


@dataclass(frozen=True)
class GeneratorParameters:
    """What to generate. Names and defaults up to `multimask_output` are SAM2AutomaticMaskGenerator's.

    min_mask_region_area counts pixels of the image and needs no GPU: holes and specks smaller than it are
    mended in the finished masks, as SAM 1's generator did. (SAM 2's applies it to the low-resolution
    logits, in their own pixels, and only where a CUDA kernel was compiled; without one it warns and does
    nothing.)

    The rest is ours. min_mask_area and max_mask_area bound the pixels of whole masks, before masks suppress
    each other. mask_nms_thresh suppresses by the overlap of masks instead of boxes, in a crop and among
    crops. mask_containment_thresh drops a mask of which more than this share lies in a better one, or that
    holds more than this share of a better one. max_masks keeps those with the highest predicted IoU.
    """

    points_per_side: int | None = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.8
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    mask_threshold: float = 0.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: list[FloatArray] | None = field(default=None, compare=False)
    min_mask_region_area: int = 0
    use_m2m: bool = False
    multimask_output: bool = True
    min_mask_area: int = 0
    max_mask_area: int | None = None
    mask_nms_thresh: float | None = None
    mask_containment_thresh: float | None = None
    max_masks: int | None = None


NAMES = tuple(entry.name for entry in fields(GeneratorParameters))
# Least and greatest value, and whether null is one.
_COUNTS = {
    "points_per_side": (1, LARGEST_COUNT, True),
    "points_per_batch": (1, LARGEST_COUNT, False),
    "crop_n_layers": (0, 16, False),
    "crop_n_points_downscale_factor": (1, LARGEST_COUNT, False),
    "min_mask_region_area": (0, 1 << 31, False),
    "min_mask_area": (0, 1 << 31, False),
    "max_mask_area": (1, 1 << 31, True),
    "max_masks": (1, LARGEST_COUNT, True),
}
_NUMBERS = {
    "pred_iou_thresh": (0.0, 1.0, False),
    "stability_score_thresh": (0.0, 1.0, False),
    "stability_score_offset": (0.0, 1000.0, False),
    "mask_threshold": (-1000.0, 1000.0, False),
    "box_nms_thresh": (0.0, 1.0, False),
    "crop_nms_thresh": (0.0, 1.0, False),
    "crop_overlap_ratio": (0.0, 1.0, False),
    "mask_nms_thresh": (0.0, 1.0, True),
    "mask_containment_thresh": (0.0, 1.0, True),
}
_FLAGS = ("use_m2m", "multimask_output")


def parse_parameters(text: bytes | None, max_parameters_bytes: int) -> GeneratorParameters:
    """The `parameters` tensor's text; None and an empty string stand for the defaults.

    Raises:
        InvalidParameterError: no JSON object, an unknown name, a value of another type or out of range.
    """
    if not text:
        return GeneratorParameters()
    if len(text) > max_parameters_bytes:
        raise InvalidParameterError(
            f"parameters: expected at most {max_parameters_bytes} bytes (max_parameters_bytes),"
            f" got {len(text)}"
        )
    given = _read_json(text)
    for name in given:
        if name not in NAMES:
            raise InvalidParameterError(
                f"parameters: unknown name {_shown(name)}; known are {', '.join(NAMES)}"
            )
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _COUNTS:
            values[name] = _count(name, value)
        elif name in _NUMBERS:
            values[name] = _number(name, value)
        elif name in _FLAGS:
            values[name] = _flag(name, value)
        else:
            values[name] = _grids(value)
    if values.get("point_grids") is not None:
        # Exactly one of the two, as in the generator; a grid alone is enough said.
        if values.get("points_per_side") is not None:
            raise InvalidParameterError(
                "point_grids: expected points_per_side or point_grids, got both"
            )
        values["points_per_side"] = None
    parameters = GeneratorParameters(**values)
    _check_together(parameters)
    return parameters


def _check_together(parameters: GeneratorParameters) -> None:
    grids = parameters.point_grids
    if parameters.points_per_side is None and grids is None:
        raise InvalidParameterError(
            "points_per_side: expected points_per_side or point_grids, got neither"
        )
    layers = parameters.crop_n_layers + 1
    if grids is not None and len(grids) < layers:
        raise InvalidParameterError(
            f"point_grids: expected {layers} grids, one for each layer (crop_n_layers {layers - 1}),"
            f" got {len(grids)}"
        )
    maximum = parameters.max_mask_area
    if maximum is not None and maximum < parameters.min_mask_area:
        raise InvalidParameterError(
            f"max_mask_area: expected at least min_mask_area, {parameters.min_mask_area}, got {maximum}"
        )


def _read_json(text: bytes) -> dict[str, Any]:
    try:
        given = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once_each)
    except InvalidParameterError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidParameterError(
            f"parameters: expected a JSON object, got what is no JSON: {str(error)[:120]}"
        ) from error
    if not isinstance(given, dict):
        raise InvalidParameterError(f"parameters: expected a JSON object, got {_shown(given)}")
    return given


def _refuse_constant(name: str) -> Any:
    raise InvalidParameterError(f"parameters: expected finite numbers, got {name}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidParameterError(
            f"parameters: expected every name once, got {_shown(twice)} twice"
        )
    return values


def _count(name: str, value: Any) -> int | None:
    least, greatest, optional = _COUNTS[name]
    if value is None and optional:
        return None
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole or not least <= value <= greatest:
        raise InvalidParameterError(
            f"{name}: expected a whole number from {least} to {greatest}{' or null' if optional else ''},"
            f" got {_shown(value)}"
        )
    return int(value)


def _number(name: str, value: Any) -> float | None:
    least, greatest, optional = _NUMBERS[name]
    if value is None and optional:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= greatest
    ):
        raise InvalidParameterError(
            f"{name}: expected a number from {least:g} to {greatest:g}{' or null' if optional else ''},"
            f" got {_shown(value)}"
        )
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidParameterError(f"{name}: expected true or false, got {_shown(value)}")
    return value


def _grids(value: Any) -> list[FloatArray] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise InvalidParameterError(
            f"point_grids: expected a list of grids, one for each layer of crops, got {_shown(value)}"
        )
    return [_grid(index, grid) for index, grid in enumerate(value)]


def _grid(index: int, grid: Any) -> FloatArray:
    expected = f"point_grids[{index}]: expected at least one point, each [x, y] from 0 to 1"
    if not isinstance(grid, list) or not grid:
        raise InvalidParameterError(f"{expected}, got {_shown(grid)}")
    for point in grid:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_in_unit, point)):
            raise InvalidParameterError(f"{expected}, got {_shown(point)}")
    return np.array(grid, np.float64)


def _in_unit(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= 1


def _shown(value: Any) -> str:
    # A client's value may be long or deeply nested: its kind says enough then.
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    shown = json.dumps(value) if not isinstance(value, int) else str(value)[:40]
    return shown if len(shown) <= 60 else shown[:57] + "..."
