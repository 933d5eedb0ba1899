"""The Open Inference Protocol over HTTP, under /v2."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from front.callers import Caller
from front.catalog import PUBLIC_MODELS, ModelFacts, TensorFacts
from front.http_bodies import read_body
from front.json_messages import read_request, write_answer
from front.metrics import Outcome
from front.refusals import Refusal, invalid, not_found
from front.service import FrontService, Reservation, as_refusal

T = TypeVar("T")
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
# What a client that left would get; nobody reads it.
CLIENT_LEFT = Response(status_code=499)


class HttpProtocol:
    """Routes that do what Triton's own HTTP service does for public models, and nothing else of it."""

    def __init__(self, service: FrontService) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """For a Starlette application."""
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        return [
            Route("/v2", self._server_metadata, methods=["GET"]),
            Route("/v2/health/live", self._live, methods=["GET"]),
            Route("/v2/health/ready", self._ready, methods=["GET"]),
            *(Route(path, self._model_metadata, methods=["GET"]) for path in (model, version)),
            *(
                Route(f"{path}/ready", self._model_ready, methods=["GET"])
                for path in (model, version)
            ),
            *(Route(f"{path}/infer", self._infer, methods=["POST"]) for path in (model, version)),
        ]

    async def _live(self, _request: Request) -> Response:
        return Response(status_code=200 if await self._service.triton.is_live() else 503)

    async def _ready(self, _request: Request) -> Response:
        is_ready = not self._service.is_stopping and await self._service.triton.is_ready()
        return Response(status_code=200 if is_ready else 503)

    async def _server_metadata(self, request: Request) -> Response:
        async def answer(_caller: Caller, _reservation: Reservation, _outcome: Outcome) -> Response:
            return _json(
                {"name": "triton-sam2", "version": "1", "extensions": ["binary_tensor_data"]}
            )

        return await answered(self._service, request, "server", answer)

    async def _model_ready(self, request: Request) -> Response:
        async def answer(_caller: Caller, _reservation: Reservation, _outcome: Outcome) -> Response:
            model = _model_name(request)
            is_ready = await self._service.triton.is_model_ready(model)
            return Response(status_code=200 if is_ready else 503)

        return await answered(self._service, request, "model_ready", answer)

    async def _model_metadata(self, request: Request) -> Response:
        async def answer(_caller: Caller, _reservation: Reservation, _outcome: Outcome) -> Response:
            return _json(_described(await self._service.facts(_model_name(request))))

        return await answered(self._service, request, "model", answer)

    async def _infer(self, request: Request) -> Response:
        async def answer(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
            facts = await self._service.facts(_model_name(request))
            limits = self._service.limits
            body = await read_body(request, limits, reservation)
            outcome.in_bytes = len(body)
            triton_request, wanted = read_request(facts, body, _json_length(request), limits)
            prepared = await self._service.prepared(caller, triton_request)
            raw = await unless_gone(request, self._service.infer(prepared))
            pieces, json_bytes = write_answer(raw, wanted, limits)
            del raw
            outcome.out_bytes = sum(map(len, pieces))
            return _pieces(pieces, json_bytes)

        return await answered(self._service, request, f"infer {_label(request)}", answer)


async def answered(
    service: FrontService,
    request: Request,
    call: str,
    answer: Callable[[Caller, Reservation, Outcome], Awaitable[Response]],
    *,
    interface: str = "http",
    refuse: Callable[[Refusal], Response] | None = None,
    credentials: Mapping[str, str] | None = None,
) -> Response:
    """Recognises the caller, counts the request, and turns whatever is raised into an answer.

    `refuse` is how the caller's tool is told no (Triton's form without it); `credentials` are headers with
    its key, where it sends the key in a way of its own.
    """
    refuse = refuse or refused
    try:
        caller = service.callers.recognise(request.headers if credentials is None else credentials)
    except Refusal as refusal:
        return refuse(refusal)
    with service.metrics.observed(interface, call, caller.tenant or "", caller.name) as outcome:
        try:
            with service.admitted(caller) as reservation:
                return await answer(caller, reservation, outcome)
        except ClientDisconnect:
            outcome.status = "CANCELLED"
            return CLIENT_LEFT
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            if not isinstance(error, Refusal):
                service.metrics.log("failure", call=call, error=repr(error)[:500])
            known = as_refusal(error)
            if known.inside:
                service.metrics.log("failure", call=call, error=known.inside[:500])
            outcome.status = known.code.name
            return refuse(known)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Does the work, but ends it when the client closes its connection: nobody would read the result."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            # After a whole body, the only message left is that the client went.
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


def refused(refusal: Refusal) -> Response:
    """A refusal in Triton's form."""
    response = _json({"error": refusal.message})
    response.status_code = refusal.http_status
    if refusal.http_status in (429, 503):
        response.headers["Retry-After"] = "1"
    return response


def _label(request: Request) -> str:
    """A model's name for metrics: only names that exist, so that callers cannot make new ones."""
    model = str(request.path_params["model"])
    return model if model in PUBLIC_MODELS else "unknown"


def _model_name(request: Request) -> str:
    version = request.path_params.get("version", "1")
    if version != "1":
        raise not_found(f"version: expected 1, got {version!r:.40}")
    return str(request.path_params["model"])


def _json_length(request: Request) -> int | None:
    value = request.headers.get(JSON_LENGTH_HEADER)
    if value is None:
        return None
    if not value.isascii() or not value.isdecimal() or len(value) > 12:
        raise invalid(f"{JSON_LENGTH_HEADER}: expected a whole number, got {value[:40]!r}")
    return int(value)


def _described(facts: ModelFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "versions": ["1"],
        "platform": "ensemble",
        "inputs": [_tensor(name, tensor) for name, tensor in facts.inputs.items()],
        "outputs": [_tensor(name, tensor) for name, tensor in facts.outputs.items()],
    }


def _tensor(name: str, facts: TensorFacts) -> dict[str, Any]:
    return {"name": name, "datatype": facts.datatype, "shape": list(facts.shape)}


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _pieces(pieces: list[bytes], json_bytes: int | None) -> Response:
    if json_bytes is None:
        return Response(pieces[0], media_type="application/json")
    headers = {JSON_LENGTH_HEADER: str(json_bytes), "Content-Length": str(sum(map(len, pieces)))}

    async def stream() -> Any:
        for piece in pieces:
            yield piece

    return StreamingResponse(stream(), headers=headers, media_type="application/octet-stream")
