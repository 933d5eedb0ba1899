"""Prompt files of `triton-sam2 batch`: JSON, CSV, or the boxes of a COCO annotation file."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from triton_sam2._errors import InvalidInputError

EVERY_IMAGE = "*"


@dataclass
class ObjectPrompt:
    """One object to segment: points, a box, or both, in pixels."""

    points_xy: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box_xyxy: tuple[float, float, float, float] | None = None
    category_id: int = 1


@dataclass
class ImagePrompts:
    """The objects of one image, and what the results file calls that image."""

    image_id: int | str
    objects: list[ObjectPrompt] = field(default_factory=list)


PromptFile: TypeAlias = dict[str, ImagePrompts]


def read_prompt_file(path: Path) -> PromptFile:
    """Prompts by image name; raises InvalidInputError, naming the place, on anything else.

    CSV: a header row with `image` and `x, y[, label]` or `x0, y0, x1, y1`, and optionally `object` (rows of
    one object belong together) and `category_id`. JSON: `{"photo.jpg": [{"points": [[x, y], ...],
    "labels": [1, ...], "box": [x0, y0, x1, y1], "category_id": 1}, ...]}`, all of them optional; the name
    `*` stands for every image. COCO: each annotation's `bbox`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"--prompts: cannot read {path}: {error}") from error
    if path.suffix.lower() == ".csv":
        prompts = _from_csv(text, path)
    else:
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidInputError(f"--prompts: {path} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidInputError(f"--prompts: {path}: expected an object of image names")
        prompts = (
            _from_coco(document, path) if "annotations" in document else _from_json(document, path)
        )
    for name, image in prompts.items():
        for index, prompt in enumerate(image.objects):
            if not prompt.points_xy and prompt.box_xyxy is None:
                raise InvalidInputError(
                    f"--prompts: {path}: {name}: object {index + 1} has no prompt"
                )
    return prompts


def _from_json(document: Mapping[str, Any], path: Path) -> PromptFile:
    prompts: PromptFile = {}
    for name, objects in document.items():
        try:
            prompts[name] = ImagePrompts(name, [_json_object(entry) for entry in objects])
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"--prompts: {path}: {name}: {error}") from error
    return prompts


def _json_object(entry: Mapping[str, Any]) -> ObjectPrompt:
    unknown = set(entry) - {"points", "labels", "box", "category_id"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    points = [(float(x), float(y)) for x, y in entry.get("points", [])]
    labels = [int(label) for label in entry.get("labels", [1] * len(points))]
    if len(labels) != len(points):
        raise ValueError(f"{len(labels)} labels for {len(points)} points")
    return ObjectPrompt(points, labels, _box(entry.get("box")), int(entry.get("category_id", 1)))


def _from_coco(document: Mapping[str, Any], path: Path) -> PromptFile:
    try:
        names = {image["id"]: str(image["file_name"]) for image in document["images"]}
        prompts = {name: ImagePrompts(image_id) for image_id, name in names.items()}
        for annotation in document["annotations"]:
            x, y, width, height = (float(side) for side in annotation["bbox"])
            prompts[names[annotation["image_id"]]].objects.append(
                ObjectPrompt(
                    box_xyxy=(x, y, x + width, y + height),
                    category_id=int(annotation.get("category_id", 1)),
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"--prompts: {path} is not a COCO file: {error!r}") from error
    return {name: image for name, image in prompts.items() if image.objects}


def _from_csv(text: str, path: Path) -> PromptFile:
    prompts: PromptFile = {}
    objects: dict[tuple[str, str], ObjectPrompt] = {}
    for number, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        try:
            name = _cell(row, "image")
            if name is None:
                raise ValueError("no image")
            image = prompts.setdefault(name, ImagePrompts(name))
            # Without an object column, every row is an object of its own.
            key = (name, _cell(row, "object") or f"row {number}")
            if key not in objects:
                objects[key] = ObjectPrompt(category_id=int(_cell(row, "category_id") or 1))
                image.objects.append(objects[key])
            _add_row(objects[key], row)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"--prompts: {path}, line {number}: {error}") from error
    return prompts


def _add_row(prompt: ObjectPrompt, row: Mapping[str, str]) -> None:
    x, y = _cell(row, "x"), _cell(row, "y")
    corners = [_cell(row, name) for name in ("x0", "y0", "x1", "y1")]
    if (x is None) != (y is None) or (any(corners) and None in corners):
        raise ValueError("expected x and y, or x0, y0, x1 and y1")
    if x is not None and y is not None:
        prompt.points_xy.append((float(x), float(y)))
        prompt.labels.append(int(_cell(row, "label") or 1))
    if any(corners):
        prompt.box_xyxy = _box([float(corner or 0) for corner in corners])


def _box(values: Iterable[Any] | None) -> tuple[float, float, float, float] | None:
    if values is None:
        return None
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


def _cell(row: Mapping[str, str | None], name: str) -> str | None:
    value = row.get(name)
    return value.strip() or None if value is not None else None
