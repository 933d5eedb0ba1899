"""Prompts of `triton-sam2 batch`, and their JSON forms: our own, and COCO's annotation files."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from triton_sam2._errors import InvalidInputError

EVERY_IMAGE = "*"


@dataclass
class ObjectPrompt:
    """One object to segment: points, a box, or both, in pixels; and how the results file calls it."""

    points_xy: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box_xyxy: tuple[float, float, float, float] | None = None
    category_id: int = 1
    image_id: int | str | None = None  # None: the image's name

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to segment by."""
        return not self.points_xy and self.box_xyxy is None


PromptFile: TypeAlias = dict[str, list[ObjectPrompt]]
"""The objects of each image, by its name in the file."""


def parse_json(text: str, path: Path, skip_crowds: bool) -> PromptFile:
    """Prompts by image name, of our own form or COCO's; raises InvalidInputError, naming the place.

    Ours: `{"photo.jpg": [{"points": [[x, y], ...], "labels": [1, ...], "box": [x0, y0, x1, y1],
    "category_id": 1}, ...]}`, all of them optional; the name `*` stands for every image. COCO: each
    annotation's `bbox`; those with `iscrowd` only unless skipped.
    """
    try:
        document = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"--prompts: {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"--prompts: {path}: expected an object of image names")
    if "annotations" in document:
        return _from_coco(document, path, skip_crowds)
    return _from_json(document, path)


def whole_number(value: Any) -> int:
    """1, 1.0 or "1.0" as an integer; raises ValueError for anything else."""
    number = float(value)
    if not number.is_integer():
        raise ValueError(f"expected a whole number, got {value!r}")
    return value if isinstance(value, int) else int(number)


def box_xyxy(values: Iterable[Any]) -> tuple[float, float, float, float]:
    """Four numbers; raises ValueError or TypeError for anything else."""
    corners = [float(value) for value in values]
    if len(corners) != 4:
        raise ValueError(f"expected a box of x0, y0, x1, y1, got {len(corners)} numbers")
    x0, y0, x1, y1 = corners
    return x0, y0, x1, y1


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which the second of two equal names would silently replace the first."""
    names: dict[str, Any] = {}
    for name, value in pairs:
        if name in names:
            raise ValueError(f"the name {name!r} stands there twice")
        names[name] = value
    return names


def _from_json(document: Mapping[str, Any], path: Path) -> PromptFile:
    prompts: PromptFile = {}
    for name, objects in document.items():
        try:
            if not isinstance(objects, list):
                raise ValueError(f"expected a list of objects, got {type(objects).__name__}")
            prompts[name] = [_json_object(entry) for entry in objects]
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(f"--prompts: {path}: {name}: {error}") from error
    return prompts


def _json_object(entry: Any) -> ObjectPrompt:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with points or a box, got {type(entry).__name__}")
    unknown = set(entry) - {"points", "labels", "box", "category_id"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    points = [(float(x), float(y)) for x, y in entry.get("points") or []]
    given = entry.get("labels")
    labels = [1] * len(points) if given is None else [whole_number(label) for label in given]
    if len(labels) != len(points):
        raise ValueError(f"{len(labels)} labels for {len(points)} points")
    box = entry.get("box")
    return ObjectPrompt(
        points,
        labels,
        None if box is None else box_xyxy(box),
        whole_number(entry.get("category_id", 1)),
    )


def _from_coco(document: Mapping[str, Any], path: Path, skip_crowds: bool) -> PromptFile:
    prompts: PromptFile = {}
    try:
        names = _coco_names(document["images"])
        for number, annotation in enumerate(document["annotations"], start=1):
            image_id = annotation["image_id"]
            if image_id not in names:
                raise ValueError(f"annotation {number}: no image has the id {image_id!r}")
            if skip_crowds and annotation.get("iscrowd"):
                continue
            x, y, width, height = (float(side) for side in annotation["bbox"])
            prompts.setdefault(names[image_id], []).append(
                ObjectPrompt(
                    box_xyxy=(x, y, x + width, y + height),
                    category_id=whole_number(annotation.get("category_id", 1)),
                    image_id=image_id,
                )
            )
    except KeyError as error:
        raise InvalidInputError(
            f"--prompts: {path} is not a COCO file: an entry lacks {error}"
        ) from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"--prompts: {path} is not a COCO file: {error}") from error
    return prompts


def _coco_names(images: Iterable[Mapping[str, Any]]) -> dict[Any, str]:
    """File names by id. Two ids may share a file; an id of two files says nothing."""
    names: dict[Any, str] = {}
    for image in images:
        name = str(image["file_name"])
        if names.setdefault(image["id"], name) != name:
            raise ValueError(
                f"the id {image['id']!r} stands for both {names[image['id']]!r} and {name!r}"
            )
    return names
