"""Why a request is not served, in the words of every protocol that the front speaks."""

from __future__ import annotations

import grpc

# gRPC status ► HTTP status. What is not here is a fault of ours or of Triton's: 500.
HTTP_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class Refusal(Exception):  # noqa: N818 - not always an error of anybody's: a limit, a key, a busy server
    """A request that is answered with a status and a message instead of a result.

    The message names the tensor or option, what was expected and what came. `http_status` says more
    exactly over HTTP what several HTTP statuses share one gRPC status for (411, 415, 429).
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        http_status: int | None = None,
        inside: str = "",
    ) -> None:
        super().__init__(message)
        # For the log alone.
        self.inside = inside
        self.code = code
        self.message = message
        self.http_status = http_status or HTTP_STATUSES.get(code, 500)


def invalid(message: str) -> Refusal:
    """A client's mistake: INVALID_ARGUMENT, 400."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> Refusal:
    """Nothing of that name for this caller: NOT_FOUND, 404."""
    return Refusal(grpc.StatusCode.NOT_FOUND, message)


def too_large(message: str) -> Refusal:
    """More than a named limit allows: INVALID_ARGUMENT (clients try RESOURCE_EXHAUSTED again), 413."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, 413)


def unavailable(message: str, http_status: int = 503) -> Refusal:
    """Try again later: UNAVAILABLE, 503 (or 429, where it is the caller's own rate)."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, message, http_status)


def quoted(name: str) -> str:
    """A name from the wire, short enough for a message."""
    return repr(name if len(name) <= 60 else name[:57] + "...")
