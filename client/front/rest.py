"""REST for people: `curl -F image=@photo.jpg -F point=512,512 …/v1/segment`, and images by id."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from triton_sam2 import Segmentation
from triton_sam2.cli._prompts import read_prompts

from front.callers import Caller
from front.forms import SentForm, read_form
from front.http_protocol import unless_gone
from front.metrics import Outcome
from front.refusals import invalid, too_large
from front.rest_answers import (
    answered_in_words,
    check_overlay,
    json_answer,
    outlines,
    png_answer,
)
from front.rest_calls import client_for
from front.rest_masks import MaskCall, answer_masks, needed_image_id
from front.service import FrontService, Reservation
from front.settings import Limits

SEGMENT_FIELDS = frozenset({"image", "image_id", "point", "box", "multimask", "format"})
IMAGE_FIELDS = frozenset({"image", "image_id"})
# What is asked of the server for each format.
SERVER_FORMATS = {"rle": "rle", "png": "png", "polygons": "png", "overlay": "png"}


class Rest:
    """The handlers behind /v1/segment and /v1/images."""

    def __init__(self, service: FrontService) -> None:
        self._service = service

    async def segment(self, request: Request) -> Response:
        """Masks for an image and prompts, or for an image's id and prompts."""

        call = MaskCall(
            "segment", SEGMENT_FIELDS, SERVER_FORMATS, self._predict, _check_pixels, _rendered
        )
        return await answer_masks(self._service, request, call)

    async def warm(self, request: Request) -> Response:
        """Encodes an image ahead of its first click."""

        async def answer(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
            form = await read_form(request, IMAGE_FIELDS, self._service.limits, reservation)
            outcome.in_bytes = form.body_bytes
            if form.image is None:
                raise invalid("image: expected a file (curl: -F image=@photo.jpg)")
            client = client_for(self._service, caller)
            handle = await unless_gone(
                request, client.set_image(form.image, image_id=form.one("image_id"))
            )
            height, width = handle.original_hw
            return json_answer({"image_id": handle.image_id, "width": width, "height": height})

        return await answered_in_words(self._service, request, "warm", answer)

    async def forget(self, request: Request) -> Response:
        """Drops an image and all of its names."""

        async def answer(caller: Caller, _reservation: Reservation, _outcome: Outcome) -> Response:
            await client_for(self._service, caller).forget(request.path_params["image_id"])
            return Response(status_code=204)

        return await answered_in_words(self._service, request, "forget", answer)

    async def _predict(self, caller: Caller, form: SentForm, server_format: str) -> Segmentation:
        prompts = read_prompts(form.all("point"), form.all("box"), point="point", box="box")
        arguments: dict[str, Any] = {
            "point_coords": prompts.point_coords,
            "point_labels": prompts.point_labels,
            "box": prompts.box,
            "multimask_output": form.flag("multimask"),
            "formats": (server_format,),
        }
        client = client_for(self._service, caller)
        if form.image is not None:
            return await client.segment(form.image, image_id=form.one("image_id"), **arguments)
        await client.set_image(image_id=needed_image_id(form))
        return await client.predict(**arguments)


def _check_pixels(result: Segmentation, wanted: str, limits: Limits) -> None:
    """Raises a Refusal where unpacking the masks would take too much memory."""
    objects, candidates = result.iou_predictions.shape
    height, width = result.original_hw
    # A picture shows the best candidate alone.
    pixels = objects * (candidates if wanted == "polygons" else 1) * height * width
    if wanted != "rle" and pixels > limits.max_rendered_pixels:
        raise too_large(
            f"format: {wanted} is for at most {limits.max_rendered_pixels} pixels of masks"
            f" (max_rendered_pixels), got {pixels}; ask for rle"
        )
    check_overlay(wanted, result.original_hw)


def _rendered(result: Segmentation, wanted: str, image: bytes | None) -> Response:
    if wanted == "overlay":
        assert image is not None  # noqa: S101 - checked before the work
        return png_answer(Image.fromarray(result.overlay(image)))
    if wanted == "png":
        return png_answer(_mask_picture(result))
    height, width = result.original_hw
    masks: list[Any]
    if wanted == "polygons":
        masks = [[outlines(mask) for mask in row] for row in result.masks]
    else:
        masks = result.rles
    objects = [
        {"masks": [{"iou": float(iou), wanted: mask} for mask, iou in zip(row, ious, strict=True)]}
        for row, ious in zip(masks, result.iou_predictions, strict=True)
    ]
    return json_answer(
        {"image_id": result.image_id, "width": width, "height": height, "objects": objects}
    )


def _mask_picture(result: Segmentation) -> Image.Image:
    """The best mask in white on black; of several objects, each in the grey value of its number."""
    masks = result.best().masks[:, 0]
    if len(masks) == 1:
        return Image.fromarray(masks[0] * np.uint8(255))
    labels: npt.NDArray[Any] = np.zeros(
        masks.shape[1:], np.uint8 if len(masks) < 256 else np.uint16
    )
    for number, mask in enumerate(masks, 1):
        labels[mask > 0] = number
    return Image.fromarray(labels)
