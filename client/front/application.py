"""The HTTP application: REST (/v1) and its description (/docs), the inference protocol (/v2), tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import orjson
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from front import api_description, video_description
from front.http_protocol import HttpProtocol
from front.rest import Rest
from front.rest_everything import RestEverything
from front.rest_videos import RestVideos
from front.service import FrontService
from front.settings import FrontSettings
from front.tools.registry import tool_routes

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
DESCRIPTION = """\
Images and clicks in, masks out. `curl -F image=@photo.jpg -F point=512,512 …/v1/segment` is a whole call; the
answer's `image_id` stands for the image from then on. Triton's inference protocol (KServe v2) lies under /v2.
"""


def make_application(service: FrontService, settings: FrontSettings) -> Starlette:
    """An ASGI application over a service."""
    # The page's scripts and styles come from here too, not from somebody's network.
    application: FastAPI = FastAPIOffline(
        title="Segment Anything 2.1", version="1", description=DESCRIPTION
    )
    application.add_exception_handler(HTTPException, _refused)
    # The handlers read requests themselves, within limits; what /docs says of them is written, not derived.
    paths: dict[str, dict[str, Any]] = {}
    for path, method, handler, extra in _rest_routes(service):
        application.router.add_route(path, handler, methods=[method])
        operation = {"operationId": handler.__name__, **extra}
        paths.setdefault(path.replace(":path", ""), {})[method.lower()] = operation
    document = {**application.openapi(), "paths": paths}
    application.openapi = lambda: document  # type: ignore[method-assign]
    application.router.routes.extend(HttpProtocol(service).routes())
    application.router.routes.extend(tool_routes(service, settings.tools))
    if settings.cors_origins:
        application.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "authorization",
                "x-api-key",
                "content-type",
                "inference-header-content-length",
            ],
            expose_headers=["inference-header-content-length", "x-image-id"],
        )
    return application


def _rest_routes(service: FrontService) -> list[tuple[str, str, Handler, dict[str, Any]]]:
    """Path, method, handler and description of everything under /v1."""
    rest, everything, videos = Rest(service), RestEverything(service), RestVideos(service)
    video = "/v1/videos/{session_id}"
    return [
        ("/v1/segment", "POST", rest.segment, api_description.SEGMENT),
        ("/v1/everything", "POST", everything.everything, api_description.EVERYTHING),
        ("/v1/images", "POST", rest.warm, api_description.WARM),
        ("/v1/images/{image_id:path}", "DELETE", rest.forget, api_description.FORGET),
        ("/v1/videos", "POST", videos.start, video_description.START),
        (f"{video}/prompt", "POST", videos.prompt, video_description.PROMPT),
        (f"{video}/track", "POST", videos.track, video_description.TRACK),
        (video, "GET", videos.status, video_description.STATUS),
        (video, "DELETE", videos.close, video_description.CLOSE),
    ]


async def _refused(_request: Request, error: Exception) -> Response:
    """Paths and methods that there are not, in the form of all other refusals."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: "no such path", 405: "no such method for this path"}
    body = orjson.dumps({"error": words.get(status, "the request is not understood")})
    return Response(body, status, media_type="application/json")
