"""The Open Inference Protocol over gRPC: unary calls and streams.

Messages are taken as bytes and parsed here, so that bytes that are no message are the caller's mistake
(INVALID_ARGUMENT) and not a failure of the server's (INTERNAL).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from front.callers import Caller
from front.catalog import PUBLIC_MODELS
from front.infer_messages import parse_request
from front.refusals import Refusal, invalid, not_found
from front.service import FrontService, as_refusal

SERVICE = "inference.GRPCInferenceService"


class GrpcProtocol(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods that clients need; all others are UNIMPLEMENTED."""

    def __init__(self, service: FrontService) -> None:
        self._service = service
        unary: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        self._handlers: dict[str, Any] = {
            f"/{SERVICE}/{name}": grpc.unary_unary_rpc_method_handler(method)
            for name, method in unary.items()
        }
        self._handlers[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._model_stream_infer
        )

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, or None."""
        return self._handlers.get(handler_call_details.method)

    async def _server_live(self, _data: bytes, _context: Any) -> bytes:
        is_live = await self._service.triton.is_live()
        return _bytes(service_pb2.ServerLiveResponse(live=is_live))

    async def _server_ready(self, _data: bytes, _context: Any) -> bytes:
        is_ready = not self._service.is_stopping and await self._service.triton.is_ready()
        return _bytes(service_pb2.ServerReadyResponse(ready=is_ready))

    async def _server_metadata(self, _data: bytes, context: Any) -> bytes:
        async def answer(_caller: Caller) -> bytes:
            return _bytes(service_pb2.ServerMetadataResponse(name="triton-sam2", version="1"))

        return await self._answered(context, "server", answer)

    async def _model_ready(self, data: bytes, context: Any) -> bytes:
        async def answer(_caller: Caller) -> bytes:
            request = _parse(service_pb2.ModelReadyRequest, data)
            if request.name not in PUBLIC_MODELS:
                raise _unknown_model(request.name)
            is_ready = await self._service.triton.is_model_ready(request.name)
            return _bytes(service_pb2.ModelReadyResponse(ready=is_ready))

        return await self._answered(context, "model_ready", answer)

    async def _model_metadata(self, data: bytes, context: Any) -> bytes:
        async def answer(_caller: Caller) -> bytes:
            request = _parse(service_pb2.ModelMetadataRequest, data)
            facts = await self._service.facts(request.name)
            response = service_pb2.ModelMetadataResponse(
                name=facts.name, versions=["1"], platform="ensemble"
            )
            for tensors, described in (
                (response.inputs, facts.inputs),
                (response.outputs, facts.outputs),
            ):
                for name, tensor in described.items():
                    tensors.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
            return _bytes(response)

        return await self._answered(context, "model", answer)

    async def _model_infer(self, data: bytes, context: Any) -> bytes:
        caller = await self._recognised(context)
        try:
            message = parse_request(data)
        except Refusal as refusal:
            await _abort(context, refusal)
            raise
        answer, refusal_ = await self._infer(caller, message, len(data), context.time_remaining())
        if refusal_ is not None:
            await _abort(context, refusal_)
        return answer

    async def _model_stream_infer(
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        """Answers in the order of the requests; up to stream_window of them are computed at once."""
        caller = await self._recognised(context)
        window: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(
            self._service.limits.stream_window - 1
        )

        async def read() -> None:
            async for data in requests:
                # The queue's bound is the back-pressure: what does not fit is not read from the wire.
                await window.put(asyncio.create_task(self._stream_answer(caller, data)))
            await window.put(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await window.get()) is not None:
                yield await task
        finally:
            reader.cancel()
            while not window.empty():
                if (left := window.get_nowait()) is not None:
                    left.cancel()

    async def _stream_answer(self, caller: Caller, data: bytes) -> bytes:
        response = service_pb2.ModelStreamInferResponse()
        try:
            message = parse_request(data)
        except Refusal as refusal:
            response.error_message = refusal.message
            return _bytes(response)
        # Read first: cleaning may refuse the message, and the answer has to say whose it is.
        response.infer_response.id = message.id
        answer, refused = await self._infer(caller, message, len(data), None)
        if refused is None:
            response.infer_response.MergeFromString(answer)
        else:
            response.error_message = refused.message
        return _bytes(response)

    async def _infer(
        self, caller: Caller, message: Any, in_bytes: int, timeout_s: float | None
    ) -> tuple[bytes, Refusal | None]:
        service = self._service
        model = message.model_name if message.model_name in PUBLIC_MODELS else "unknown"
        with service.metrics.observed(
            "grpc", f"infer {model}", caller.tenant or "", caller.name
        ) as outcome:
            outcome.in_bytes = in_bytes
            try:
                with service.admitted(caller) as reservation:
                    reservation.hold(in_bytes)
                    answer = await service.infer(caller, message, timeout_s)
            except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
                if not isinstance(error, Refusal):
                    service.metrics.log("failure", call=f"infer {model}", error=repr(error)[:500])
                refusal = as_refusal(error)
                outcome.status = refusal.code.name
                return b"", refusal
            outcome.out_bytes = len(answer)
            return answer, None

    async def _answered(
        self, context: Any, call: str, answer: Callable[[Caller], Awaitable[bytes]]
    ) -> bytes:
        caller = await self._recognised(context)
        with self._service.metrics.observed(
            "grpc", call, caller.tenant or "", caller.name
        ) as outcome:
            try:
                with self._service.admitted(caller):
                    return await answer(caller)
            except Refusal as refusal:
                outcome.status = refusal.code.name
                await _abort(context, refusal)
                raise

    async def _recognised(self, context: Any) -> Caller:
        headers = {
            name: value for name, value in context.invocation_metadata() if isinstance(value, str)
        }
        try:
            return self._service.callers.recognise(headers)
        except Refusal as refusal:
            await _abort(context, refusal)
            raise


async def _abort(context: Any, refusal: Refusal) -> None:
    """Ends a call with a status; raises, as gRPC wants it."""
    # Longer details would not fit into a response's headers.
    await context.abort(refusal.code, refusal.message[:2000])


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise invalid(
            f"expected a {kind.DESCRIPTOR.name}, got {len(data)} bytes that are none"
        ) from error


def _unknown_model(name: str) -> Refusal:
    return not_found(f"model: expected one of {', '.join(PUBLIC_MODELS)}, got {name!r:.60}")


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
