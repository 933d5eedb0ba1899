"""The project's own client over the front's own service: REST calls are checked and counted like others."""

from __future__ import annotations

from typing import Any

import tritonclient.grpc as triton
from triton_sam2 import AsyncSAM2TritonClient, RetryPolicy, TritonSam2Error
from triton_sam2._transports.credentials import Credentials
from triton_sam2._transports.grpc_blocking import infer_arguments, read_answer
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2._transports.statuses import error_from_status
from tritonclient.grpc import service_pb2

from front.callers import Caller
from front.refusals import Refusal
from front.service import FrontService


class ServiceTransport:
    """Carries the client's requests to the front's service, as one caller's."""

    def __init__(self, service: FrontService, caller: Caller) -> None:
        self._service = service
        self._caller = caller

    async def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name; raises the client's errors, each caused by a Refusal."""
        arguments = infer_arguments(request, Credentials())
        message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
        for tensor in arguments["inputs"]:
            message.inputs.append(tensor._get_tensor())
            message.raw_input_contents.append(tensor._get_content())
        for name in request.outputs:
            message.outputs.add(name=name)
        try:
            answer = await self._service.infer(self._caller, message, request.timeout_s)
        except Refusal as refusal:
            raise error_from_status(refusal.code.name, refusal.message) from refusal
        response = service_pb2.ModelInferResponse.FromString(answer)
        return read_answer(triton.InferResult(response), request)

    async def close(self) -> None:
        """There is no connection of its own."""


def client_for(service: FrontService, caller: Caller) -> AsyncSAM2TritonClient:
    """A client for one REST call. It does not try again: that is the caller's to decide."""
    return AsyncSAM2TritonClient(
        "grpc://front", retry=RetryPolicy(retries=0), _transport=ServiceTransport(service, caller)
    )


def refusal_of(error: TritonSam2Error) -> Refusal | None:
    """The refusal behind a client's error; None for what the client itself found wrong."""
    cause: Any = error.__cause__
    return cause if isinstance(cause, Refusal) else None
