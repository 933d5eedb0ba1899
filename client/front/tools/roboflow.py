"""Roboflow's inference server, as far as SAM 2 goes: boxes by their centre in, polygons, RLE or arrays out.

Source of the contract: roboflow/inference's requests and responses of SAM 2, and inference-sdk.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.responses import Response
from starlette.routing import Route
from triton_sam2 import Segmentation
from triton_sam2._results.segmentation import MaskFormat

from front.refusals import Refusal, invalid, not_found, quoted, too_large
from front.service import FrontService
from front.tools.answers import json_answer
from front.tools.desk import ImagePrompt, ToolCall, ToolDesk
from front.tools.encoded_images import decode_image
from front.tools.fields import a_flag, a_list, a_number, a_text, an_object, kind
from front.tools.image_fetching import ImageFetcher
from front.tools.keys import query_key
from front.tools.masks import segmented_masks
from front.tools.prompts import MAX_POINTS, ObjectPrompt
from front.tools.settings import ToolSettings
from front.tools.shapes import outer_outlines

NAME = "roboflow"
# Whichever of them is asked for, the server's own checkpoint answers.
VERSIONS = ("hiera_large", "hiera_b_plus", "hiera_small", "hiera_tiny")
# What is asked of the server for each format.
_SERVER_FORMATS: dict[str, MaskFormat] = {"json": "rle", "rle": "rle", "binary": "logits"}


@dataclass(frozen=True)
class _Wanted:
    """What of the masks is to come back."""

    format: str
    multimask: bool
    mask_input: npt.NDArray[np.float32] | None


class Roboflow:
    """The routes for SAM 2."""

    def __init__(
        self, service: FrontService, settings: ToolSettings, fetcher: ImageFetcher
    ) -> None:
        self._desk = ToolDesk(
            service,
            NAME,
            settings.limits,
            refused,
            credentials=partial(query_key, "api_key"),
            key_field="api_key",
        )
        self._fetcher = fetcher

    def routes(self) -> list[Route]:
        """Under the tool's own path."""
        handler, path = self._desk.handler, f"/tools/{NAME}/sam2"
        return [
            Route(f"{path}/embed_image", handler("embed_image", self._embed), methods=["POST"]),
            Route(
                f"{path}/segment_image", handler("segment_image", self._segment), methods=["POST"]
            ),
        ]

    async def _embed(self, call: ToolCall) -> Response:
        started = time.perf_counter()
        document = await self._desk.body(call)
        _check_version(document)
        image_id = _image_id(document)
        image = await self._image(call, document)
        del document
        handle = await self._desk.warm(call, image, image_id)
        return json_answer({"image_id": handle.image_id, "time": time.perf_counter() - started})

    async def _segment(self, call: ToolCall) -> Response:
        started = time.perf_counter()
        document = await self._desk.body(call)
        _check_version(document)
        wanted = read_wanted(document)
        objects = read_objects(document.get("prompts"), self._desk.limits.max_objects)
        image = await self._image(call, document)
        del document
        results = await self._results(call, image, objects, wanted)
        if wanted.format == "binary":
            most = self._desk.limits.max_mask_cells
            return await self._desk.drawn(lambda: _arrays(results, most))
        most = self._desk.max_rendered_pixels
        if wanted.format == "rle":
            shapes = [{"masks": result.rles[0][0], "format": "rle"} for result in results]
        else:
            shapes = await self._desk.drawn(lambda: _polygons(results, most))
        predictions = [
            {**shape, "confidence": float(result.iou_predictions[0, 0])}
            for shape, result in zip(shapes, results, strict=True)
        ]
        return json_answer({"predictions": predictions, "time": time.perf_counter() - started})

    async def _results(
        self, call: ToolCall, image: bytes, objects: Sequence[ObjectPrompt], wanted: _Wanted
    ) -> list[Segmentation]:
        """One result for each object, in their order; objects with a box and without are asked for apart."""
        results: dict[int, Segmentation] = {}
        for has_box in (True, False):
            indices = [
                i for i, each in enumerate(objects) if (each.box_xyxy is not None) is has_box
            ]
            if not indices:
                continue
            prompt = ImagePrompt(
                image,
                [objects[index] for index in indices],
                multimask=wanted.multimask,
                low_res_masks=wanted.format == "binary",
                mask_input=None if wanted.mask_input is None else wanted.mask_input[indices],
                mask_format=_SERVER_FORMATS[wanted.format],
            )
            result = await self._desk.segment(call, prompt)
            results |= {index: _one(result, row) for row, index in enumerate(indices)}
        return [results[index] for index in sorted(results)]

    async def _image(self, call: ToolCall, document: dict[str, Any]) -> bytes:
        image = an_object("image", document.get("image"))
        name = a_text("image.type", image.get("type"))
        if name == "base64":
            return decode_image("image.value", image.get("value"))
        if name == "url":
            url = a_text("image.value", image.get("value"), longest=4096)
            fetched = self._fetcher.fetch("image.value", url, call.reservation.hold)
            return await self._desk.unless_gone(call, fetched)
        # A pickle runs whatever its sender wrote.
        raise invalid(f"image.type: expected base64 or url, got {quoted(name)}")


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


def read_wanted(document: dict[str, Any]) -> _Wanted:
    """Format and kind of masks, and an earlier mask to refine."""
    name = a_text("format", document.get("format") or "json")
    if name not in _SERVER_FORMATS:
        raise invalid(f"format: expected one of {', '.join(_SERVER_FORMATS)}, got {quoted(name)}")
    multimask = a_flag("multimask_output", document.get("multimask_output", True))
    return _Wanted(name, multimask, _mask_input(document))


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


def _check_version(document: dict[str, Any]) -> None:
    version = document.get("sam2_version_id")
    if version is not None and version not in VERSIONS:
        raise not_found(
            f"sam2_version_id: expected one of {', '.join(VERSIONS)}, got {str(version)[:40]!r}"
        )


def _image_id(document: dict[str, Any]) -> str | None:
    value = document.get("image_id")
    return None if value is None else a_text("image_id", value)


def _one(result: Segmentation, row: int) -> Segmentation:
    """The result of one object among several."""
    per_object = ("masks_rle", "mask_logits", "iou_predictions", "low_res_masks")
    tensors = {
        name: tensor[row : row + 1] if name in per_object else tensor
        for name, tensor in result.tensors.items()
    }
    return Segmentation.from_tensors(tensors)


def _polygons(results: list[Segmentation], most_pixels: int) -> list[dict[str, Any]]:
    shapes = []
    for result in results:
        ((mask, _),) = segmented_masks(result, most_pixels)
        outlines = [outline.tolist() for outline in outer_outlines(mask, 0.0)]
        shapes.append({"masks": outlines, "format": "polygon"})
    return shapes


def _arrays(results: list[Segmentation], most_cells: int) -> Response:
    """An .npz file: `masks` [B, H, W], logits (a mask is where they exceed 0); `low_res_masks` [B, s, s]."""
    cells = sum(result.mask_logits.size for result in results)
    if cells > most_cells:
        raise too_large(
            f"format: binary is for at most {most_cells} pixels of masks (max_mask_cells), got {cells}; ask"
            " for rle"
        )
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        masks=np.concatenate([result.mask_logits[:, 0] for result in results]),
        low_res_masks=np.concatenate([result.low_res_masks[:, 0] for result in results]),
    )
    return Response(buffer.getvalue(), media_type="application/octet-stream")


def refused(refusal: Refusal) -> Response:
    """Its client shows the message."""
    return json_answer({"message": refusal.message}, refusal.http_status)
