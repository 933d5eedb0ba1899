"""Prompts as `SAM2ImagePredictor.predict` takes them ► the server's tensors, checked."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triton_sam2._errors import InvalidInputError

PADDING_LABEL = -1
Prompts: TypeAlias = dict[str, NDArray[Any]]
PointsLike: TypeAlias = ArrayLike | Sequence[ArrayLike]
"""An array, nested lists, or a list of one array per object, of unequal lengths if need be."""


def prompt_tensors(
    point_coords: PointsLike | None = None,
    point_labels: PointsLike | None = None,
    box: ArrayLike | None = None,
    mask_input: ArrayLike | None = None,
) -> Prompts:
    """Tensors by name: point_coords FP32 [B, N, 2], point_labels INT32 [B, N], box FP32 [B, 4], mask_input.

    Objects with fewer points than others are padded with label -1. Raises InvalidInputError, naming the
    argument, on a wrong shape or value, no prompt at all, or numbers of objects that differ.
    """
    prompts: Prompts = {}
    if (box is not None or mask_input is not None) and (
        _has_no_points(point_coords) and _has_no_points(point_labels)
    ):
        point_coords = point_labels = None  # beside another prompt, no points are no points
    if point_coords is not None or point_labels is not None:
        prompts["point_coords"], prompts["point_labels"] = _points(point_coords, point_labels)
    if box is not None:
        prompts["box"] = _boxes(box)
    if mask_input is not None:
        prompts["mask_input"] = _mask_planes(mask_input)
    if not prompts:
        raise InvalidInputError("no prompt: give point_coords and point_labels, box or mask_input")
    objects = {name: len(tensor) for name, tensor in prompts.items()}
    if len(set(objects.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in objects.items())
        raise InvalidInputError(f"prompts differ in their number of objects: {counts}")
    return prompts


def _points(
    point_coords: PointsLike | None, point_labels: PointsLike | None
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    if point_coords is None or point_labels is None:
        missing = "point_coords" if point_coords is None else "point_labels"
        raise InvalidInputError(f"{missing}: missing; points need both coordinates and labels")
    coords = [_coords_of_object(part) for part in _per_object(point_coords, "point_coords", 2)]
    labels = [_labels_of_object(part) for part in _per_object(point_labels, "point_labels", 1)]
    if [len(part) for part in coords] != [len(part) for part in labels]:
        raise InvalidInputError(
            "point_labels: expected one label per point, got "
            f"{[len(part) for part in labels]} labels for {[len(part) for part in coords]} points"
        )
    most = max(len(part) for part in labels)
    if most == 0:
        raise InvalidInputError(
            "point_coords: expected at least one point, or a box or mask_input beside none, got none"
        )
    padded_coords = np.zeros((len(coords), most, 2), np.float32)
    padded_labels = np.full((len(coords), most), PADDING_LABEL, np.int32)
    for index, (xy, label) in enumerate(zip(coords, labels, strict=True)):
        padded_coords[index, : len(xy)] = xy
        padded_labels[index, : len(label)] = label
    return padded_coords, padded_labels


def _has_no_points(values: PointsLike | None) -> bool:
    """Whether there is nothing in an array or in nested lists, however empty they are."""
    if values is None:
        return True
    if isinstance(values, list | tuple):
        return all(_has_no_points(part) for part in values)
    return np.size(values) == 0  # type: ignore[arg-type]


def _per_object(values: PointsLike, name: str, rank: int) -> list[NDArray[Any]]:
    """One array per object, from an array with or without the leading B, or from a ragged list."""
    try:
        array = np.asarray(values)
    except ValueError:  # numpy's word for lists of unequal lengths
        array = None
    if array is None or array.dtype == object:
        return [_array(part, f"{name}[{index}]") for index, part in enumerate(list(values))]  # type: ignore[arg-type]
    parts = [array] if array.ndim == rank else list(array) if array.ndim == rank + 1 else []
    if not parts:
        wanted = "[N, 2] or [B, N, 2]" if rank == 2 else "[N] or [B, N]"
        raise InvalidInputError(f"{name}: expected shape {wanted}, got {list(array.shape)}")
    return parts


def _coords_of_object(coords: NDArray[Any]) -> NDArray[np.float32]:
    if coords.size == 0:
        return np.zeros((0, 2), np.float32)
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise InvalidInputError(
            f"point_coords: expected x, y pairs of shape [N, 2], got {list(coords.shape)}"
        )
    return _finite(coords, "point_coords")


def _labels_of_object(labels: NDArray[Any]) -> NDArray[np.int32]:
    if labels.size == 0:
        return np.zeros(0, np.int32)
    if labels.ndim != 1:
        raise InvalidInputError(
            f"point_labels: expected labels of shape [N], got {list(labels.shape)}"
        )
    unknown = sorted(
        {value for value in labels.tolist() if value not in (PADDING_LABEL, 0, 1)}, key=str
    )
    if unknown:
        raise InvalidInputError(
            f"point_labels: expected 1 (foreground), 0 (background) or -1 (padding), got {unknown}"
        )
    return labels.astype(np.int32)


def _boxes(box: ArrayLike) -> NDArray[np.float32]:
    boxes = _finite(_array(box, "box"), "box")
    if boxes.ndim == 1:
        boxes = boxes[None]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) == 0:
        raise InvalidInputError(
            f"box: expected x0, y0, x1, y1 of shape [4] or [B, 4], got {list(np.shape(box))}"
        )
    return boxes


def _mask_planes(mask_input: ArrayLike) -> NDArray[np.float32]:
    planes = _finite(_array(mask_input, "mask_input"), "mask_input")
    if planes.ndim == 2:
        planes = planes[None]
    if planes.ndim == 3:
        planes = planes[None]
    if planes.ndim != 4 or planes.shape[1] != 1 or planes.shape[2] != planes.shape[3]:
        raise InvalidInputError(
            "mask_input: expected one low_res_masks plane per object, of shape [s, s], [1, s, s] or "
            f"[B, 1, s, s], got {list(np.shape(mask_input))}"
        )
    return planes


def _finite(values: NDArray[Any], name: str) -> NDArray[np.float32]:
    if values.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name}: expected numbers, got {values.dtype}")
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InvalidInputError(f"{name}: expected finite numbers, got NaN or infinity")
    return numbers


def _array(values: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidInputError(f"{name}: lists of unequal lengths") from error
