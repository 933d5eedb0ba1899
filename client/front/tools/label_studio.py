"""Label Studio's ML backend: smart clicks and boxes in, brush masks or polygons out.

Coordinates are percent of the image's width and height. Source of the contract: label-studio-ml-backend and
label-studio's api_connector.
"""

from __future__ import annotations

import math
import uuid
from typing import Any

import numpy as np
from starlette.responses import Response
from starlette.routing import Route

from front.refusals import Refusal
from front.service import FrontService
from front.tools.answers import json_answer
from front.tools.brush_rle import encode_brush_mask
from front.tools.desk import ImagePrompt, ToolCall, ToolDesk
from front.tools.fields import a_flag, a_list, a_number, a_text, an_object
from front.tools.image_fetching import ImageFetcher
from front.tools.keys import basic_key
from front.tools.label_studio_config import LabelTarget, read_label_target
from front.tools.label_studio_images import LabelStudioImages
from front.tools.masks import CroppedMask, segmented_masks
from front.tools.prompts import ObjectPrompt, marked_objects, ordered_box
from front.tools.settings import ToolSettings
from front.tools.shapes import outer_outlines

NAME = "label_studio"
MODEL_VERSION = "sam2.1"
_POINT, _BOX = "keypointlabels", "rectanglelabels"


class LabelStudio:
    """The routes of the ML backend."""

    def __init__(
        self, service: FrontService, settings: ToolSettings, fetcher: ImageFetcher
    ) -> None:
        self._desk = ToolDesk(service, NAME, settings.limits, refused, credentials=basic_key)
        self._images = LabelStudioImages(settings, fetcher)

    def routes(self) -> list[Route]:
        """Under the tool's own path."""
        handler = self._desk.handler
        path = f"/tools/{NAME}"
        health, metrics = handler("health", self._health), handler("metrics", self._metrics)
        return [
            Route(path, health, methods=["GET"]),
            Route(f"{path}/", health, methods=["GET"]),
            Route(f"{path}/health", health, methods=["GET"]),
            Route(f"{path}/metrics", metrics, methods=["GET"]),
            Route(f"{path}/setup", handler("setup", self._setup), methods=["POST"]),
            Route(f"{path}/predict", handler("predict", self._predict), methods=["POST"]),
            Route(f"{path}/webhook", handler("webhook", self._webhook), methods=["POST"]),
        ]

    async def _health(self, _call: ToolCall) -> Response:
        await self._desk.check_ready()
        return json_answer({"status": "UP", "model_class": "SegmentAnything2"})

    async def _metrics(self, _call: ToolCall) -> Response:
        return json_answer({})

    async def _setup(self, call: ToolCall) -> Response:
        await self._desk.body(call)
        return json_answer({"model_version": MODEL_VERSION})

    async def _webhook(self, call: ToolCall) -> Response:
        """There is nothing to train: the event is taken and forgotten."""
        await self._desk.body(call)
        return json_answer({}, 201)

    async def _predict(self, call: ToolCall) -> Response:
        document = await self._desk.body(call)
        params = an_object("params", document.get("params") or {})
        context = an_object("params.context", params.get("context") or {})
        marks = a_list("params.context.result", context.get("result") or [])
        if not marks:
            # Nobody has clicked: there is nothing to predict, as for tasks that are only listed.
            return json_answer({"results": [], "model_version": MODEL_VERSION})
        config = a_text("label_config", document.get("label_config"), longest=1 << 30)
        target = read_label_target(
            config, self._desk.limits.max_label_config_bytes, *read_marked_image(marks)
        )
        task = an_object("tasks[0]", next(iter(a_list("tasks", document.get("tasks"))), None))
        data = an_object("tasks[0].data", task.get("data"))
        fetched = self._images.image(
            f"tasks[0].data.{target.image_field}"[:80],
            data.get(target.image_field),
            task.get("id"),
            call.reservation.hold,
        )
        image = await self._desk.unless_gone(call, fetched)
        handle = await self._desk.warm(call, image)
        objects, label = read_marks(marks, handle.original_hw, self._desk.limits.max_objects)
        prompt = ImagePrompt(image, objects, handle, multimask=True)
        result = await self._desk.segment(call, prompt)
        most = self._desk.max_rendered_pixels
        return await self._desk.drawn(lambda: _answer(segmented_masks(result, most), target, label))


def read_marked_image(marks: list[Any]) -> tuple[str | None, str | None]:
    """The name of the image that was marked last, and the label chosen for it, as far as they are said."""
    for mark in reversed(marks):
        if isinstance(mark, dict) and mark.get("type") in (_POINT, _BOX):
            to_name, value = mark.get("to_name"), mark.get("value")
            names = value.get(mark["type"]) if isinstance(value, dict) else None
            label = names[0] if isinstance(names, list) and names else None
            return (
                to_name if isinstance(to_name, str) else None,
                label if isinstance(label, str) else None,
            )
    return None, None


def read_marks(
    marks: list[Any], original_hw: tuple[int, int], most: int
) -> tuple[list[ObjectPrompt], str]:
    """The smart marks of a context ► objects in pixels, and the label that the user chose last.

    All clicks belong to one object, with its box if there is one; several boxes are an object each.
    """
    points: list[tuple[float, float, int]] = []
    boxes: list[tuple[float, float, float, float]] = []
    label = ""
    for index, each in enumerate(marks):
        where = f"params.context.result[{index}]"
        mark = an_object(where, each)
        kind = mark.get("type")
        if kind not in (_POINT, _BOX):
            # What is drawn already comes along; it is no prompt.
            continue
        value = an_object(f"{where}.value", mark.get("value"))
        names = a_list(f"{where}.value.{kind}", value.get(kind))
        label = a_text(f"{where}.value.{kind}[0]", names[0] if names else None)
        if kind == _POINT:
            is_positive = a_flag(f"{where}.is_positive", mark.get("is_positive", 0))
            points.append((*_percent(where, value, original_hw), int(is_positive)))
        else:
            boxes.append(_box(where, value, original_hw))
    return marked_objects("params.context.result", points, boxes, most), label


def _percent(
    where: str, value: dict[str, Any], original_hw: tuple[int, int]
) -> tuple[float, float]:
    height, width = original_hw
    x, y = (a_number(f"{where}.value.{name}", value.get(name)) for name in ("x", "y"))
    return x * width / 100, y * height / 100


def _box(
    where: str, value: dict[str, Any], original_hw: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A rectangle's box in pixels; of a turned one, the upright box round it."""
    height, width = original_hw
    x, y = _percent(where, value, original_hw)
    right = a_number(f"{where}.value.width", value.get("width")) * width / 100
    down = a_number(f"{where}.value.height", value.get("height")) * height / 100
    # Clockwise round its first corner, in degrees.
    angle = math.radians(a_number(f"{where}.value.rotation", value.get("rotation") or 0))
    sine, cosine = math.sin(angle), math.cos(angle)
    corners = [
        (x + a * right * cosine - b * down * sine, y + a * right * sine + b * down * cosine)
        for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    xs, ys = zip(*corners, strict=True)
    return ordered_box(min(xs), min(ys), max(xs), max(ys))


def _answer(masks: list[tuple[CroppedMask, float]], target: LabelTarget, label: str) -> Response:
    items = [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": target.from_name,
            "to_name": target.to_name,
            "original_width": mask.original_hw[1],
            "original_height": mask.original_hw[0],
            "image_rotation": 0,
            "type": target.kind,
            "value": {**value, target.kind: [label]},
            "score": score,
            "readonly": False,
        }
        for mask, score in masks
        for value in _values(mask, target)
    ]
    scores = [score for mask, score in masks if not mask.is_empty]
    mean = sum(scores) / len(scores) if scores else 0.0
    prediction = {"result": items, "score": mean, "model_version": MODEL_VERSION}
    return json_answer({"results": [prediction], "model_version": MODEL_VERSION})


def _values(mask: CroppedMask, target: LabelTarget) -> list[dict[str, Any]]:
    """A mask as the control takes it; nothing for an empty one."""
    if mask.is_empty:
        return []
    if target.kind == "brushlabels":
        return [{"format": "rle", "rle": list(encode_brush_mask(mask))}]
    height, width = mask.original_hw
    scale = np.array([100 / width, 100 / height])
    return [
        {"points": (outline * scale).tolist(), "closed": True}
        for outline in outer_outlines(mask, 0.5)
    ]


def refused(refusal: Refusal) -> Response:
    """Label Studio takes the status; the words are for its log."""
    response = json_answer({"error": refusal.message}, refusal.http_status)
    if refusal.http_status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="SAM 2"'
    return response
