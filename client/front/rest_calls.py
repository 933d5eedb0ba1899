"""The project's own client over the front's own service: REST calls are checked and counted like others."""

from __future__ import annotations

from typing import Any

import tritonclient.grpc as triton
from triton_sam2 import AsyncSAM2TritonClient, RetryPolicy, TritonSam2Error
from triton_sam2._transports.grpc_blocking import read_answer
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2._transports.statuses import error_from_status
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from front.callers import Caller
from front.refusals import Refusal
from front.service import FrontService
from front.tensor_data import pack_strings
from front.triton_request import TritonRequest


class ServiceTransport:
    """Carries the client's requests to the front's service, as one caller's."""

    def __init__(self, service: FrontService, caller: Caller) -> None:
        self._service = service
        self._caller = caller

    async def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name; raises the client's errors, each caused by a Refusal."""
        message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
        triton_request = TritonRequest(message, [])
        for name, array in request.inputs.items():
            datatype = np_to_triton_dtype(array.dtype)
            message.inputs.add(name=name, datatype=datatype, shape=array.shape)
            triton_request.raws.append(
                pack_strings(list(array.flat)) if datatype == "BYTES" else array.tobytes()
            )
        for name in request.outputs:
            message.outputs.add(name=name)
        try:
            prepared = await self._service.prepared(self._caller, triton_request)
            answer = await self._service.infer(prepared, request.timeout_s)
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
