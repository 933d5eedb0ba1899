"""CVAT's interactor: this front stands where CVAT expects a Nuclio dashboard with one function.

Points and boxes are pixels of the frame. Source of the contract: CVAT's lambda_manager.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from front.refusals import Refusal, invalid, not_found, quoted, too_large
from front.service import FrontService
from front.tools.answers import json_answer
from front.tools.desk import ImagePrompt, ToolCall, ToolDesk
from front.tools.encoded_images import decode_image
from front.tools.fields import a_list, numbers
from front.tools.image_fetching import ImageFetcher
from front.tools.keys import basic_key
from front.tools.masks import CroppedMask, segmented_masks
from front.tools.prompts import MAX_POINTS, ObjectPrompt, marked_objects, ordered_box
from front.tools.settings import ToolSettings

NAME = "cvat"
FUNCTION = "triton-sam2"
FUNCTION_HEADER = "x-nuclio-function-name"
# Flags in annotations count as true for any text, "false" as well: what is not so is left out.
DESCRIPTION: dict[str, Any] = {
    "metadata": {
        "name": FUNCTION,
        "namespace": "nuclio",
        "annotations": {
            "name": "Segment Anything 2.1",
            "version": "2",
            "type": "interactor",
            "spec": "",
            "min_pos_points": "1",
            "min_neg_points": "0",
            "startswith_box_optional": "true",
            "help_message": "Click on the object; with the right button on what does not belong to it. A box"
            " round it may come first.",
        },
    },
    "spec": {"description": "Interactive segmentation with Segment Anything 2.1"},
    "status": {"state": "ready"},
}


class Cvat:
    """The routes of the dashboard. CVAT knows it by host and port alone, so they lie at the root as well."""

    def __init__(
        self, service: FrontService, settings: ToolSettings, _fetcher: ImageFetcher
    ) -> None:
        self._desk = ToolDesk(service, NAME, settings.limits, refused, credentials=basic_key)

    def routes(self) -> list[Route]:
        """At the root, and under the tool's own path."""
        handler = self._desk.handler
        functions, function = (
            handler("functions", self._functions),
            handler("function", self._function),
        )
        invoke = handler("invoke", self._invoke)
        return [
            route
            for root in ("/api", f"/tools/{NAME}/api")
            for route in (
                Route(f"{root}/functions", functions, methods=["GET"]),
                Route(f"{root}/functions/{{name}}", function, methods=["GET"]),
                Route(f"{root}/function_invocations", invoke, methods=["POST"]),
            )
        ]

    async def _functions(self, _call: ToolCall) -> Response:
        return json_answer({FUNCTION: DESCRIPTION})

    async def _function(self, call: ToolCall) -> Response:
        _check_function(call.request.path_params["name"])
        return json_answer(DESCRIPTION)

    async def _invoke(self, call: ToolCall) -> Response:
        _check_function(call.request.headers.get(FUNCTION_HEADER, ""))
        document = await self._desk.body(call)
        image = decode_image("image", document.get("image"))
        prompt = ImagePrompt(image, read_prompt(document), multimask=True)
        del document, image
        result = await self._desk.segment(call, prompt)
        most_pixels, most_cells = self._desk.max_rendered_pixels, self._desk.limits.max_mask_cells
        return await self._desk.drawn(
            lambda: _answer(segmented_masks(result, most_pixels)[0][0], most_cells)
        )


def read_prompt(document: dict[str, Any]) -> list[ObjectPrompt]:
    """The points and the box of a call."""
    points = [
        (*_pair(f"{field}[{index}]", point), label)
        for field, label in (("pos_points", 1), ("neg_points", 0))
        for index, point in enumerate(a_list(field, document.get(field) or [], MAX_POINTS))
    ]
    boxes = []
    corners = a_list("obj_bbox", document.get("obj_bbox") or [])
    if corners:
        if len(corners) != 2:
            raise invalid(f"obj_bbox: expected 2 corners, got {len(corners)}")
        boxes = [ordered_box(*_pair("obj_bbox[0]", corners[0]), *_pair("obj_bbox[1]", corners[1]))]
    return marked_objects("pos_points, neg_points, obj_bbox", points, boxes, 1)


def _pair(where: str, value: Any) -> tuple[float, float]:
    x, y = numbers(where, value, 2)
    return x, y


def _answer(mask: CroppedMask, most_cells: int) -> Response:
    if mask.pixels.size > most_cells:
        raise too_large(
            f"expected a mask of at most {most_cells} pixels for JSON (max_mask_cells), got"
            f" {mask.pixels.size}"
        )
    answer: dict[str, Any] = {"mask": mask.pixels, "bounds": mask.bounds}
    if mask.is_empty:
        # CVAT would look for an outline, and there is none: so it is told.
        answer["points"] = []
    return json_answer(answer)


def _check_function(name: str) -> None:
    if name != FUNCTION:
        raise not_found(f"function: expected {FUNCTION}, got {quoted(name)}")


def refused(refusal: Refusal) -> Response:
    """As a function of Nuclio's fails: CVAT hands the status on, and to its page 401 means logged out."""
    return json_answer({"error": refusal.message}, 500)
