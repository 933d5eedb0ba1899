"""Images fetched from configured hosts: bounded in bytes, in time, in redirects, and in where they lead.

An own reading of HTTP over asyncio: the address that was checked is the one that is connected to, one clock
runs over the whole fetch, and a client that leaves ends it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import grpc
import h11

from front.refusals import Refusal, too_large
from front.tools.image_hosts import (
    Resolve,
    Target,
    allowed_address,
    read_target,
    system_addresses,
)
from front.tools.settings import ImageHost, ToolLimits

_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE_BYTES = 1 << 16
# Headers of an answer, its first line among them.
_MAX_HEAD_BYTES = 32_768
# What goes along to a target, asked again after each redirect: a token belongs to one origin.
HeadersFor = Callable[[Target], Awaitable[Mapping[str, str]]]


async def no_headers(_target: Target) -> Mapping[str, str]:
    """For hosts that need no word from whom a request is."""
    return {}


@dataclass(frozen=True)
class _Request:
    method: str
    target: Target
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class _Head:
    status: int
    headers: Mapping[str, str]


class ImageFetcher:
    """Fetches from the hosts of a configuration. Belongs to one event loop."""

    def __init__(
        self,
        hosts: Sequence[ImageHost],
        limits: ToolLimits,
        resolve: Resolve = system_addresses,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._limits = limits
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()
        self._slots = asyncio.Semaphore(limits.fetches_at_once)

    async def fetch(
        self,
        where: str,
        url: str,
        hold: Callable[[int], None],
        headers_for: HeadersFor = no_headers,
    ) -> bytes:
        """The bytes that a URL leads to; `where` is what a refusal calls it, `hold` counts them as they come.

        Raises:
            Refusal: a URL that must not be fetched (400), a host that fails or is slow (502, 504), too many
                bytes (413).
        """
        return await self._in_time(self._fetch(where, url, hold, headers_for))

    async def post_json(self, where: str, url: str, body: bytes) -> bytes:
        """What a URL answers to JSON; redirects are none."""

        async def ask() -> bytes:
            target = read_target(where, url, self._hosts)
            request = _Request("POST", target, {"Content-Type": "application/json"}, body)
            async with self._answer(request) as (head, pieces):
                if head.status != 200:
                    raise _failed(target, f"answered {head.status}")
                return await self._collected(target, head, pieces, lambda _count: None)

        return await self._in_time(ask())

    async def _in_time(self, work: Any) -> bytes:
        async def in_turn() -> bytes:
            async with self._slots:
                result: bytes = await work
                return result

        try:
            return await asyncio.wait_for(in_turn(), self._limits.fetch_timeout_s)
        except asyncio.TimeoutError as error:
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"image: its host took longer than {self._limits.fetch_timeout_s:g} s (fetch_timeout_s)",
            ) from error
        finally:
            work.close()

    async def _fetch(
        self, where: str, url: str, hold: Callable[[int], None], headers_for: HeadersFor
    ) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            target = read_target(where, url, self._hosts)
            request = _Request("GET", target, await headers_for(target))
            async with self._answer(request) as (head, pieces):
                if head.status in _REDIRECTS and "location" in head.headers:
                    url, where = urljoin(url, head.headers["location"]), f"{where} (redirected)"
                    continue
                if head.status != 200:
                    raise _failed(target, f"answered {head.status}")
                return await self._collected(target, head, pieces, hold)
        raise _failed(
            target, f"redirected more than {self._limits.max_redirects} times (max_redirects)"
        )

    @asynccontextmanager
    async def _answer(self, request: _Request) -> AsyncIterator[tuple[_Head, AsyncIterator[bytes]]]:
        target = request.target
        address = await allowed_address(target, self._resolve)
        is_tls = target.scheme == "https"
        writer = None
        try:
            reader, writer = await asyncio.open_connection(
                address,
                target.port,
                ssl=self._tls if is_tls else None,
                server_hostname=target.name if is_tls else None,
            )
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
            writer.write(_request_bytes(connection, request))
            await writer.drain()
            events = _events(connection, reader)
            head = _read_head(await anext(events))
            yield head, _pieces(events)
        except (OSError, ssl.SSLError) as error:
            raise _failed(target, "cannot be reached") from error
        except (h11.RemoteProtocolError, StopAsyncIteration) as error:
            raise _failed(target, "does not speak HTTP") from error
        finally:
            if writer is not None:
                # Not waited for: a host that never says goodbye would hold the request.
                writer.transport.abort()

    async def _collected(
        self,
        target: Target,
        head: _Head,
        pieces: AsyncIterator[bytes],
        hold: Callable[[int], None],
    ) -> bytes:
        most = self._limits.max_fetched_bytes
        if head.headers.get("content-encoding", "identity") != "identity":
            raise _failed(target, "answered in an encoding that was not asked for")
        content = bytearray()
        async for piece in pieces:
            if len(content) + len(piece) > most:
                raise too_large(
                    f"image: expected at most {most} bytes (max_fetched_bytes), got more"
                )
            hold(len(piece))
            content += piece
        return bytes(content)


def _request_bytes(connection: h11.Connection, request: _Request) -> bytes:
    headers = {
        "Host": request.target.host_header,
        "User-Agent": "triton-sam2-front",
        "Accept": "*/*",
        # A small answer cannot become a large one.
        "Accept-Encoding": "identity",
        "Connection": "close",
        **request.headers,
    }
    if request.body:
        headers["Content-Length"] = str(len(request.body))
    first = h11.Request(
        method=request.method, target=request.target.path_and_query, headers=list(headers.items())
    )
    data = connection.send(first) or b""
    if request.body:
        data += connection.send(h11.Data(data=request.body)) or b""
    return data + (connection.send(h11.EndOfMessage()) or b"")


async def _events(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    """What the host says, up to the end of its answer."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_PIECE_BYTES))
        elif not isinstance(event, h11.InformationalResponse):
            yield event
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return


def _read_head(event: Any) -> _Head:
    if not isinstance(event, h11.Response):
        raise h11.RemoteProtocolError("no answer")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
    return _Head(event.status_code, headers)


async def _pieces(events: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, h11.Data):
            yield bytes(event.data)


def _failed(target: Target, how: str) -> Refusal:
    return Refusal(grpc.StatusCode.UNAVAILABLE, f"image: {target.name} {how}", 502)
