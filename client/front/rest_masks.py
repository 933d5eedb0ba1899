"""What /v1/segment and /v1/everything do alike: an image by form, its masks, drawn as asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from front.callers import Caller
from front.forms import SentForm, read_form
from front.http_protocol import unless_gone
from front.metrics import Outcome
from front.refusals import invalid
from front.rest_answers import answered_in_words, check_format, with_image_id
from front.service import FrontService, Reservation
from front.settings import Limits


class OfAnImage(Protocol):
    """Masks of one image."""

    @property
    def image_id(self) -> str: ...


Result = TypeVar("Result", bound=OfAnImage)


@dataclass(frozen=True)
class MaskCall(Generic[Result]):
    """One such call.

    Attributes:
        name: in metrics and logs.
        fields: of its form.
        server_formats: what is asked of the server for each format.
        ask: caller, form and the server's format ► masks.
        check: raises a Refusal where drawing them would cost too much.
        draw: masks, format and image file ► the answer; on a thread.
    """

    name: str
    fields: frozenset[str]
    server_formats: Mapping[str, str]
    ask: Callable[[Caller, SentForm, str], Awaitable[Result]]
    check: Callable[[Result, str, Limits], None]
    draw: Callable[[Result, str, bytes | None], Response]


async def answer_masks(service: FrontService, request: Request, call: MaskCall[Result]) -> Response:
    """Reads the form, asks the server, draws."""

    async def answer(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
        form = await read_form(request, call.fields, service.limits, reservation)
        outcome.in_bytes = form.body_bytes
        wanted = form.one("format", "rle") or "rle"
        check_format(wanted, tuple(call.server_formats), has_image=form.image is not None)
        asking = call.ask(caller, form, call.server_formats[wanted])
        result = await unless_gone(request, asking)
        call.check(result, wanted, service.limits)
        async with service.rendering:
            response = await asyncio.to_thread(call.draw, result, wanted, form.image)
        return with_image_id(response, result.image_id)

    return await answered_in_words(service, request, call.name, answer)


def needed_image_id(form: SentForm) -> str:
    """The id of a form without an image; a Refusal where it has none either."""
    image_id = form.one("image_id")
    if image_id is None:
        raise invalid("expected image (curl: -F image=@photo.jpg), image_id or both, got neither")
    return image_id
