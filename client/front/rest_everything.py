"""REST for whole images without prompts: `curl -F image=@photo.jpg …/v1/everything`."""

from __future__ import annotations

from typing import Any

import orjson
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from triton_sam2 import GeneratedMasks, GeneratorParameters

from front.callers import Caller
from front.forms import SentForm
from front.refusals import invalid, too_large
from front.rest_answers import (
    check_overlay,
    json_answer,
    outlines,
    png_answer,
)
from front.rest_calls import client_for
from front.rest_masks import MaskCall, answer_masks, needed_image_id
from front.service import FrontService
from front.settings import Limits

# Each of the generator's parameters is a field of its own; its value is JSON.
PARAMETERS = tuple(GeneratorParameters.__annotations__)
FIELDS = frozenset({"image", "image_id", "format", *PARAMETERS})
# What is asked of the server for each format.
SERVER_FORMATS = {"rle": "rle", "polygons": "png", "labels": "png", "overlay": "png"}
RECORD_KEYS = ("area", "bbox", "predicted_iou", "stability_score", "point_coords", "crop_box")


class RestEverything:
    """The handler behind /v1/everything."""

    def __init__(self, service: FrontService) -> None:
        self._service = service

    async def everything(self, request: Request) -> Response:
        """Every mask of an image, or of an image's id."""

        call = MaskCall(
            "everything", FIELDS, SERVER_FORMATS, self._generate, _check_pixels, _rendered
        )
        return await answer_masks(self._service, request, call)

    async def _generate(self, caller: Caller, form: SentForm, server_format: str) -> GeneratedMasks:
        parameters: Any = read_parameters(form)
        client = client_for(self._service, caller)
        # The model ends itself before that (max_seconds).
        options: Any = {
            "formats": (server_format,),
            "timeout": self._service.limits.answer_timeout_s,
        }
        if form.image is not None:
            return await client.generate(
                form.image, image_id=form.one("image_id"), **options, **parameters
            )
        handle = await client.set_image(image_id=needed_image_id(form))
        return await client.generate(handle, **options, **parameters)


def read_parameters(form: SentForm) -> dict[str, Any]:
    """The generator's parameters by name; the server knows their ranges and defaults.

    Raises:
        Refusal: naming a field whose value is no JSON.
    """
    parameters: dict[str, Any] = {}
    for name in PARAMETERS:
        text = form.one(name)
        if text is None:
            continue
        try:
            parameters[name] = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise invalid(
                f"{name}: expected a number, true, false, null or lists of numbers, got {text[:40]!r}"
            ) from error
    return parameters


def _check_pixels(result: GeneratedMasks, wanted: str, limits: Limits) -> None:
    """Raises a Refusal where unpacking the masks, one at a time, would take too long."""
    height, width = result.original_hw
    pixels = len(result) * height * width
    if wanted != "rle" and pixels > limits.max_unpacked_pixels:
        raise too_large(
            f"format: {wanted} is for at most {limits.max_unpacked_pixels} pixels of masks"
            f" (max_unpacked_pixels), got {len(result)} masks of {width}x{height}; ask for rle, or set"
            " max_masks"
        )
    check_overlay(wanted, result.original_hw)


def _rendered(result: GeneratedMasks, wanted: str, image: bytes | None) -> Response:
    if wanted == "overlay":
        assert image is not None  # noqa: S101 - checked before the work
        return png_answer(Image.fromarray(result.overlay(image)))
    if wanted == "labels":
        return png_answer(Image.fromarray(result.label_image()))
    height, width = result.original_hw
    masks = [
        {
            **{key: record[key] for key in RECORD_KEYS},
            wanted: record.rle if wanted == "rle" else outlines(record.mask),
        }
        for record in result
    ]
    return json_answer(
        {"image_id": result.image_id, "width": width, "height": height, "masks": masks}
    )
