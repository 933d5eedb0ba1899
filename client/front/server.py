"""One worker process: HTTP, gRPC and metrics on one event loop."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from front.application import make_application
from front.callers import Callers
from front.grpc_protocol import GrpcProtocol
from front.keyless import KeylessProtocol
from front.metrics import FrontMetrics
from front.service import FrontService
from front.settings import FrontSettings
from front.triton import Triton

_M_MMAP_THRESHOLD = -3  # malloc.h


def listening_socket(host: str, port: int, is_shared: bool) -> socket.socket:
    """A bound TCP socket; several workers may bind a shared one, and the kernel deals out connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: only then does asyncio send at once (TCP_NODELAY), and not 40 ms later.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((host, port))
    return bound


@asynccontextmanager
async def running_front(
    settings: FrontSettings, is_shared: bool = False
) -> AsyncIterator[dict[str, int]]:
    """Serves until the block ends, then finishes what is under way; yields the ports."""
    registry = CollectorRegistry()
    metrics = FrontMetrics(registry)
    triton = Triton(settings.triton)
    callers = Callers(settings.api_keys_file, settings.limits)
    service = FrontService(triton, callers, metrics, settings.limits)
    http_socket = listening_socket(settings.host, settings.http_port, is_shared)
    http = _http_server(make_application(service, settings), settings)
    http_task = asyncio.create_task(http.serve(sockets=[http_socket]))
    protocol = GrpcProtocol(service)
    grpc_server, grpc_port = await _start_grpc(protocol, settings, settings.grpc_port, is_shared)
    servers, ports = [grpc_server], {"grpc_port": grpc_port}
    if settings.keyless_port is not None:
        keyless = KeylessProtocol(service, settings.keyless_networks)
        server, ports["keyless_port"] = await _start_grpc(
            keyless, settings, settings.keyless_port, is_shared
        )
        servers.append(server)
    metrics_socket = listening_socket(settings.host, settings.metrics_port, is_shared=False)
    metrics_http = _http_server(_metrics_application(registry), settings)
    metrics_task = asyncio.create_task(metrics_http.serve(sockets=[metrics_socket]))
    try:
        yield {
            "http_port": http_socket.getsockname()[1],
            **ports,
            "metrics_port": metrics_socket.getsockname()[1],
        }
    finally:
        await service.drain(settings.stop_grace_s)
        # All that is left are streams without a message under way.
        await asyncio.gather(*(server.stop(1.0) for server in servers))
        http.should_exit = metrics_http.should_exit = True
        await asyncio.gather(http_task, metrics_task)
        triton.close()


def give_large_blocks_back() -> None:
    """Has the C library return blocks of megabytes (images) to the system as soon as they are free.

    It does so at first; but each one that it returned makes it keep larger ones, and their gaps.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others need no telling
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1_000_000)


async def serve(settings: FrontSettings, is_shared: bool) -> None:
    """Serves until SIGTERM or SIGINT."""
    give_large_blocks_back()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with running_front(settings, is_shared) as ports:
        print(  # noqa: T201 - what the person who started it waits for
            f"front ready: HTTP {settings.host}:{ports['http_port']},"
            f" gRPC {settings.host}:{ports['grpc_port']}, metrics :{ports['metrics_port']}"
            + (f", without keys :{ports['keyless_port']}" if "keyless_port" in ports else ""),
            flush=True,
        )
        await stopped.wait()


class _Server(uvicorn.Server):
    """Signals are handled once, for all of the process's servers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves them alone."""
        yield


def _http_server(application: Starlette, settings: FrontSettings) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        # Not httptools: it loses the body of a request that offers HTTP/2, as Java's client does.
        http="h11",
        ws="none",
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.stop_grace_s) + 1,
        # The one who says so may be anybody; who calls is known by a key.
        proxy_headers=False,
    )
    return _Server(config)


async def _start_grpc(
    protocol: GrpcProtocol, settings: FrontSettings, port: int, is_shared: bool
) -> tuple[grpc.aio.Server, int]:
    limits = settings.limits
    server = grpc.aio.server(
        options=[
            # Counts a message unpacked as well, so that a small one cannot become a large one.
            ("grpc.max_receive_message_length", limits.max_request_bytes),
            ("grpc.max_send_message_length", 2**31 - 1),
            ("grpc.so_reuseport", int(is_shared)),
            # Clients keep long encodes and idle streams alive by pings.
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
        maximum_concurrent_rpcs=2 * limits.max_requests_at_once,
    )
    server.add_generic_rpc_handlers((protocol,))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return server, bound


def _metrics_application(registry: CollectorRegistry) -> Starlette:
    def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", metrics)])
