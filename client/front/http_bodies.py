"""Bodies of HTTP requests, bounded in bytes (unpacked as well) and in the time between their pieces."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
from starlette.requests import ClientDisconnect, Request

from front.refusals import Refusal, invalid, too_large
from front.service import Reservation
from front.settings import Limits

# What zlib calls a gzip header; `deflate` bodies come with a zlib header.
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_UNPACK_STEP_BYTES = 1 << 20


async def read_body(request: Request, limits: Limits, reservation: Reservation) -> bytearray:
    """The whole body, unpacked."""
    body = bytearray()
    async for piece in body_pieces(request, limits, reservation):
        body += piece
    return body


async def body_pieces(
    request: Request, limits: Limits, reservation: Reservation
) -> AsyncGenerator[bytes, None]:
    """The body as it comes, unpacked and counted.

    Raises:
        Refusal: more than max_request_bytes (413), an unknown or broken encoding (415, 400), silence for
            longer than body_timeout_s (408).
        ClientDisconnect: the client left.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_request_bytes:
        raise _too_large(limits)
    pieces = _pieces(request, limits)
    if encoding in _WINDOW_BITS:
        pieces = _unpacked(pieces, encoding)
    elif encoding != "identity":
        message = f"Content-Encoding: expected gzip, deflate or none, got {encoding[:40]!r}"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, 415)
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > limits.max_request_bytes:
            raise _too_large(limits)
        reservation.hold(len(piece))
        yield piece


async def _pieces(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), limits.body_timeout_s)
        except asyncio.TimeoutError as error:
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the body fell silent for {limits.body_timeout_s:g} s (body_timeout_s)",
                408,
            ) from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def _unpacked(pieces: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Never more than a step's bytes at once, whatever a piece claims to become."""
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        async for piece in pieces:
            rest = piece
            while rest and not unpacker.eof:
                yield unpacker.decompress(rest, _UNPACK_STEP_BYTES)
                rest = unpacker.unconsumed_tail
            if rest or unpacker.unused_data:
                raise invalid(f"body: expected one {encoding} stream, got bytes behind its end")
    except zlib.error as error:
        raise invalid(f"body: expected {encoding}, as Content-Encoding says: {error}") from error
    if not unpacker.eof:
        raise invalid(f"body: expected a complete {encoding} stream, got a part of one")


def _too_large(limits: Limits) -> Refusal:
    return too_large(f"body: expected at most {limits.max_request_bytes} bytes (max_request_bytes)")
