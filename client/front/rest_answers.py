"""What the handlers behind /v1 have in common: who is answered how, pictures, JSON, ids in headers."""

from __future__ import annotations

import base64
import io
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from triton_sam2 import TritonSam2Error
from triton_sam2._results.masks import mask_to_polygons

from front.callers import Caller
from front.http_protocol import answered
from front.metrics import Outcome
from front.refusals import invalid, too_large
from front.rest_calls import refusal_of
from front.service import FrontService, Reservation

# An overlay is drawn here, in floating point: 12 bytes a pixel.
MAX_OVERLAY_PIXELS = 25_000_000
IMAGE_ID_HEADER = "X-Image-Id"
Answer: TypeAlias = Callable[[Caller, Reservation, Outcome], Awaitable[Response]]


async def answered_in_words(
    service: FrontService, request: Request, call: str, answer: Answer
) -> Response:
    """Counts and answers a request; what the client library finds wrong is the caller's mistake."""

    async def translated(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
        try:
            response = await answer(caller, reservation, outcome)
        except TritonSam2Error as error:
            raise refusal_of(error) or invalid(str(error)) from error
        outcome.out_bytes = len(response.body)
        return response

    return await answered(service, request, call, translated, interface="rest")


def check_format(wanted: str, known: tuple[str, ...], *, has_image: bool) -> None:
    """Raises a Refusal for a format that is none, and for an overlay on an image that is not here."""
    if wanted not in known:
        raise invalid(f"format: expected one of {', '.join(known)}, got {wanted[:40]!r}")
    if wanted == "overlay" and not has_image:
        raise invalid("format: overlay needs the image itself; it is not kept, only its embeddings")


def check_overlay(wanted: str, original_hw: tuple[int, int]) -> None:
    """Raises a Refusal where the picture would take too much memory."""
    height, width = original_hw
    if wanted == "overlay" and height * width > MAX_OVERLAY_PIXELS:
        raise too_large(
            f"format: overlay is for images of at most {MAX_OVERLAY_PIXELS} pixels, got {width}x{height}"
        )


def outlines(mask: npt.NDArray[np.uint8]) -> list[list[list[float]]]:
    """A mask's outer outlines, x and y in pixels."""
    return [outline.tolist() for outline in mask_to_polygons(mask, 0.0)]


def png_answer(picture: Image.Image) -> Response:
    """A picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")


def json_answer(document: Any) -> Response:
    """JSON, numpy's numbers included."""
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


def with_image_id(response: Response, image_id: str) -> Response:
    """The answer with the image's id in a header; names may be any text, and headers may not."""
    is_plain = image_id.isascii() and image_id.isprintable()
    response.headers[IMAGE_ID_HEADER] = (
        image_id
        if is_plain
        else "base64:" + base64.urlsafe_b64encode(image_id.encode()).decode("ascii")
    )
    return response
