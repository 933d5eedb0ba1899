"""Mouse moves under stress, against a running server; prints its figures and asserts what must hold.

    python -m tests.client.stress --url localhost:8001 --metrics-url http://localhost:8002/metrics

1. 500 moves in bursts from 8 sessions, most of them cancelled: every surviving result equals the sequential
   one, each session's last position arrives, the server itself cancelled requests, nothing leaks.
2. 200 moves at 60 Hz, `latest_only` against the plain queue: decodes executed, and the time from the last
   move to its mask.
"""

import argparse
import asyncio
import gc
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.request import urlopen

import numpy as np
import psutil
from skimage import data
from triton_sam2 import (
    SAM2TritonClient,
    Segmentation,
    SpeculativeSAM2Client,
    queue_multiple_requests,
    wait_for_latest_result,
)
from triton_sam2._calls import Settings
from triton_sam2._rpc import InferRequest, Tensors
from triton_sam2._transport_grpc_aio import GrpcAioTransport
from triton_sam2.cli._server_status import metric_values

SESSIONS = 8
BURSTS = 9
MOVES_PER_BURST = 7  # 8 × 9 × 7 = 504 moves
MOUSE_HZ = 60
MOUSE_MOVES = 200


@dataclass(frozen=True)
class BurstFigures:
    """What became of the moves of part 1."""

    moves: int
    completed: int
    cancelled: int
    rpcs: int
    rpcs_cancelled: int
    server_succeeded: int
    server_failed: int  # Triton 24.10 counts each cancelled request of an ensemble twice
    decodes: int
    last_positions: int
    seconds: float
    grown_bytes: int
    grown_threads: int

    def report(self) -> str:
        """The figures in words."""
        return (
            f"{self.moves} moves from {SESSIONS} sessions in {self.seconds:.1f} s: {self.completed} results, "
            f"all equal to the sequential ones; {self.cancelled} cancelled; "
            f"{self.last_positions} of {SESSIONS} last positions arrived.\n"
            f"RPCs: {self.rpcs} sent, {self.rpcs_cancelled} of them cancelled. "
            f"Server: {self.server_succeeded} answered, {self.server_failed / 2:.0f} cancelled, "
            f"{self.decodes} decodes.\n"
            f"Client: memory {self.grown_bytes / 1e6:+.1f} MB, threads {self.grown_threads:+d}."
        )

    def check(self) -> None:
        """Assert what part 1 promises."""
        assert self.completed + self.cancelled == self.moves, self
        assert self.last_positions == SESSIONS, self
        assert self.cancelled > self.moves / 4, f"the bursts were too slow to cancel much: {self}"
        assert self.server_failed > 0, f"no cancellation reached the server: {self}"
        assert self.rpcs < self.moves, f"cancelled moves were sent all the same: {self}"
        # A probe of the server's own may fall into the run.
        assert self.decodes < self.rpcs + 3, f"the server decoded more than it was sent: {self}"
        assert self.server_succeeded + self.server_failed >= self.completed, self
        assert self.grown_threads <= 0, self
        assert self.grown_bytes < 50e6, self


@dataclass(frozen=True)
class MouseFigures:
    """One run of part 2."""

    decodes: int
    last_mask_s: float
    masks_seen: int


class CountingTransport(GrpcAioTransport):
    """Counts RPCs, and those that were cancelled on their way."""

    rpcs = 0
    cancelled = 0

    async def infer(self, request: InferRequest) -> Tensors:
        self.rpcs += 1
        try:
            return await super().infer(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def make_client(url: str, **options: object) -> tuple[SpeculativeSAM2Client, CountingTransport]:
    settings = Settings.read(url, 60.0, None, None, (None, None, None))
    transport = CountingTransport(settings.endpoint, settings.credentials)
    return SpeculativeSAM2Client(url, _transport=transport, **options), transport  # type: ignore[arg-type]


def counters(metrics_url: str) -> dict[str, float]:
    """The server's own counts: sam2's successes and failures, and the decoder's executions."""
    with urlopen(metrics_url, timeout=30) as response:
        text = response.read().decode()
    return {
        "succeeded": metric_values(text, "nv_inference_request_success", "sam2"),
        "failed": metric_values(text, "nv_inference_request_failure", "sam2"),
        "decodes": metric_values(text, "nv_inference_exec_count", "sam2_decoder"),
    }


def settled_counters(metrics_url: str) -> dict[str, float]:
    """The counts once they have stopped changing: cancelled work has ended."""
    before = counters(metrics_url)
    for _ in range(100):
        time.sleep(0.3)
        after = counters(metrics_url)
        if after == before:
            return after
        before = after
    raise AssertionError("the server's counters never came to rest")


def same(result: Segmentation, expected: Segmentation) -> bool:
    return np.array_equal(result.masks, expected.masks) and np.allclose(
        result.iou_predictions, expected.iou_predictions, atol=1e-4
    )


def burst_stress(url: str, metrics_url: str, seed: int = 0) -> BurstFigures:
    """Part 1; asserts that surviving results equal sequential ones."""
    image = data.astronaut()
    rng = random.Random(seed)
    moves = [
        [[[rng.randrange(512), rng.randrange(512)]] for _ in range(BURSTS * MOVES_PER_BURST)]
        for _ in range(SESSIONS)
    ]
    with SAM2TritonClient(url) as client:
        client.set_image(image)
        expected = [[client.predict(xy, [1]) for xy in session] for session in moves]
    gc.collect()
    threads_before, bytes_before = threading.active_count(), psutil.Process().memory_info().rss
    server_before = settled_counters(metrics_url)
    client, transport = make_client(url)
    client.set_image(image)
    transport.rpcs = 0
    completed = 0

    async def run_session(index: int) -> bool:
        nonlocal completed
        name, result, all_tasks = f"session {index}", None, []
        for burst in range(BURSTS):
            start = burst * MOVES_PER_BURST
            coords = moves[index][start : start + MOVES_PER_BURST]
            tasks = await queue_multiple_requests(client, coords, [[1]] * len(coords), name)
            all_tasks += tasks
            if burst < BURSTS - 1:
                await asyncio.sleep(rng.uniform(0.01, 0.2))
                client.cancel_session_requests(name)
            else:
                result = await wait_for_latest_result(tasks, client, name)
        await asyncio.wait([future for _, future in all_tasks])
        for (_, future), wanted in zip(all_tasks, expected[index], strict=True):
            if not future.cancelled():
                completed += 1
                assert same(future.result(), wanted), (
                    "a surviving result differs from the sequential one"
                )
        return result is not None and same(result, expected[index][-1])

    async def run_all() -> list[bool]:
        return list(await asyncio.gather(*(run_session(index) for index in range(SESSIONS))))

    start = time.perf_counter()
    last_positions = sum(asyncio.run(run_all()))
    seconds = time.perf_counter() - start
    statuses = [client.get_session_status(f"session {index}") for index in range(SESSIONS)]
    for index in range(SESSIONS):
        client.cleanup_session(f"session {index}")
    client.close()
    server_after = settled_counters(metrics_url)
    gc.collect()
    assert sum(status["completed"] for status in statuses) == completed
    assert all(status["pending"] == status["failed"] == 0 for status in statuses)
    return BurstFigures(
        moves=sum(map(len, moves)),
        completed=completed,
        cancelled=sum(status["cancelled"] for status in statuses),
        rpcs=transport.rpcs,
        rpcs_cancelled=transport.cancelled,
        server_succeeded=int(server_after["succeeded"] - server_before["succeeded"]),
        server_failed=int(server_after["failed"] - server_before["failed"]),
        decodes=int(server_after["decodes"] - server_before["decodes"]),
        last_positions=last_positions,
        seconds=seconds,
        grown_bytes=psutil.Process().memory_info().rss - bytes_before,
        grown_threads=threading.active_count() - threads_before,
    )


def mouse_run(
    url: str, metrics_url: str, *, latest_only: bool, moves: int = MOUSE_MOVES
) -> MouseFigures:
    """Part 2, one of its two ways: moves at 60 Hz; the naive way sends each one and waits for the last."""
    client, _ = make_client(
        url, latest_only=latest_only, max_in_flight=None if latest_only else moves
    )
    client.set_image(data.astronaut())
    client.predict_sync([[10, 10]], [1])
    before = settled_counters(metrics_url)
    path = [[[60 + 1.9 * index, 256 + 100 * np.sin(index / 20)]] for index in range(moves)]

    async def drag() -> tuple[float, Segmentation | None, int]:
        tasks = []
        start = time.perf_counter()
        for index, xy in enumerate(path):
            await asyncio.sleep(max(0.0, start + index / MOUSE_HZ - time.perf_counter()))
            tasks += await queue_multiple_requests(client, [xy], [[1]], "mouse")
        last_move = time.perf_counter()
        _, last = tasks[-1]
        result = await last
        seconds = time.perf_counter() - last_move
        await asyncio.wait([future for _, future in tasks])
        return seconds, result, sum(not future.cancelled() for _, future in tasks)

    seconds, result, masks_seen = asyncio.run(drag())
    client.close()
    decodes = int(settled_counters(metrics_url)["decodes"] - before["decodes"])
    with SAM2TritonClient(url) as blocking:
        blocking.set_image(data.astronaut())
        assert result is not None
        assert same(result, blocking.predict(path[-1], [1])), "the last position's mask is wrong"
    return MouseFigures(decodes, seconds, masks_seen)


def main(arguments: Sequence[str] | None = None) -> None:
    """Both parts, with their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--metrics-url", default="http://localhost:8002/metrics")
    parser.add_argument("--mouse-moves", type=int, default=MOUSE_MOVES)
    options = parser.parse_args(arguments)
    figures = burst_stress(options.url, options.metrics_url)
    print(figures.report())
    figures.check()
    naive = mouse_run(
        options.url, options.metrics_url, latest_only=False, moves=options.mouse_moves
    )
    latest = mouse_run(
        options.url, options.metrics_url, latest_only=True, moves=options.mouse_moves
    )
    for name, run in (("naive queue", naive), ("latest_only", latest)):
        print(
            f"{options.mouse_moves} moves at {MOUSE_HZ} Hz, {name}: {run.decodes} decodes, "
            f"{run.masks_seen} masks, last mask {run.last_mask_s * 1000:.0f} ms after the last move"
        )
    print(
        f"latest_only against naive: {latest.decodes / naive.decodes:.2f} of the decodes, "
        f"{latest.last_mask_s / naive.last_mask_s:.3f} of the wait"
    )
    assert latest.decodes <= naive.decodes


if __name__ == "__main__":
    main()
