"""What the front costs: `just bench-front`. Direct and through the front take turns, in one run.

A cached click's p50 and p99 over gRPC and HTTP; clicks a second of one worker; memory of a 20 MB image;
clicks beside 500 idle connections and a reader that reads nothing.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import urllib3
from PIL import Image
from triton_sam2 import SAM2TritonClient
from tritonclient.grpc import service_pb2_grpc

from export.repository import assemble_repository
from tests.front.samples import click_request
from tests.photographs import photograph
from tests.running_front import RunningFront
from tests.running_server import ROOT, RunningServer

CLICKS = 400
CLICK_SECONDS = 5
CLIENTS = 4
IMAGE_BYTES = 20_000_000


def clicker(url: str) -> SAM2TritonClient:
    """A client whose image the server knows."""
    client = SAM2TritonClient(url)
    client.set_image(photograph("coins.png"))
    return client


def click_ms(client: SAM2TritonClient) -> float:
    started = time.perf_counter()
    client.predict([[109, 199]], [1], formats="rle")
    return (time.perf_counter() - started) * 1e3


def row(name: str, times_ms: list[float]) -> str:
    p50, p99 = np.percentile(times_ms, [50, 99])
    return f"{name:<28} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms"


def compare(server: RunningServer, front: RunningFront, scheme: str) -> None:
    urls = {"direct": server.grpc_url, "through the front": front.grpc_url}
    if scheme == "http":
        urls = {
            "direct": f"http://{server.http_url}",
            "through the front": f"http://{front.http_url}",
        }
    clients = {name: clicker(url) for name, url in urls.items()}
    times: dict[str, list[float]] = {name: [] for name in urls}
    for number in range(CLICKS + 20):
        for name, client in clients.items():
            elapsed = click_ms(client)
            if number >= 20:
                times[name].append(elapsed)
    for name in urls:
        print(row(f"{scheme}, {name}", times[name]))
    more = [statistics.median(times[name]) for name in urls]
    print(f"{scheme}: {more[1] - more[0]:.2f} ms more at p50")


def throughput(url: str) -> float:
    """Clicks a second of a few clients at once."""
    counts = [0] * CLIENTS
    end = time.monotonic() + CLICK_SECONDS

    def work(index: int) -> None:
        client = clicker(url)
        while time.monotonic() < end:
            click_ms(client)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / CLICK_SECONDS


def most_memory(front: RunningFront) -> int:
    """The most that the front has held so far, in bytes."""
    status = Path(f"/proc/{front.process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


def large_image() -> bytes:
    """An image file of 20 MB: small noise, and bytes behind its end, which readers skip."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue().ljust(IMAGE_BYTES, b"\0")


def memory(server: RunningServer, folder: Path) -> None:
    """Each road with a front of its own, since the most that was held is remembered."""
    image = large_image()
    for road in ("grpc", "http", "rest"):
        with RunningFront(server.grpc_url, folder / road) as front:
            for scheme in ("grpc", "http"):
                with SAM2TritonClient(f"{scheme}://{getattr(front, f'{scheme}_url')}") as client:
                    client.segment(photograph("coins.png"), [[109, 199]], [1], formats="rle")
            before = most_memory(front)
            if road == "rest":
                form = {"image": ("large.png", image), "point": "100,100"}
                url = f"http://{front.http_url}/v1/segment"
                assert urllib3.request("POST", url, fields=form, timeout=300).status == 200
            else:
                url = f"{road}://{front.grpc_url if road == 'grpc' else front.http_url}"
                with SAM2TritonClient(url, timeout=300) as client:
                    client.segment(image, [[100, 100]], [1], formats="rle")
            more = most_memory(front) - before
            print(
                f"{road}: 20 MB of image take {more / 1e6:.0f} MB, {more / IMAGE_BYTES:.1f} times its size"
            )


@contextlib.contextmanager
def idle_and_slow(front: RunningFront) -> Iterator[None]:
    """500 connections that say nothing, and one that asks for large answers and reads none."""
    host, port = front.http_url.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(socket.create_connection((host, int(port))))
        channel = stack.enter_context(grpc.insecure_channel(front.grpc_url))
        request = click_request()
        request.raw_input_contents[0] = b"\4\0\0\0slow"
        del request.outputs[:]
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(iter([request] * 200))
        try:
            next(stream)
            yield
        finally:
            stream.cancel()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assemble_repository(ROOT / "export/demo_model/onnx", folder / "repository")
        with RunningServer(folder / "repository", folder / "server", "--no-probe") as server:
            with RunningFront(server.grpc_url, folder / "front") as front:
                for scheme in ("grpc", "http"):
                    compare(server, front, scheme)
                print(
                    f"clicks/s, {CLIENTS} clients, direct:            {throughput(server.grpc_url):.0f}"
                )
                print(
                    f"clicks/s, {CLIENTS} clients, through one worker: {throughput(front.grpc_url):.0f}"
                )
                client = clicker(front.grpc_url)
                client.set_image(photograph("coins.png"), image_id="slow")
                print(row("alone", [click_ms(client) for _ in range(CLICKS)]))
                with idle_and_slow(front):
                    print(
                        row(
                            "beside 500 idle and a slow one",
                            [click_ms(client) for _ in range(CLICKS)],
                        )
                    )
            memory(server, folder)


if __name__ == "__main__":
    main()
