"""What all tools share: who calls, how it is counted, inference by the content's id, errors in their form."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from starlette.requests import Request
from starlette.responses import Response
from triton_sam2 import (
    AsyncSAM2TritonClient,
    GeneratedMasks,
    ImageHandle,
    ImageNotFoundError,
    Segmentation,
    TritonSam2Error,
)

from front.callers import Caller
from front.http_bodies import read_body
from front.http_protocol import answered, unless_gone
from front.json_messages import parse_json
from front.metrics import Outcome
from front.refusals import Refusal, invalid, too_large
from front.rest_calls import client_for, refusal_of
from front.service import FrontService, Reservation
from front.tools.prompts import ObjectPrompt, prompt_arrays
from front.tools.settings import ToolLimits

T = TypeVar("T")
# How a tool says no; and where it puts a key, as the headers by which callers are recognised.
Refuse = Callable[[Refusal], Response]
Credentials = Callable[[Request], Mapping[str, str]]


@dataclass(frozen=True)
class ToolCall:
    """One request of a tool, while it is under way."""

    request: Request
    caller: Caller
    reservation: Reservation
    outcome: Outcome


@dataclass(frozen=True)
class ImagePrompt:
    """An image, and what is marked in it."""

    image: bytes
    objects: Sequence[ObjectPrompt]
    multimask: bool = False
    low_res_masks: bool = False
    # [1, s, s] of an earlier answer, for one object.
    mask_input: npt.NDArray[np.float32] | None = None


class ToolDesk:
    """One tool's way into the front."""

    def __init__(
        self,
        service: FrontService,
        tool: str,
        limits: ToolLimits,
        refuse: Refuse,
        credentials: Credentials = lambda request: request.headers,
    ) -> None:
        self._service = service
        self._tool = tool
        self.limits = limits
        self._refuse = refuse
        self._credentials = credentials

    def handler(
        self, call: str, answer: Callable[[ToolCall], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: `answer` within the front's limits, what it raises in the tool's form."""

        async def handle(request: Request) -> Response:
            async def inner(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
                try:
                    response = await answer(ToolCall(request, caller, reservation, outcome))
                except TritonSam2Error as error:
                    raise refusal_of(error) or invalid(str(error)) from error
                outcome.out_bytes = len(response.body)
                return response

            return await answered(
                self._service,
                request,
                call,
                inner,
                interface=self._tool,
                refuse=self._refuse,
                credentials=self._credentials(request),
            )

        return handle

    async def body(self, call: ToolCall) -> dict[str, Any]:
        """The JSON object of a request. Images in it take their bytes again as text, and again decoded."""
        limits = self._service.limits
        content = await read_body(call.request, limits, call.reservation)
        call.outcome.in_bytes = len(content)
        call.reservation.hold(2 * len(content))
        return parse_json(memoryview(content), limits)

    async def segment(self, call: ToolCall, prompt: ImagePrompt) -> Segmentation:
        """The best mask of each object, by the image's content: bytes travel only where it is not known."""
        arrays = prompt_arrays(prompt.objects)
        arguments: dict[str, Any] = {
            "point_coords": arrays.point_coords,
            "point_labels": arrays.point_labels,
            "box": arrays.box,
            "multimask_output": prompt.multimask,
            "low_res_masks": prompt.low_res_masks,
            "mask_input": prompt.mask_input,
            "formats": ("png",),
        }
        client = client_for(self._service, call.caller)

        async def work() -> Segmentation:
            handle = await self._known(client, prompt.image)
            if handle is None:
                return await client.segment(prompt.image, **arguments)
            return await client.predict(image=handle, **arguments)

        result = (await unless_gone(call.request, work())).best()
        self._check_pixels(len(result.iou_predictions), result.original_hw)
        return result

    async def warm(self, call: ToolCall, image: bytes) -> ImageHandle:
        """Has an image encoded, unless it is."""
        client = client_for(self._service, call.caller)

        async def work() -> ImageHandle:
            return await self._known(client, image) or await client.set_image(image)

        return await unless_gone(call.request, work())

    async def generate(
        self, call: ToolCall, image: bytes, parameters: Mapping[str, Any]
    ) -> GeneratedMasks:
        """Every mask of an image."""
        client = client_for(self._service, call.caller)

        async def work() -> GeneratedMasks:
            handle = await self._known(client, image)
            # Encoding runs its own clock in the server; the client's is as long as the front allows.
            allowed_s = self._service.limits.answer_timeout_s
            known: Any = image if handle is None else handle
            return await client.generate(known, formats=("rle",), timeout=allowed_s, **parameters)

        return await unless_gone(call.request, work())

    async def drawn(self, work: Callable[[], T]) -> T:
        """Work on masks' pixels: in a thread, and as few at once as pictures are drawn."""
        async with self._service.rendering:
            return await asyncio.to_thread(work)

    def tenant(self, call: ToolCall) -> str:
        """Whose images a caller's are."""
        return call.caller.tenant or ""

    async def _known(self, client: AsyncSAM2TritonClient, image: bytes) -> ImageHandle | None:
        content_id = f"sha256:{hashlib.sha256(image).hexdigest()}"
        try:
            handle = await client.set_image(image_id=content_id)
        except ImageNotFoundError:
            return None
        # Should it be dropped in between, its bytes go along after all.
        return replace(handle, image_bytes=image, is_named=False)

    def _check_pixels(self, objects: int, original_hw: tuple[int, int]) -> None:
        most = self._service.limits.max_rendered_pixels
        pixels = objects * original_hw[0] * original_hw[1]
        if pixels > most:
            raise too_large(
                f"expected at most {most} pixels of masks (max_rendered_pixels), got {pixels}: mark fewer"
                " objects at once"
            )


def json_answer(document: Any, status: int = 200) -> Response:
    """JSON, numpy's numbers included."""
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, media_type="application/json")


def basic_key(request: Request) -> Mapping[str, str]:
    """The key as the password of HTTP Basic, whatever the user's name; or as every other caller sends it."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return request.headers
    try:
        _, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return {}
    return {"x-api-key": password}
