"""What Roboflow's requests for SAM 2 say: objects, kind of masks, model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from triton_sam2._results.segmentation import MaskFormat

from front.refusals import invalid, not_found, quoted
from front.tools.fields import a_flag, a_list, a_number, a_text, an_object, kind
from front.tools.prompts import MAX_POINTS, ObjectPrompt

# Whichever of them is asked for, the server's own checkpoint answers.
VERSIONS = ("hiera_large", "hiera_b_plus", "hiera_small", "hiera_tiny")
# What is asked of the server for each format.
SERVER_FORMATS: dict[str, MaskFormat] = {"json": "rle", "rle": "rle", "binary": "logits"}


@dataclass(frozen=True)
class Wanted:
    """What of the masks is to come back."""

    format: str
    multimask: bool
    mask_input: npt.NDArray[np.float32] | None


def read_objects(prompts: Any, most: int) -> list[ObjectPrompt]:
    """The objects of `{"prompts": [...]}`, of a list, or of one object alone."""
    if isinstance(prompts, dict):
        prompts = prompts.get("prompts", [prompts])
    listed = a_list("prompts", prompts or [], most)
    if not listed:
        raise invalid("prompts: expected at least one object with a box or points, got none")
    return [_object(f"prompts[{index}]", each) for index, each in enumerate(listed)]


def _object(where: str, prompt: Any) -> ObjectPrompt:
    fields = an_object(where, prompt)
    box = None
    if fields.get("box") is not None:
        sides = an_object(f"{where}.box", fields["box"])
        names = ("x", "y", "width", "height")
        x, y, width, height = (a_number(f"{where}.box.{name}", sides.get(name)) for name in names)
        if width < 0 or height < 0:
            raise invalid(f"{where}.box: expected a width and a height of at least 0")
        # x and y are its centre.
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    points, labels = [], []
    for index, each in enumerate(a_list(f"{where}.points", fields.get("points") or [], MAX_POINTS)):
        name = f"{where}.points[{index}]"
        point = an_object(name, each)
        points.append(
            (a_number(f"{name}.x", point.get("x")), a_number(f"{name}.y", point.get("y")))
        )
        labels.append(int(a_flag(f"{name}.positive", point.get("positive"))))
    if box is None and not points:
        raise invalid(f"{where}: expected a box or points, got neither")
    return ObjectPrompt(tuple(points), tuple(labels), box)


def read_wanted(document: dict[str, Any]) -> Wanted:
    """Format and kind of masks, and an earlier mask to refine."""
    name = a_text("format", document.get("format") or "json")
    if name not in SERVER_FORMATS:
        raise invalid(f"format: expected one of {', '.join(SERVER_FORMATS)}, got {quoted(name)}")
    multimask = a_flag("multimask_output", document.get("multimask_output", True))
    return Wanted(name, multimask, _mask_input(document))


def _mask_input(document: dict[str, Any]) -> npt.NDArray[np.float32] | None:
    """[B, 1, s, s] logits, as `low_res_masks` gives them ([B, s, s] as well)."""
    value = document.get("mask_input")
    if value is None:
        return None
    if not isinstance(value, list):
        raise invalid(f"mask_input: expected lists of numbers, got {kind(value)}")
    count = len(read_objects(document.get("prompts"), len(value)))
    try:
        masks = np.array(value, np.float32)
    except (ValueError, TypeError) as error:
        raise invalid("mask_input: expected numbers in lists of equal lengths") from error
    masks = masks[:, None] if masks.ndim == 3 else masks
    if masks.ndim != 4 or masks.shape[:2] != (count, 1):
        raise invalid(
            f"mask_input: expected [{count}, 1, s, s], a plane for each object, got {list(masks.shape)}"
        )
    return masks


def check_version(document: dict[str, Any]) -> None:
    """Raises a Refusal for a model that is none of SAM 2's."""
    version = document.get("sam2_version_id")
    if version is not None and version not in VERSIONS:
        raise not_found(
            f"sam2_version_id: expected one of {', '.join(VERSIONS)}, got {str(version)[:40]!r}"
        )


def read_image_id(document: dict[str, Any]) -> str | None:
    """The caller's name for the image."""
    value = document.get("image_id")
    return None if value is None else a_text("image_id", value)
