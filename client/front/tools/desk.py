"""What all tools share: who calls, how it is counted, inference by the content's id, errors in their form."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from triton_sam2 import (
    AsyncSAM2TritonClient,
    GeneratedMasks,
    ImageHandle,
    ImageNotFoundError,
    Segmentation,
    TritonSam2Error,
)
from triton_sam2._results.segmentation import MaskFormat

from front.callers import Caller
from front.http_bodies import read_body
from front.http_protocol import CLIENT_LEFT, answered, unless_gone
from front.json_messages import parse_json
from front.metrics import Outcome
from front.refusals import Refusal, invalid, unavailable
from front.rest_calls import client_for, refusal_of
from front.service import FrontService, Reservation
from front.tools.prompts import ObjectPrompt, prompt_arrays
from front.tools.settings import ToolLimits

T = TypeVar("T")
# Of a body's bytes, at most at once: as they came, as text, and its image's own.
_COPIES = 3
# How a tool says no; and where it puts a key, as the headers by which callers are recognised.
Refuse = Callable[[Refusal], Response]
Credentials = Callable[[Request], Mapping[str, str]]


@dataclass(frozen=True)
class EarlyBody:
    """A JSON body that was read before its caller was known, and how many bytes it had."""

    document: dict[str, Any]
    size: int


@dataclass(frozen=True)
class ToolCall:
    """One request of a tool, while it is under way."""

    request: Request
    caller: Caller
    reservation: Reservation
    outcome: Outcome
    # What had to be read for the key in it.
    early: EarlyBody | None = None


@dataclass(frozen=True)
class ImagePrompt:
    """An image, and what is marked in it."""

    image: bytes
    objects: Sequence[ObjectPrompt]
    # Of the image, where `warm` gave one.
    handle: ImageHandle | None = None
    multimask: bool = False
    # Of the candidates with `multimask` only the one with the highest predicted IoU.
    is_best_alone: bool = True
    low_res_masks: bool = False
    # [B, 1, s, s] of an earlier answer.
    mask_input: npt.NDArray[np.float32] | None = None
    mask_format: MaskFormat = "rle"


class ToolDesk:
    """One tool's way into the front."""

    def __init__(
        self,
        service: FrontService,
        tool: str,
        limits: ToolLimits,
        refuse: Refuse,
        *,
        credentials: Credentials = lambda request: request.headers,
        key_field: str | None = None,
    ) -> None:
        self._service = service
        self._tool = tool
        self.limits = limits
        self._refuse = refuse
        self._credentials = credentials
        # A field of the JSON body that has the key, where nothing before the body has one.
        self._key_field = key_field
        # Whoever is not known until a body is read: all of them share one caller's rate.
        self._strangers = Caller("", "")

    def handler(
        self, call: str, answer: Callable[[ToolCall], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: `answer` within the front's limits, what it raises in the tool's form."""

        async def handle(request: Request) -> Response:
            credentials = self._credentials(request)
            early: EarlyBody | None = None
            if self._key_field is not None and not self._is_known(credentials):
                try:
                    early = await self._read_early(request)
                except Refusal as refusal:
                    return self._refuse(refusal)
                except ClientDisconnect:
                    return CLIENT_LEFT
                key = early.document.get(self._key_field)
                credentials = {"x-api-key": key if isinstance(key, str) else ""}

            async def inner(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
                call_of_tool = ToolCall(request, caller, reservation, outcome, early)
                try:
                    response = await answer(call_of_tool)
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
                credentials=credentials,
            )

        return handle

    async def check_ready(self) -> None:
        """Raises a Refusal unless the inference server is ready."""
        if not await self._service.triton.is_ready():
            raise unavailable("the inference server is not ready; try again in a moment")

    async def unless_gone(self, call: ToolCall, work: Awaitable[T]) -> T:
        """Work that ends with the client's connection."""
        return await unless_gone(call.request, work)

    async def body(self, call: ToolCall) -> dict[str, Any]:
        """The JSON object of a request. Images in it take their bytes again as text, and again decoded."""
        early = call.early or await self._read(call.request, call.reservation)
        call.outcome.in_bytes = early.size
        # All its bytes are held for the request, also what was read for the key and given back since.
        call.reservation.hold(max(0, _COPIES * early.size - call.reservation.held_bytes))
        return early.document

    def _is_known(self, credentials: Mapping[str, str]) -> bool:
        try:
            self._service.callers.recognise(credentials)
        except Refusal:
            return False
        return True

    async def _read_early(self, request: Request) -> EarlyBody:
        """A body of nobody known, under the limits of one caller for all strangers together."""
        with self._service.admitted(self._strangers) as reservation:
            return await self._read(request, reservation)

    async def _read(self, request: Request, reservation: Reservation) -> EarlyBody:
        limits = self._service.limits
        content = await read_body(request, limits, reservation)
        # Before they are made.
        reservation.hold((_COPIES - 1) * len(content))
        return EarlyBody(parse_json(memoryview(content), limits), len(content))

    async def segment(self, call: ToolCall, prompt: ImagePrompt) -> Segmentation:
        """Masks of each object, by the image's content: its bytes travel only where it is not known."""
        arrays = prompt_arrays(prompt.objects)
        arguments: dict[str, Any] = {
            "point_coords": arrays.point_coords,
            "point_labels": arrays.point_labels,
            "box": arrays.box,
            "multimask_output": prompt.multimask,
            "low_res_masks": prompt.low_res_masks,
            "mask_input": prompt.mask_input,
            "formats": (prompt.mask_format,),
        }
        client = client_for(self._service, call.caller)

        async def work() -> Segmentation:
            handle = prompt.handle or await self._known(client, prompt.image)
            if handle is None:
                return await client.segment(prompt.image, **arguments)
            return await client.predict(image=handle, **arguments)

        result = await unless_gone(call.request, work())
        return result.best() if prompt.is_best_alone else result

    async def warm(self, call: ToolCall, image: bytes, image_id: str | None = None) -> ImageHandle:
        """Has an image encoded, unless it is; under a name of the caller's, if it gives one."""
        client = client_for(self._service, call.caller)

        async def work() -> ImageHandle:
            if image_id is not None:
                return await client.set_image(image, image_id=image_id)
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

    @property
    def max_rendered_pixels(self) -> int:
        """How many pixels of masks may be unpacked for one answer."""
        return self._service.limits.max_rendered_pixels

    async def _known(self, client: AsyncSAM2TritonClient, image: bytes) -> ImageHandle | None:
        # Megabytes; in a thread, so that others are served meanwhile.
        digest = await asyncio.to_thread(hashlib.sha256, image)
        content_id = f"sha256:{digest.hexdigest()}"
        try:
            handle = await client.set_image(image_id=content_id)
        except ImageNotFoundError:
            return None
        # Should it be dropped in between, its bytes go along after all.
        return replace(handle, image_bytes=image, is_named=False)
