"""Requests that have an order: one gRPC stream, on which Triton takes and answers them one after another.

Single calls have none: two that are under way at once may reach the server either way round.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from triton_sam2._errors import CallTimeoutError, ServerError, TritonSam2Error
from triton_sam2._transports.credentials import Credentials
from triton_sam2._transports.grpc_asyncio import GrpcAioTransport
from triton_sam2._transports.grpc_blocking import GrpcTransport, channel_options, read_answer
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2._transports.statuses import error_from_status
from triton_sam2._transports.urls import Endpoint

_Answer = Any  # triton.InferResult
_OnAnswer = Callable[["_Answer | TritonSam2Error"], None]


class _Stream:
    """One stream; a thread reads its answers and hands each to `on_answer`.

    Triton's own client leaves a thread behind with every stream that is cancelled.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        headers: Mapping[str, str],
        on_answer: _OnAnswer,
    ) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._channel = open_channel(endpoint, credentials)
        self._on_answer = on_answer
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        metadata = tuple({**credentials.headers, **headers}.items())
        self._call = stub.ModelStreamInfer(iter(self._requests.get, None), metadata=metadata)
        threading.Thread(target=self._read, name="sam2-stream", daemon=True).start()

    def send(self, request: InferRequest) -> None:
        """Send a request behind those before it."""
        self._requests.put(to_message(request))

    def close(self) -> None:
        """Cancel what is under way."""
        self._call.cancel()
        self._requests.put(None)
        self._channel.close()

    def _read(self) -> None:
        try:
            for response in self._call:
                if response.error_message:  # without a status: who wants to know sends it as a call
                    self._on_answer(ServerError(response.error_message))
                else:
                    self._on_answer(triton.InferResult(response.infer_response))
            self._on_answer(error_from_status("UNAVAILABLE", "the server ended the stream"))
        except grpc.RpcError as error:
            status = error.code().name
            self._on_answer(error_from_status(status, error.details() or status))


class GrpcStream:
    """A stream whose answers are waited for."""

    def __init__(
        self, endpoint: Endpoint, credentials: Credentials, headers: Mapping[str, str]
    ) -> None:
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stream = _Stream(endpoint, credentials, headers, self._answers.put)

    def send(self, request: InferRequest) -> None:
        """Send a request behind those before it."""
        self._stream.send(request)

    def receive(self, request: InferRequest) -> Tensors:
        """The answer to the oldest request that has none yet."""
        try:
            answer = self._answers.get(timeout=request.timeout_s)
        except queue.Empty:
            raise _late(request) from None
        return _outcome(answer, request)

    def close(self) -> None:
        """Cancel what is under way."""
        self._stream.close()


class GrpcAioStream:
    """A stream whose answers are awaited, on the loop that made it."""

    def __init__(
        self, endpoint: Endpoint, credentials: Credentials, headers: Mapping[str, str]
    ) -> None:
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def hand_over(answer: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(self._answers.put_nowait, answer)

        self._stream = _Stream(endpoint, credentials, headers, hand_over)

    def send(self, request: InferRequest) -> None:
        """Send a request behind those before it."""
        self._stream.send(request)

    async def receive(self, request: InferRequest) -> Tensors:
        """The answer to the oldest request that has none yet."""
        try:
            answer = await asyncio.wait_for(self._answers.get(), request.timeout_s)
        except asyncio.TimeoutError:
            raise _late(request) from None
        return _outcome(answer, request)

    def close(self) -> None:
        """Cancel what is under way."""
        self._stream.close()


class StreamingGrpcTransport(GrpcTransport):
    """A gRPC connection that also has streams."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        super().__init__(endpoint, credentials)
        self.open_stream = partial(GrpcStream, endpoint, credentials)


class StreamingGrpcAioTransport(GrpcAioTransport):
    """The same for asyncio."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        super().__init__(endpoint, credentials)
        self.open_stream = partial(GrpcAioStream, endpoint, credentials)


def open_channel(endpoint: Endpoint, credentials: Credentials) -> Any:
    """A gRPC channel to an endpoint."""
    options = channel_options(endpoint)
    if not endpoint.has_tls:
        return grpc.insecure_channel(endpoint.address, options=options)
    keys = grpc.ssl_channel_credentials(
        root_certificates=_content(credentials.ca_file),
        private_key=_content(credentials.key_file),
        certificate_chain=_content(credentials.cert_file),
    )
    return grpc.secure_channel(endpoint.address, keys, options=options)


def to_message(request: InferRequest) -> Any:
    """A request as the protocol's message."""
    message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
    for name, array in request.inputs.items():
        message.inputs.add(
            name=name, datatype=np_to_triton_dtype(array.dtype), shape=list(array.shape)
        )
        if array.dtype == object:
            raw = serialize_byte_tensor(array).item() if array.size else b""
        else:
            raw = array.tobytes()
        message.raw_input_contents.append(raw)
    for name in request.outputs:
        message.outputs.add(name=name)
    return message


def _outcome(answer: Any, request: InferRequest) -> Tensors:
    if isinstance(answer, TritonSam2Error):
        raise answer
    return read_answer(answer, request)


def _late(request: InferRequest) -> CallTimeoutError:
    return CallTimeoutError(f"no answer within {request.timeout_s:g} s")


def _content(file: Path | None) -> bytes | None:
    return None if file is None else file.read_bytes()
