"""Calls without their transport.

A *flow* is a generator that says what to do next (send this, wait so long) and is handed the answer. All
logic (what to send, when to retry, when to send an image again) is written once, as flows; the two functions
at the end run a flow over a blocking or an asyncio transport.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from triton_sam2._errors import CallTimeoutError, TritonSam2Error

T = TypeVar("T")
Tensors: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class InferRequest:
    """One inference: tensors by name, and the only outputs that shall come back."""

    model: str
    inputs: Tensors
    outputs: tuple[str, ...]
    request_id: str = ""
    timeout_s: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Beside the connection's own, for gateways that route by them."""


@dataclass(frozen=True)
class Pause:
    """Wait before the next step."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that takes its time, such as decoding a frame; an event loop does it on a thread."""

    run: Callable[[], object]


Step: TypeAlias = InferRequest | Pause | Work
Flow: TypeAlias = Generator[Step, Tensors, T]


@dataclass
class Deadline:
    """The moment by which a whole call, retries included, has to be over."""

    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = self.clock() + self.timeout_s

    def remaining_s(self) -> float:
        """Seconds left; raises CallTimeoutError when there are none."""
        remaining = self._end - self.clock()
        if remaining <= 0:
            raise CallTimeoutError(f"no answer within {self.timeout_s:g} s")
        return remaining


class Transport(Protocol):
    """Sends one request and blocks for its answer; raises only errors of this package's tree."""

    def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name."""

    def close(self) -> None:
        """Close the connections."""


class AsyncTransport(Protocol):
    """The same, awaited."""

    async def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name."""

    async def close(self) -> None:
        """Close the connections."""


def run_flow(flow: Flow[T], transport: Transport, sleep: Callable[[float], None] = time.sleep) -> T:
    """Run a flow to its end over a blocking transport."""
    try:
        step = next(flow)
        while True:
            try:
                answer = perform(step, transport, sleep)
            except TritonSam2Error as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()  # at an error that is not ours, or an interruption


async def run_flow_async(
    flow: Flow[T],
    transport: AsyncTransport,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Run a flow to its end over an asyncio transport; cancelling it cancels the call under way."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await perform_async(step, transport, sleep)
            except TritonSam2Error as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


def perform(step: Step, transport: Transport, sleep: Callable[[float], None]) -> Tensors:
    """One step of a flow, blocking."""
    if isinstance(step, Pause):
        sleep(step.seconds)
        return {}
    if isinstance(step, Work):
        step.run()
        return {}
    return transport.infer(step)


async def perform_async(
    step: Step, transport: AsyncTransport, sleep: Callable[[float], Awaitable[None]]
) -> Tensors:
    """One step of a flow, awaited."""
    if isinstance(step, Pause):
        await sleep(step.seconds)
        return {}
    if isinstance(step, Work):
        await asyncio.to_thread(step.run)
        return {}
    return await transport.infer(step)


def bytes_tensor(*values: str | bytes) -> NDArray[Any]:
    """A BYTES tensor of shape [K]."""
    tensor = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        tensor[index] = value.encode() if isinstance(value, str) else value
    return tensor
