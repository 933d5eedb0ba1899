"""The connection to Triton: gRPC, with answers handed on as the bytes that came.

Calls are made on gRPC's blocking client and awaited, since gRPC's own asyncio client (1.85) loses the memory
of an answer whose call is cancelled while it arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from front.catalog import PUBLIC_MODELS, ModelFacts, read_metadata
from front.refusals import Refusal, not_found, quoted, unavailable
from front.triton_request import Parcel

_SERVICE = "/inference.GRPCInferenceService/"
_INT32_MAX = 2**31 - 1
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", _INT32_MAX),
    ("grpc.max_receive_message_length", _INT32_MAX),
    # A server that is back is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Triton is a neighbour: never by way of a proxy.
    ("grpc.enable_http_proxy", 0),
]
_INNER_FAILURES = (
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
)
# How long tensors' names and types are believed; a model that was exchanged may have others.
FACTS_SECONDS = 30.0
# Triton's own words, with various statuses, for a model that is loading or being unloaded.
NOT_READY_MESSAGES = ("is not ready", "unknown model", "has no available versions")


class Triton:
    """One Triton server. Its methods raise Refusal with Triton's status and message."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._infer = self._channel.unary_unary(_SERVICE + "ModelInfer")
        self._facts: dict[str, tuple[float, ModelFacts]] = {}

    async def infer(self, request: Parcel, timeout_s: float) -> bytes:
        """ModelInferRequest ► ModelInferResponse, both as bytes; cancelling the task cancels the call."""
        answer: bytes = await self._ended(self._infer.future(request.take(), timeout=timeout_s))
        return answer

    async def facts(self, model: str, timeout_s: float = 5.0) -> ModelFacts:
        """The tensors of a public model.

        Raises:
            Refusal: NOT_FOUND for a model that is not for callers; UNAVAILABLE while it is not loaded.
        """
        public = PUBLIC_MODELS.get(model)
        if public is None:
            raise unknown_model(model)
        known = self._facts.get(model)
        if known is not None and time.monotonic() - known[0] < FACTS_SECONDS:
            return known[1]
        try:
            metadata = await self.metadata(model, timeout_s)
        except Refusal as refusal:
            if not public.only_with:
                raise
            raise Refusal(refusal.code, f"{refusal.message} ({public.only_with})") from refusal
        facts = read_metadata(metadata, public)
        self._facts[model] = (time.monotonic(), facts)
        return facts

    async def metadata(self, model: str, timeout_s: float = 5.0) -> Any:
        """Triton's ModelMetadataResponse."""
        request = service_pb2.ModelMetadataRequest(name=model)
        return await self._simple(
            "ModelMetadata", request, service_pb2.ModelMetadataResponse, timeout_s
        )

    async def is_live(self) -> bool:
        """Whether Triton says that it lives."""
        return await self._asked("ServerLive", service_pb2.ServerLiveRequest(), "live")

    async def is_ready(self) -> bool:
        """Whether Triton says that it is ready."""
        return await self._asked("ServerReady", service_pb2.ServerReadyRequest(), "ready")

    async def is_model_ready(self, model: str) -> bool:
        """Whether Triton says that a public model is ready; a Refusal where it is not for callers."""
        if model not in PUBLIC_MODELS:
            raise unknown_model(model)
        return await self._asked("ModelReady", service_pb2.ModelReadyRequest(name=model), "ready")

    def close(self) -> None:
        """Closes the connection; calls under way end."""
        self._channel.close()

    async def _asked(self, method: str, request: Any, answer: str) -> bool:
        kind = getattr(service_pb2, f"{method}Response")
        try:
            return bool(getattr(await self._simple(method, request, kind, 5.0), answer))
        except Refusal:
            return False

    async def _simple(self, method: str, request: Any, kind: Any, timeout_s: float) -> Any:
        call = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        return await self._ended(call.future(request, timeout=timeout_s))

    async def _ended(self, call: Any) -> Any:
        """The result of a call that is under way."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not ended.done():
                ended.set_result(None)

        def on_end(_call: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(settle)

        call.add_done_callback(on_end)
        try:
            await ended
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.code() is not grpc.StatusCode.OK:
            raise _refusal(call.code(), call.details() or "")
        return call.result()


def unknown_model(model: str) -> Refusal:
    """What is answered to whoever asks for a model that is not for callers."""
    return not_found(f"unknown model {quoted(model)}: expected one of {', '.join(PUBLIC_MODELS)}")


def _refusal(code: grpc.StatusCode, details: str) -> Refusal:
    if any(words in details for words in NOT_READY_MESSAGES):
        return unavailable(f"{details}; try again in a moment")
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details:
        # The address is ours to know.
        return unavailable("the inference server does not answer; try again in a moment")
    if code in _INNER_FAILURES:
        # Paths, names of memory, another model's words: for the log.
        message = "the inference server failed at this request; try again, or tell its operator"
        return Refusal(code, message, inside=details)
    return Refusal(code, details)
