"""REST for people: `curl -F image=@photo.jpg -F point=512,512 …/v1/segment`."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from triton_sam2 import Segmentation, TritonSam2Error
from triton_sam2._results.masks import mask_to_polygons
from triton_sam2.cli._prompts import read_prompts

from front.callers import Caller
from front.forms import SentForm, read_form
from front.http_protocol import answered, unless_gone
from front.metrics import Outcome
from front.refusals import invalid, too_large
from front.rest_calls import client_for, refusal_of
from front.service import FrontService, Reservation
from front.settings import Limits

SEGMENT_FIELDS = frozenset({"image", "image_id", "point", "box", "multimask", "format"})
IMAGE_FIELDS = frozenset({"image", "image_id"})
# What is asked of the server for each format.
SERVER_FORMATS = {"rle": "rle", "png": "png", "polygons": "png", "overlay": "png"}
# An overlay is drawn here, in floating point: 12 bytes a pixel.
MAX_OVERLAY_PIXELS = 25_000_000
IMAGE_ID_HEADER = "X-Image-Id"


class Rest:
    """The handlers behind /v1."""

    def __init__(self, service: FrontService) -> None:
        self._service = service

    async def segment(self, request: Request) -> Response:
        """Masks for an image and prompts, or for an image's id and prompts."""

        async def answer(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
            form = await read_form(request, SEGMENT_FIELDS, self._service.limits, reservation)
            outcome.in_bytes = form.body_bytes
            wanted = form.one("format", "rle") or "rle"
            if wanted not in SERVER_FORMATS:
                raise invalid(
                    f"format: expected one of {', '.join(SERVER_FORMATS)}, got {wanted[:40]!r}"
                )
            if wanted == "overlay" and form.image is None:
                raise invalid(
                    "format: overlay needs the image itself; it is not kept, only its embeddings"
                )
            result = await unless_gone(request, self._predict(caller, form, SERVER_FORMATS[wanted]))
            _check_pixels(result, wanted, self._service.limits)
            async with self._service.rendering:
                response = await asyncio.to_thread(_rendered, result, wanted, form.image)
            outcome.out_bytes = len(response.body)
            response.headers[IMAGE_ID_HEADER] = _header_text(result.image_id)
            return response

        return await self._answered(request, "segment", answer)

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
            return _json({"image_id": handle.image_id, "width": width, "height": height})

        return await self._answered(request, "warm", answer)

    async def forget(self, request: Request) -> Response:
        """Drops an image and all of its names."""

        async def answer(caller: Caller, _reservation: Reservation, _outcome: Outcome) -> Response:
            await client_for(self._service, caller).forget(request.path_params["image_id"])
            return Response(status_code=204)

        return await self._answered(request, "forget", answer)

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
        image_id = form.one("image_id")
        if form.image is not None:
            return await client.segment(form.image, image_id=image_id, **arguments)
        if image_id is None:
            raise invalid(
                "expected image (curl: -F image=@photo.jpg), image_id or both, got neither"
            )
        await client.set_image(image_id=image_id)
        return await client.predict(**arguments)

    async def _answered(self, request: Request, call: str, answer: Any) -> Response:
        async def translated(
            caller: Caller, reservation: Reservation, outcome: Outcome
        ) -> Response:
            try:
                response: Response = await answer(caller, reservation, outcome)
            except TritonSam2Error as error:
                raise refusal_of(error) or invalid(str(error)) from error
            return response

        return await answered(self._service, request, call, translated, interface="rest")


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
    if wanted == "overlay" and height * width > MAX_OVERLAY_PIXELS:
        raise too_large(
            f"format: overlay is for images of at most {MAX_OVERLAY_PIXELS} pixels, got {width}x{height}"
        )


def _rendered(result: Segmentation, wanted: str, image: bytes | None) -> Response:
    if wanted == "overlay":
        assert image is not None  # noqa: S101 - checked before the work
        return _png(Image.fromarray(result.overlay(image)))
    if wanted == "png":
        return _png(_mask_picture(result))
    height, width = result.original_hw
    masks: list[Any] = _polygons(result) if wanted == "polygons" else result.rles
    objects = [
        {"masks": [{"iou": float(iou), wanted: mask} for mask, iou in zip(row, ious, strict=True)]}
        for row, ious in zip(masks, result.iou_predictions, strict=True)
    ]
    return _json(
        {"image_id": result.image_id, "width": width, "height": height, "objects": objects}
    )


def _polygons(result: Segmentation) -> list[list[list[list[list[float]]]]]:
    return [
        [[outline.tolist() for outline in mask_to_polygons(mask, 0.0)] for mask in row]
        for row in result.masks
    ]


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


def _png(picture: Image.Image) -> Response:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _header_text(image_id: str) -> str:
    """An id as a header can carry it: names may be any text."""
    if image_id.isascii() and image_id.isprintable():
        return image_id
    return "base64:" + base64.urlsafe_b64encode(image_id.encode()).decode()
