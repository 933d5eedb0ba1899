"""One inference from whichever protocol: who calls, what may be under way, what Triton is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from front.callers import Caller, Callers
from front.catalog import ModelFacts
from front.infer_messages import clean_request
from front.metrics import FrontMetrics
from front.refusals import Refusal, unavailable
from front.settings import Limits
from front.triton import Triton
from front.triton_request import Parcel, TritonRequest


class Reservation:
    """The bytes that one request holds, given back at its end."""

    def __init__(self, service: FrontService) -> None:
        self._service = service
        self.held_bytes = 0

    def hold(self, count: int) -> None:
        """Holds so many bytes more; a Refusal where all requests together would hold too many."""
        self._service.hold_bytes(count)
        self.held_bytes += count


class FrontService:
    """What the HTTP, gRPC and REST interfaces share. Belongs to one event loop."""

    def __init__(
        self, triton: Triton, callers: Callers, metrics: FrontMetrics, limits: Limits
    ) -> None:
        self.triton = triton
        self.callers = callers
        self.metrics = metrics
        self.limits = limits
        self.is_stopping = False
        # Pictures and outlines that are drawn at once, for whichever interface.
        self.rendering = asyncio.Semaphore(limits.renderings_at_once)
        self._requests_at_once = 0
        self._bytes_at_once = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def facts(self, model: str) -> ModelFacts:
        """The public tensors of a model; a Refusal where it is not for callers."""
        return await self.triton.facts(model)

    async def prepared(self, caller: Caller, request: TritonRequest) -> Parcel:
        """A request, checked and cleaned, as the bytes that Triton shall see; it is empty afterwards.

        Raises:
            Refusal: what is wrong with the request.
        """
        facts = await self.facts(request.message.model_name)
        clean_request(request, facts, self.limits, caller.tenant)
        return Parcel(request.take_bytes())

    async def infer(self, prepared: Parcel, timeout_s: float | None = None) -> bytes:
        """Triton's answer to a prepared request.

        Raises:
            Refusal: Triton's own status and message.
        """
        allowed_s = self.limits.answer_timeout_s
        if timeout_s is not None:
            allowed_s = min(allowed_s, timeout_s)
        return await self.triton.infer(prepared, allowed_s)

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[Reservation]:
        """Counts a request against the caller's and the front's own limits while it is under way."""
        if self.is_stopping:
            raise unavailable("the server is stopping; try again in a moment")
        if self._requests_at_once >= self.limits.max_requests_at_once:
            raise unavailable(
                f"{self._requests_at_once} requests are under way (max_requests_at_once); try again in a"
                " moment"
            )
        reservation = Reservation(self)
        with self.callers.admit(caller):
            self._requests_at_once += 1
            self._idle.clear()
            try:
                yield reservation
            finally:
                self._requests_at_once -= 1
                self._bytes_at_once -= reservation.held_bytes
                if not self._requests_at_once:
                    self._idle.set()

    def hold_bytes(self, count: int) -> None:
        """Takes so many bytes of what all bodies together may have; a Refusal where they are not left."""
        if self._bytes_at_once + count > self.limits.max_bytes_at_once:
            raise unavailable(
                f"requests of {self._bytes_at_once} bytes are under way (max_bytes_at_once"
                f" {self.limits.max_bytes_at_once}); try again in a moment"
            )
        self._bytes_at_once += count

    async def drain(self, grace_s: float) -> None:
        """Refuses new requests and waits for those under way, for so long."""
        self.is_stopping = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_s)
        except asyncio.TimeoutError:
            self.metrics.log("stop", requests_left=self._requests_at_once)


def as_refusal(error: BaseException) -> Refusal:
    """What a caller is told of an exception that is none of the foreseen ones: nothing of its inside."""
    if isinstance(error, Refusal):
        return error
    return Refusal(grpc.StatusCode.INTERNAL, "the front failed at this request; its log says how")
