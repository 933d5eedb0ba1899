"""X-AnyLabeling's remote server: marks in pixels in, closed polygons out.

Source of the contract: X-AnyLabeling's remote_server and the schemas of its server.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np
from starlette.responses import Response
from starlette.routing import Route

from front.refusals import Refusal, invalid, not_found, quoted
from front.service import FrontService
from front.tools.answers import json_answer
from front.tools.desk import ImagePrompt, ToolCall, ToolDesk
from front.tools.encoded_images import decode_image
from front.tools.fields import a_flag, a_list, a_number, a_text, an_object, numbers
from front.tools.image_fetching import ImageFetcher
from front.tools.keys import header_key
from front.tools.masks import CroppedMask, segmented_masks
from front.tools.prompts import ObjectPrompt, marked_objects, ordered_box
from front.tools.settings import ToolSettings
from front.tools.shapes import simplified_outlines

NAME = "x_anylabeling"
MODEL = "sam2.1"
LABEL = "AUTOLABEL_OBJECT"
KEY_HEADER = "token"
DESCRIPTION: dict[str, Any] = {
    "display_name": "Segment Anything 2.1",
    "widgets": [
        {"name": "button_add_point", "value": None},
        {"name": "button_remove_point", "value": None},
        {"name": "button_add_rect", "value": None},
        {"name": "button_clear", "value": None},
        {"name": "button_finish_object", "value": None},
        {"name": "mask_fineness_slider", "value": 10},
        {"name": "mask_fineness_value_label", "value": None},
    ],
    "params": {},
    "capabilities": {},
    # It needs marks: there is nothing to run over a folder.
    "batch_processing_mode": None,
}
_CODES = {
    401: "UNAUTHORIZED",
    404: "NOT_FOUND",
    413: "TOO_LARGE",
    429: "TOO_MANY_REQUESTS",
    503: "SERVICE_UNAVAILABLE",
}


class XAnyLabeling:
    """The routes of the remote server."""

    def __init__(
        self, service: FrontService, settings: ToolSettings, _fetcher: ImageFetcher
    ) -> None:
        self._desk = ToolDesk(
            service, NAME, settings.limits, refused, credentials=partial(header_key, KEY_HEADER)
        )

    def routes(self) -> list[Route]:
        """Under the tool's own path."""
        handler, path = self._desk.handler, f"/tools/{NAME}"
        info = handler("model", self._model)
        return [
            Route(f"{path}/health", handler("health", self._health), methods=["GET"]),
            Route(f"{path}/v1/models", handler("models", self._models), methods=["GET"]),
            Route(f"{path}/v1/models/{{model}}/info", info, methods=["GET"]),
            Route(f"{path}/v1/predict", handler("predict", self._predict), methods=["POST"]),
        ]

    async def _health(self, _call: ToolCall) -> Response:
        await self._desk.check_ready()
        now = datetime.now(timezone.utc).isoformat()
        return json_answer({"status": "healthy", "models_loaded": 1, "timestamp": now})

    async def _models(self, _call: ToolCall) -> Response:
        return _success({MODEL: DESCRIPTION})

    async def _model(self, call: ToolCall) -> Response:
        _check_model(call.request.path_params["model"])
        return _success(DESCRIPTION)

    async def _predict(self, call: ToolCall) -> Response:
        document = await self._desk.body(call)
        _check_model(a_text("model", document.get("model")))
        params = an_object("params", document.get("params") or {})
        marks = a_list("params.marks", params.get("marks") or [])
        image = decode_image("image", document.get("image"))
        epsilon_factor = a_number("params.epsilon_factor", params.get("epsilon_factor", 0.001))
        if not 0 <= epsilon_factor <= 1:
            raise invalid(f"params.epsilon_factor: expected 0 to 1, got {epsilon_factor:g}")
        if not marks:
            # As its own server: nothing marked, nothing found.
            return _success({"shapes": [], "description": "", "replace": False})
        prompt = ImagePrompt(
            image, read_marks(marks, self._desk.limits.max_objects), multimask=True
        )
        del document, image
        result = await self._desk.segment(call, prompt)
        most = self._desk.max_rendered_pixels
        return await self._desk.drawn(
            lambda: _answer(segmented_masks(result, most), epsilon_factor)
        )


def read_marks(marks: list[Any], most: int) -> list[ObjectPrompt]:
    """Points and rectangles in pixels ► objects."""
    points: list[tuple[float, float, int]] = []
    boxes: list[tuple[float, float, float, float]] = []
    for index, each in enumerate(marks):
        where = f"params.marks[{index}]"
        mark = an_object(where, each)
        label = int(a_flag(f"{where}.label", mark.get("label", 1)))
        if mark.get("type") == "point":
            x, y = numbers(f"{where}.data", mark.get("data"), 2)
            points.append((x, y, label))
        elif mark.get("type") == "rectangle":
            x0, y0, x1, y1 = numbers(f"{where}.data", mark.get("data"), 4)
            if not label:
                raise invalid(f"{where}.label: expected 1, a rectangle to keep; got 0")
            boxes.append(ordered_box(x0, y0, x1, y1))
        else:
            raise invalid(
                f"{where}.type: expected point or rectangle, got {str(mark.get('type'))[:40]!r}"
            )
    return marked_objects("params.marks", points, boxes, most)


def _answer(masks: list[tuple[CroppedMask, float]], epsilon_factor: float) -> Response:
    shapes = [
        {
            "label": LABEL,
            "shape_type": "polygon",
            # Closed: its last point is its first.
            "points": np.concatenate([outline, outline[:1]]).tolist(),
            "score": score,
        }
        for mask, score in masks
        for outline in simplified_outlines(mask, epsilon_factor)
    ]
    return _success({"shapes": shapes, "description": "", "replace": False})


def _check_model(model: str) -> None:
    if model != MODEL:
        raise not_found(f"model: expected {MODEL}, got {quoted(model)}")


def _success(data: Any) -> Response:
    return json_answer({"success": True, "data": data})


def refused(refusal: Refusal) -> Response:
    """A request's own faults come with status 200; where the tool has to wait, or to ask, with another."""
    status = refusal.http_status
    code = _CODES.get(status, "INVALID_REQUEST" if status < 500 else "INFERENCE_ERROR")
    body = {"success": False, "error": {"code": code, "message": refusal.message}}
    return json_answer(body, status if status in (401, 429) or status >= 500 else 200)
