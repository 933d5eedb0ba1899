"""A status and a message from the server ► the exception that says it."""

import re

from triton_sam2._errors import (
    AccessDeniedError,
    CallCancelledError,
    CallTimeoutError,
    ImageNotFoundError,
    InvalidInputError,
    ModelNotFoundError,
    ServerError,
    ServerUnavailableError,
    ServerUnreachableError,
    SessionExistsError,
    SessionNotFoundError,
    TritonSam2Error,
)
from triton_sam2._transports.urls import Endpoint

# How Triton words it, with various statuses, that a model is there but does not serve at this moment: it is
# loading, being replaced, or the server stops. A model that was never there "is not found".
_NOT_READY = re.compile(
    r"unknown model: '[^']*'( version \S+)? (has no available versions|is not at ready state)",
    re.IGNORECASE,
)
# Which of its models complained is Triton's own business.
_ENSEMBLE_PREFIX = re.compile(r"^in ensemble '[^']*', ")
_HTTP_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    413: "INVALID_ARGUMENT",
    429: "UNAVAILABLE",
    499: "CANCELLED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_EXCEPTIONS: dict[str, type[TritonSam2Error]] = {
    "INVALID_ARGUMENT": InvalidInputError,
    "OUT_OF_RANGE": InvalidInputError,
    "NOT_FOUND": ImageNotFoundError,
    "ALREADY_EXISTS": SessionExistsError,
    "UNAVAILABLE": ServerUnavailableError,
    "RESOURCE_EXHAUSTED": ServerUnavailableError,
    "DEADLINE_EXCEEDED": CallTimeoutError,
    "CANCELLED": CallCancelledError,
    "UNAUTHENTICATED": AccessDeniedError,
    "PERMISSION_DENIED": AccessDeniedError,
}
_NOT_FOUND: dict[str, type[TritonSam2Error]] = {
    "session_id": SessionNotFoundError,
    "object_id": InvalidInputError,
}


def http_status_name(status: int) -> str:
    """The gRPC name of an HTTP status; INTERNAL for those without one."""
    return _HTTP_STATUSES.get(status, "INTERNAL")


def error_from_status(status: str, message: str) -> TritonSam2Error:
    """The exception for a status (by its gRPC name) that a server answered with."""
    text = _ENSEMBLE_PREFIX.sub("", message.strip()) or status
    if _NOT_READY.search(text) or (status == "CANCELLED" and text.upper() == "CANCELLED"):
        # The bare word is what a server that ends makes of a call; who cancels one himself hears more.
        return ServerUnavailableError(text)
    if "unknown model" in text.lower():
        # Triton says so with various statuses, NOT_FOUND among them, which otherwise means an image.
        return ModelNotFoundError(text)
    if status == "NOT_FOUND":
        # What was not found is the tensor that the message begins with.
        return _NOT_FOUND.get(text.partition(":")[0], ImageNotFoundError)(text)
    return _EXCEPTIONS.get(status, ServerError)(text)


def unreachable(endpoint: Endpoint, reason: str) -> ServerUnreachableError:
    """Nobody answers: say where we looked and what to do about it."""
    protocol = "gRPC" if endpoint.is_grpc else "HTTP"
    return ServerUnreachableError(
        f"no Triton server answers {protocol} at {endpoint} ({reason}). Start one with `just serve`, or "
        f"say where it is with the url argument or TRITON_URL. If that port speaks the other protocol, "
        f"say so in the URL: {endpoint.in_other_protocol}."
    )
