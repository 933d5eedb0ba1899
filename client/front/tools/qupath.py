"""QuPath's SAM extension: what its server, samapi, answers; GeoJSON in pixels of the region that was sent.

Source of the contract: samapi's main module and the tasks of qupath-extension-sam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from front.refusals import Refusal, invalid, not_found, quoted, too_large
from front.service import FrontService
from front.tools.answers import json_answer
from front.tools.desk import ImagePrompt, ToolCall, ToolDesk
from front.tools.encoded_images import decode_image
from front.tools.fields import a_flag, a_list, a_number, a_text, kind, numbers
from front.tools.image_fetching import ImageFetcher
from front.tools.masks import CroppedMask, generated_masks, segmented_masks
from front.tools.pixel_polygons import count_edges, pixel_polygons
from front.tools.prompts import ObjectPrompt, marked_objects, ordered_box
from front.tools.settings import ToolSettings

NAME = "qupath"
# Whichever of them is chosen, the server's own checkpoint answers.
MODEL_TYPES = ("sam2_l", "sam2_bp", "sam2_s", "sam2_t")
# The one entry of the dialog's list of weights; it comes back as checkpoint_url.
WEIGHTS_NAME, WEIGHTS_URL = "default", "triton-sam2:loaded"
# The generator's parameters that the extension sends, with samapi's defaults.
_WHOLE_NUMBERS = {
    "points_per_side": 32,
    "points_per_batch": 64,
    "crop_n_layers": 0,
    "crop_n_points_downscale_factor": 1,
    "min_mask_region_area": 0,
}
_FRACTIONS = {
    "pred_iou_thresh": 0.88,
    "stability_score_thresh": 0.95,
    "stability_score_offset": 1.0,
    "box_nms_thresh": 0.7,
    "crop_nms_thresh": 0.7,
    "crop_overlap_ratio": 512 / 1500,
}


class QuPath:
    """The routes of samapi that have to do with pictures."""

    def __init__(
        self, service: FrontService, settings: ToolSettings, _fetcher: ImageFetcher
    ) -> None:
        self._desk = ToolDesk(service, NAME, settings.limits, refused)

    def routes(self) -> list[Route]:
        """Under the tool's own path."""
        handler, path = self._desk.handler, f"/tools/{NAME}/sam"
        return [
            Route(f"{path}/", handler("predict", self._predict), methods=["POST"]),
            Route(f"{path}/automask/", handler("automask", self._automask), methods=["POST"]),
            Route(f"{path}/weights/", handler("weights", self._weights), methods=["GET"]),
            Route(f"{path}/version/", handler("version", self._version), methods=["GET"]),
        ]

    async def _version(self, _call: ToolCall) -> Response:
        return PlainTextResponse("triton-sam2")

    async def _weights(self, call: ToolCall) -> Response:
        asked = call.request.query_params.get("type")
        types = MODEL_TYPES if asked is None else [name for name in MODEL_TYPES if name == asked]
        return json_answer(
            [{"type": name, "name": WEIGHTS_NAME, "url": WEIGHTS_URL} for name in types]
        )

    async def _predict(self, call: ToolCall) -> Response:
        document = await self._desk.body(call)
        model = read_model(document)
        objects = read_prompt(document)
        is_multimask = a_flag("multimask_output", document.get("multimask_output", False))
        image = decode_image("b64img", document.get("b64img"))
        if document.get("b64mask") is not None:
            raise invalid("b64mask: expected none, an earlier mask is not served; got one")
        del document
        prompt = ImagePrompt(image, objects, multimask=is_multimask, is_best_alone=False)
        result = await self._desk.segment(call, prompt)
        most = self._desk.max_rendered_pixels
        return await self._drawn(lambda: iter(segmented_masks(result, most)), model)

    async def _automask(self, call: ToolCall) -> Response:
        document = await self._desk.body(call)
        model = read_model(document)
        parameters = read_generator(document)
        image = decode_image("b64img", document.get("b64img"))
        del document
        result = await self._desk.generate(call, image, parameters)
        most = self._desk.limits.max_generated_pixels
        return await self._drawn(lambda: generated_masks(result, most), model)

    async def _drawn(
        self, masks: Callable[[], Iterator[tuple[CroppedMask, float]]], model: str
    ) -> Response:
        most = self._desk.limits.max_outline_edges
        return await self._desk.drawn(lambda: json_answer(_features(masks(), model, most)))


def read_model(document: dict[str, Any]) -> str:
    """The model that was chosen in the dialog, one of this family."""
    model = a_text("type", document.get("type", "vit_h"))
    if model not in MODEL_TYPES:
        raise not_found(
            f"type: expected one of {', '.join(MODEL_TYPES)} (choose a SAM2 model), got {quoted(model)}"
        )
    weights = document.get("checkpoint_url")
    if weights not in (None, "", WEIGHTS_URL):
        raise not_found(
            f"checkpoint_url: expected {WEIGHTS_URL} (choose the weights {WEIGHTS_NAME!r}): other weights are"
            " not loaded here"
        )
    return model


def read_prompt(document: dict[str, Any]) -> list[ObjectPrompt]:
    """Points, a box or both, of one object."""
    coords = a_list("point_coords", document.get("point_coords") or [])
    labels = a_list("point_labels", document.get("point_labels") or [])
    if len(coords) != len(labels):
        raise invalid(
            f"point_labels: expected one for each of {len(coords)} point_coords, got {len(labels)}"
        )
    points = []
    for index, (point, label) in enumerate(zip(coords, labels, strict=True)):
        x, y = numbers(f"point_coords[{index}]", point, 2)
        points.append((x, y, int(a_flag(f"point_labels[{index}]", label))))
    boxes = []
    if document.get("bbox"):
        x0, y0, x1, y1 = numbers("bbox", document["bbox"], 4)
        boxes = [ordered_box(x0, y0, x1, y1)]
    return marked_objects("point_coords, bbox", points, boxes, 1)


def read_generator(document: dict[str, Any]) -> Mapping[str, Any]:
    """The mask generator's parameters, by the names that they have everywhere."""
    parameters: dict[str, Any] = {
        name: a_number(name, document.get(name, default)) for name, default in _FRACTIONS.items()
    }
    for name, default in _WHOLE_NUMBERS.items():
        value = document.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid(f"{name}: expected a whole number, got {kind(value)}")
        parameters[name] = value
    # "Single Mask", or one of several names of several masks.
    parameters["multimask_output"] = (
        "multi" in a_text("output_type", document.get("output_type", "Single Mask")).lower()
    )
    return parameters


def _features(
    masks: Iterator[tuple[CroppedMask, float]], model: str, most_edges: int
) -> list[dict[str, Any]]:
    """A feature for each mask; none for an empty one, which has no geometry."""
    features, edges = [], 0
    for index, (mask, quality) in enumerate(masks):
        edges += count_edges(mask)
        if edges > most_edges:
            raise too_large(
                f"expected outlines of at most {most_edges} edges of pixels (max_outline_edges), got more"
            )
        polygons = pixel_polygons(mask)
        if not polygons:
            continue
        geometry = (
            {"type": "Polygon", "coordinates": polygons[0]}
            if len(polygons) == 1
            else {"type": "MultiPolygon", "coordinates": polygons}
        )
        properties = {
            "object_idx": index,
            "label": "object",
            "quality": quality,
            "sam_model": model,
        }
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return features


def refused(refusal: Refusal) -> Response:
    """As FastAPI has it, with which its own server is made."""
    return json_answer({"detail": refusal.message}, refusal.http_status)
