"""Flows that hand over one result after another, with several requests under way.

Beside the steps of rpc.py such a flow has these: requests on a stream, which keeps their order, and results.
A flow that is given up (its iterator closed, its task cancelled) leaves its stream cancelled.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from triton_sam2._errors import TritonSam2Error
from triton_sam2._transports.rpc import (
    AsyncTransport,
    InferRequest,
    Step,
    Tensors,
    Transport,
    perform,
    perform_async,
)

T = TypeVar("T")


@dataclass(frozen=True)
class StreamSend:
    """Send a request on the flow's stream, which begins with the first one."""

    request: InferRequest


@dataclass(frozen=True)
class StreamReceive:
    """Wait for the answer to the oldest request on the stream."""

    request: InferRequest


@dataclass(frozen=True)
class StreamEnd:
    """Cancel what is under way on the stream."""


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hand over a result."""

    value: T


SeriesFlow: TypeAlias = Generator[
    Step | StreamSend | StreamReceive | StreamEnd | Emit[T], Tensors, None
]


class Stream(Protocol):
    """Requests in order, and their answers."""

    def send(self, request: InferRequest) -> None:
        """Send a request behind those before it."""

    def receive(self, request: InferRequest) -> Tensors:
        """The answer to the oldest request that has none yet."""

    def close(self) -> None:
        """Cancel what is under way."""


class AsyncStream(Protocol):
    """The same, awaited."""

    def send(self, request: InferRequest) -> None:
        """Send a request behind those before it."""

    async def receive(self, request: InferRequest) -> Tensors:
        """The answer to the oldest request that has none yet."""

    def close(self) -> None:
        """Cancel what is under way."""


@runtime_checkable
class Streaming(Protocol):
    """A transport that has streams; HTTP has none."""

    def open_stream(self, headers: Mapping[str, str]) -> Stream:
        """A stream of its own."""


@runtime_checkable
class AsyncStreaming(Protocol):
    """A transport that has streams, awaited."""

    def open_stream(self, headers: Mapping[str, str]) -> AsyncStream:
        """A stream of its own."""


def iterate_flow(
    flow: SeriesFlow[T], transport: Transport, sleep: Callable[[float], None] = time.sleep
) -> Generator[T, None, None]:
    """A flow's results over a blocking transport, as they come."""
    stream: Stream | None = None
    try:
        step = next(flow)
        while True:
            answer: Tensors = {}
            try:
                match step:
                    case Emit():
                        yield step.value
                    case StreamSend():
                        assert isinstance(transport, Streaming)  # noqa: S101 - the flow was told
                        stream = stream or transport.open_stream(step.request.headers)
                        stream.send(step.request)
                    case StreamReceive():
                        assert stream is not None  # noqa: S101
                        answer = stream.receive(step.request)
                    case StreamEnd():
                        _close(stream)
                        stream = None
                    case _:
                        answer = perform(step, transport, sleep)
            except TritonSam2Error as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration:
        return
    finally:
        _close(stream)
        flow.close()


async def iterate_flow_async(
    flow: SeriesFlow[T],
    transport: AsyncTransport,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[T, None]:
    """A flow's results over an asyncio transport, as they come."""
    stream: AsyncStream | None = None
    try:
        step = next(flow)
        while True:
            answer: Tensors = {}
            try:
                match step:
                    case Emit():
                        yield step.value
                    case StreamSend():
                        assert isinstance(transport, AsyncStreaming)  # noqa: S101 - the flow was told
                        stream = stream or transport.open_stream(step.request.headers)
                        stream.send(step.request)
                    case StreamReceive():
                        assert stream is not None  # noqa: S101
                        answer = await stream.receive(step.request)
                    case StreamEnd():
                        _close(stream)
                        stream = None
                    case _:
                        answer = await perform_async(step, transport, sleep)
            except TritonSam2Error as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration:
        return
    finally:
        _close(stream)
        flow.close()


def _close(stream: Stream | AsyncStream | None) -> None:
    if stream is not None:
        stream.close()
