"""The Open Inference Protocol over gRPC: unary calls and streams.

Messages are taken as bytes and parsed here, so that bytes that are no message are the caller's mistake
(INVALID_ARGUMENT) and not a failure of the server's (INTERNAL). Unary calls are taken as streams of one
message (the wire knows no difference): so the caller is recognised, and counted, before the message is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from front.callers import Caller
from front.catalog import PUBLIC_MODELS
from front.message_weight import not_a_message, read_id, read_model_name
from front.metrics import Outcome
from front.refusals import Refusal, invalid
from front.service import FrontService, Reservation, as_refusal
from front.triton_request import TritonRequest

SERVICE = "inference.GRPCInferenceService"
# Where one request depends on those before it: on a stream each of these waits for the answer to the last
# one, for calls that are under way at once reach Triton either way round.
ORDERED_MODELS = frozenset({"sam2_video"})


Requests: TypeAlias = AsyncIterator[bytes]


class GrpcProtocol(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods that clients need; all others are UNIMPLEMENTED."""

    def __init__(self, service: FrontService) -> None:
        self._service = service
        self._stream_window = service.limits.stream_window
        unary: dict[str, Callable[[Requests, Any], Awaitable[bytes]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        self._handlers: dict[str, Any] = {
            f"/{SERVICE}/{name}": grpc.stream_unary_rpc_method_handler(method)
            for name, method in unary.items()
        }
        self._handlers[f"/{SERVICE}/ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._model_stream_infer
        )

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, or None."""
        return self._handlers.get(handler_call_details.method)

    async def _server_live(self, _requests: Requests, _context: Any) -> bytes:
        is_live = await self._service.triton.is_live()
        return _bytes(service_pb2.ServerLiveResponse(live=is_live))

    async def _server_ready(self, _requests: Requests, _context: Any) -> bytes:
        is_ready = not self._service.is_stopping and await self._service.triton.is_ready()
        return _bytes(service_pb2.ServerReadyResponse(ready=is_ready))

    async def _server_metadata(self, _requests: Requests, context: Any) -> bytes:
        async def answer(_data: bytes) -> bytes:
            return _bytes(service_pb2.ServerMetadataResponse(name="triton-sam2", version="1"))

        return await self._answered(context, "server", answer)

    async def _model_ready(self, _requests: Requests, context: Any) -> bytes:
        async def answer(data: bytes) -> bytes:
            request = _parse(service_pb2.ModelReadyRequest, data)
            self._check_model(request.name)
            is_ready = await self._service.triton.is_model_ready(request.name)
            return _bytes(service_pb2.ModelReadyResponse(ready=is_ready))

        return await self._answered(context, "model_ready", answer)

    async def _model_metadata(self, _requests: Requests, context: Any) -> bytes:
        async def answer(data: bytes) -> bytes:
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

    async def _model_infer(self, _requests: Requests, context: Any) -> bytes:
        caller = await self._recognised(context)

        async def answer(reservation: Reservation, outcome: Outcome) -> bytes:
            received = [await self._one_message(context)]
            return await self._infer(
                caller, received, reservation, outcome, timeout_s=context.time_remaining()
            )

        return await _unless_refused(context, await self._observed(caller, "infer", answer))

    async def _model_stream_infer(self, requests: Requests, context: Any) -> AsyncIterator[bytes]:
        """Answers in the order of the requests; up to stream_window of them are computed at once, but those
        to ordered models one after another."""
        caller = await self._recognised(context)
        try:
            with self._service.callers.admit_stream(caller):
                async for answer in self._stream_answers(caller, requests):
                    yield answer
        except Refusal as refusal:
            await abort(context, refusal)

    async def _stream_answers(self, caller: Caller, requests: Requests) -> AsyncIterator[bytes]:
        # What finds no place is not read from the wire: the sender waits.
        places = asyncio.Semaphore(self._stream_window)
        tasks: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()

        async def read() -> None:
            ordered: asyncio.Task[bytes] | None = None
            try:
                await places.acquire()
                async for data in requests:
                    is_ordered = read_model_name(data) in ORDERED_MODELS
                    if is_ordered and ordered is not None:
                        await asyncio.wait([ordered])
                    task = asyncio.create_task(self._stream_answer(caller, data))
                    ordered = task if is_ordered else ordered
                    tasks.put_nowait(task)
                    del data, task
                    await places.acquire()
            finally:
                tasks.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await tasks.get()) is not None:
                yield await task
                places.release()
            await reader
        finally:
            reader.cancel()
            while not tasks.empty():
                if (left := tasks.get_nowait()) is not None:
                    left.cancel()

    async def _stream_answer(self, caller: Caller, data: bytes) -> bytes:
        response = service_pb2.ModelStreamInferResponse()
        # Whoever refuses the message, before it is parsed or after: the answer says whose it is.
        limits = self._service.limits
        response.infer_response.id = read_id(data, limits.max_request_id_bytes)

        received = [data]
        del data

        async def answer(reservation: Reservation, outcome: Outcome) -> bytes:
            return await self._infer(caller, received, reservation, outcome)

        answered = await self._observed(caller, "infer", answer)
        if isinstance(answered, Refusal):
            response.error_message = answered.message
        else:
            response.infer_response.MergeFromString(answered)
        return _bytes(response)

    async def _infer(
        self,
        caller: Caller,
        received: list[bytes],
        reservation: Reservation,
        outcome: Outcome,
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        # Out of the list: the caller's frames hold no copy of an image while it is under way.
        data = received.pop()
        reservation.hold(len(data))
        outcome.in_bytes = len(data)
        outcome.call = "infer unknown"
        request = TritonRequest.parse(data, self._service.limits)
        del data
        if request.message.model_name in PUBLIC_MODELS:
            outcome.call = f"infer {request.message.model_name}"
        self._check_model(request.message.model_name)
        prepared = await self._service.prepared(caller, request)
        answer = await self._service.infer(prepared, timeout_s)
        outcome.out_bytes = len(answer)
        return answer

    async def _answered(
        self,
        context: Any,
        call: str,
        answer: Callable[[bytes], Awaitable[bytes]],
    ) -> bytes:
        caller = await self._recognised(context)

        async def admitted(_reservation: Reservation, _outcome: Outcome) -> bytes:
            return await answer(await self._one_message(context))

        return await _unless_refused(context, await self._observed(caller, call, admitted))

    async def _observed(
        self,
        caller: Caller,
        call: str,
        answer: Callable[[Reservation, Outcome], Awaitable[bytes]],
    ) -> bytes | Refusal:
        """Counts and times a request, and turns whatever is raised into a Refusal."""
        service = self._service
        with service.metrics.observed("grpc", call, caller.tenant or "", caller.name) as outcome:
            try:
                with service.admitted(caller) as reservation:
                    return await answer(reservation, outcome)
            except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
                refusal = as_refusal(error)
                inside = refusal.inside or ("" if refusal is error else repr(error))
                if inside:
                    service.metrics.log("failure", call=outcome.call, error=inside[:500])
                outcome.status = refusal.code.name
                return refusal

    async def _one_message(self, context: Any) -> bytes:
        timeout_s = self._service.limits.answer_timeout_s
        try:
            # Not from the iterator, which holds on to what it gave last: an image, for the whole of the call.
            data = await asyncio.wait_for(context.read(), timeout_s)
        except asyncio.TimeoutError as error:
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the message did not arrive within {timeout_s:g} s (answer_timeout_s)",
            ) from error
        if data is grpc.aio.EOF:
            raise invalid("expected a message, got none")
        message: bytes = data
        return message

    def _check_model(self, name: str) -> None:
        """Nothing here: every public model is for whoever has a key."""

    async def _recognised(self, context: Any) -> Caller:
        headers = {
            name: value for name, value in context.invocation_metadata() if isinstance(value, str)
        }
        try:
            return self._service.callers.recognise(headers)
        except Refusal as refusal:
            await abort(context, refusal)
            raise


async def _unless_refused(context: Any, answer: bytes | Refusal) -> bytes:
    if isinstance(answer, Refusal):
        await abort(context, answer)
        raise answer
    return answer


async def abort(context: Any, refusal: Refusal) -> None:
    """Ends a call with a status; raises, as gRPC wants it."""
    # Longer details would not fit into a response's headers.
    await context.abort(refusal.code, refusal.message[:2000])


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise not_a_message(kind.DESCRIPTOR.name, len(data)) from error


def _bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
