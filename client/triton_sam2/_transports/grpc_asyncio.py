"""gRPC for asyncio, on Triton's blocking client.

gRPC's own asyncio client (1.85) loses the memory of an answer whose call is cancelled while it arrives,
which a moving mouse makes happen all the time; its blocking client does not. Here the end of an RPC is
handed to the event loop.
"""

import asyncio
import contextlib
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from triton_sam2._transports.credentials import Credentials
from triton_sam2._transports.grpc_blocking import (
    channel_arguments,
    closed_error,
    infer_arguments,
    read_answer,
    translate_error,
)
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2._transports.urls import Endpoint


class GrpcAioTransport:
    """A connection that any number of tasks, of any event loops, may share."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._client = triton.InferenceServerClient(**channel_arguments(endpoint, credentials))
        self._is_closed = False

    async def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name; cancelling the task cancels the RPC."""
        if self._is_closed:
            raise closed_error()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: InferenceServerException | None) -> None:
            if answer.done():  # cancelled in the meantime
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(translate_error(error, self._endpoint))

        def on_end(result: Any, error: InferenceServerException | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(settle, result, error)

        try:
            call = self._client.async_infer(
                callback=on_end, **infer_arguments(request, self._credentials)
            )
        except ValueError as error:  # gRPC's word for a channel that another thread has just closed
            if self._is_closed:
                raise closed_error() from error
            raise
        try:
            result = await answer
        except asyncio.CancelledError:
            call.cancel()
            raise
        return read_answer(result, request)

    async def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        self._client.close()
