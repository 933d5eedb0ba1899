"""Connections that die without a word, proxies that lead elsewhere, servers that stop."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
from triton_sam2 import (
    AsyncSAM2TritonClient,
    CallTimeoutError,
    RetryPolicy,
    SAM2TritonClient,
    ServerUnavailableError,
    SpeculativeSAM2Client,
    TritonSam2Error,
)
from triton_sam2._transports import grpc_blocking as transport
from triton_sam2._transports.statuses import error_from_status

from tests.client.fake_servers import grpc_server, http_server
from tests.client.fakes import FakeSam, png_of

CLICK = ([[30, 20]], [1])
# What a server that stops has been seen to answer, by status and message.
STOPPING = ("NOT_FOUND", "Request for unknown model: 'sam2' has no available versions")


class Relay:
    """Forwards connections; those that it has dropped stay open and swallow everything, as NAT does it."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets, self._dropped, self.connections = [], set(), 0
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self):
        self._dropped.update(range(self.connections))

    def close(self):
        for end in [self._listener, *self._sockets]:
            end.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                number, self.connections = self.connections, self.connections + 1
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(*pair, number), daemon=True).start()

    def _pump(self, source, sink, number):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if number not in self._dropped:
                    sink.sendall(data)


@pytest.fixture
def quick_pings(monkeypatch):
    """A ping after 1 s of silence (gRPC knows no less), so that tests are short."""
    monkeypatch.setattr(transport, "PING_AFTER_MS", 1000)
    monkeypatch.setattr(transport, "PING_TIMEOUT_MS", 1000)


async def predict_async(address, before):
    async with AsyncSAM2TritonClient(address) as client:
        await client.set_image(png_of())
        before()
        return await client.predict(*CLICK)


def predict_blocking(address, before):
    with SAM2TritonClient(address) as client:
        client.set_image(png_of())
        before()
        return client.predict(*CLICK)


def predict_speculative(address, before):
    async def predict(client):
        _, future = await client.predict_async(*CLICK, "session")
        return await future

    with SpeculativeSAM2Client(address) as client:
        client.set_image(png_of())
        before()
        return asyncio.run(predict(client))


CLIENTS = {
    "blocking": predict_blocking,
    "asyncio": lambda *arguments: asyncio.run(predict_async(*arguments)),
    "speculative": predict_speculative,
}


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_connection_that_is_dead_is_left_within_the_call(sam, quick_pings, kind):
    with grpc_server(sam) as (address, _):
        relay = Relay(address)
        try:
            assert CLIENTS[kind](relay.address, relay.drop).masks.any()
            assert relay.connections >= 2
        finally:
            relay.close()


def test_without_pings_it_would_be_waited_for_in_vain(sam, monkeypatch):
    """What the test above is worth."""
    monkeypatch.setattr(transport, "PING_AFTER_MS", 10_000_000)
    monkeypatch.setattr(transport, "PING_TIMEOUT_MS", 10_000_000)
    with grpc_server(sam) as (address, _):
        relay = Relay(address)
        try:
            with SAM2TritonClient(relay.address) as client:
                client.set_image(png_of())
                relay.drop()
                with pytest.raises(CallTimeoutError):
                    client.predict(*CLICK, timeout=2)
        finally:
            relay.close()


def test_a_silent_encode_survives_the_pings(sam, monkeypatch):
    """Servers hang up on the fourth ping that comes too early, by default; ours are one a second here."""
    monkeypatch.setattr(transport, "PING_AFTER_MS", 1000)
    with (
        grpc_server(sam) as (address, servicer),
        SAM2TritonClient(address, retry=RetryPolicy(retries=0)) as client,
    ):
        client.set_image(png_of())
        servicer.before = lambda context: time.sleep(6)
        assert client.predict(*CLICK).masks.any()


PROXIES = ("grpc_proxy", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(sam, monkeypatch, host, protocol):
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    start = grpc_server if protocol == "grpc" else http_server
    with start(sam) as (url, _):
        port = url.rpartition(":")[2]
        with SAM2TritonClient(f"{protocol}://{host}:{port}") as client:
            assert client.segment(png_of(), *CLICK).masks.any()


def test_grpc_follows_the_environments_proxy_elsewhere(monkeypatch):
    """By the tunnel that it asks the proxy for."""
    asked = threading.Event()
    lines = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def answer():
            connection, _ = proxy.accept()
            lines.append(connection.recv(4096).split(b"\r\n")[0])
            asked.set()
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "grpc_proxy", "https_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        with SAM2TritonClient("gpu.invalid:8001") as client, pytest.raises(TritonSam2Error):
            client.set_image(png_of(), timeout=10)
    assert asked.is_set()
    assert lines[0].startswith(b"CONNECT gpu.invalid:8001")


class StoppingSam(FakeSam):
    """Answers as Triton does while it stops, a few times; its successor answers as usual."""

    refusals = 0

    def infer(self, request):
        if self.refusals:
            self.refusals -= 1
            self.requests.append(request)
            raise error_from_status(*STOPPING)
        return super().infer(request)


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_server_that_stops_is_asked_again(kind):
    sam = StoppingSam()
    with grpc_server(sam) as (address, servicer):
        stops = 3

        def refuse(context):
            nonlocal stops
            if stops:
                stops -= 1
                context.abort(transport_status(STOPPING[0]), STOPPING[1])

        def stop():
            servicer.before = refuse

        assert CLIENTS[kind](address, stop).masks.any()
    assert stops == 0


def test_a_server_that_stops_is_asked_again_over_http():
    sam = StoppingSam()
    with http_server(sam) as (url, _), SAM2TritonClient(url) as client:
        client.set_image(png_of())
        sam.refusals = 3
        assert client.predict(*CLICK).masks.any()
    assert sam.refusals == 0


def test_a_server_that_stays_away_is_unavailable_in_the_end():
    sam = StoppingSam()
    retry = RetryPolicy(retries=2, first_pause_s=0.001)
    with http_server(sam) as (url, _), SAM2TritonClient(url, retry=retry) as client:
        client.set_image(png_of())
        sam.refusals = 99
        with pytest.raises(ServerUnavailableError, match="no available versions"):
            client.predict(*CLICK)
    assert sam.refusals == 96


def test_a_closed_client_says_so(sam):
    for start in (grpc_server, http_server):
        with start(sam) as (url, _):
            client = SAM2TritonClient(url)
            client.set_image(png_of())
            client.close()
            with pytest.raises(TritonSam2Error, match="closed"):
                client.predict(*CLICK)


def transport_status(name):
    import grpc

    return getattr(grpc.StatusCode, name)
