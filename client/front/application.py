"""The HTTP application: the inference protocol under /v2, REST under /v1, CORS where it is configured."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from front.http_protocol import HttpProtocol
from front.service import FrontService
from front.settings import FrontSettings


def make_application(service: FrontService, settings: FrontSettings) -> Starlette:
    """An ASGI application over a service."""
    application = Starlette(routes=HttpProtocol(service).routes())
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
