"""gRPC for asyncio, through Triton's own client."""

import asyncio
from typing import Any

import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from triton_sam2._credentials import Credentials
from triton_sam2._errors import TritonSam2Error
from triton_sam2._rpc import InferRequest, Tensors
from triton_sam2._transport_grpc import (
    channel_arguments,
    infer_arguments,
    read_answer,
    translate_error,
)
from triton_sam2._urls import Endpoint


class GrpcAioTransport:
    """A connection that any number of tasks of one event loop may share."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name; cancelling the task cancels the RPC."""
        arguments = infer_arguments(request, self._credentials)
        try:
            result = await self._connected().infer(**arguments)
        except InferenceServerException as error:
            raise translate_error(error, self._endpoint) from error
        return read_answer(result, request)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _connected(self) -> Any:
        """The client of the running loop: a channel belongs to the loop that it was made in."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise TritonSam2Error("this client is in use by another running event loop")
            arguments = channel_arguments(self._endpoint, self._credentials)
            self._client = triton.InferenceServerClient(**arguments)
            self._loop = loop
        return self._client
