"""Roboflow's inference server, as far as SAM 2 goes: boxes by their centre in, polygons, RLE or arrays out.

Source of the contract: roboflow/inference's requests and responses of SAM 2, and inference-sdk.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from starlette.responses import Response
from starlette.routing import Route
from triton_sam2 import Segmentation

from front.refusals import Refusal, invalid, quoted, too_large
from front.service import FrontService
from front.tools.answers import json_answer
from front.tools.desk import ImagePrompt, ToolCall, ToolDesk
from front.tools.encoded_images import decode_image
from front.tools.fields import a_text, an_object
from front.tools.image_fetching import ImageFetcher
from front.tools.keys import query_key
from front.tools.masks import segmented_masks
from front.tools.prompts import ObjectPrompt
from front.tools.roboflow_requests import (
    SERVER_FORMATS,
    Wanted,
    check_version,
    read_image_id,
    read_objects,
    read_wanted,
)
from front.tools.settings import ToolSettings
from front.tools.shapes import outer_outlines

NAME = "roboflow"


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
        check_version(document)
        image_id = read_image_id(document)
        image = await self._image(call, document)
        del document
        handle = await self._desk.warm(call, image, image_id)
        return json_answer({"image_id": handle.image_id, "time": time.perf_counter() - started})

    async def _segment(self, call: ToolCall) -> Response:
        started = time.perf_counter()
        document = await self._desk.body(call)
        check_version(document)
        wanted = read_wanted(document)
        objects = read_objects(document.get("prompts"), self._desk.limits.max_objects)
        image = await self._image(call, document)
        del document
        if wanted.format == "binary":
            # Asked before they are made: logits are the largest form of masks.
            handle = await self._desk.warm(call, image)
            _check_cells(len(objects), handle.original_hw, self._desk.limits.max_mask_cells)
        results = await self._results(call, image, objects, wanted)
        if wanted.format == "binary":
            return await self._desk.drawn(lambda: _arrays(results))
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
        self, call: ToolCall, image: bytes, objects: Sequence[ObjectPrompt], wanted: Wanted
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
                mask_format=SERVER_FORMATS[wanted.format],
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


def _check_cells(objects: int, original_hw: tuple[int, int], most_cells: int) -> None:
    cells = objects * original_hw[0] * original_hw[1]
    if cells > most_cells:
        raise too_large(
            f"format: binary is for at most {most_cells} pixels of masks (max_mask_cells), got {cells}; ask"
            " for rle"
        )


def _arrays(results: list[Segmentation]) -> Response:
    """An .npz file: `masks` [B, H, W], logits (a mask is where they exceed 0); `low_res_masks` [B, s, s]."""
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
