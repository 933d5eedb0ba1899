"""Part 1 of the stress test: bursts of moves from several sessions, most of them cancelled."""

import asyncio
import gc
import random
import threading
import time
from dataclasses import dataclass

import psutil
from skimage import data
from triton_sam2 import SAM2TritonClient, queue_multiple_requests, wait_for_latest_result

from tests.client.stress_counts import make_client, same, settled_counters

SESSIONS = 8
BURSTS = 9
MOVES_PER_BURST = 7  # 8 × 9 × 7 = 504 moves


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

    def check_server_was_told(self) -> None:
        """Assert that the server gave up requests; a fast model may have answered all of them before."""
        assert self.server_failed > 0, f"no cancellation reached the server: {self}"

    def check(self) -> None:
        """Assert what part 1 promises."""
        assert self.completed + self.cancelled == self.moves, self
        assert self.last_positions == SESSIONS, self
        assert self.cancelled > self.moves / 4, f"the bursts were too slow to cancel much: {self}"
        assert self.rpcs < self.moves, f"cancelled moves were sent all the same: {self}"
        # Probes of the server's own may fall into the run.
        probes = 3 + self.seconds / 10
        assert self.decodes < self.rpcs + probes, (
            f"the server decoded more than it was sent: {self}"
        )
        assert self.server_succeeded + self.server_failed >= self.completed, self
        assert self.grown_threads <= 0, self
        # To keep every result would take 132 MB.
        assert self.grown_bytes < 80e6, self


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
        name, result, all_tasks, longest_pause_s = f"session {index}", None, [], 0.2
        for burst in range(BURSTS):
            start = burst * MOVES_PER_BURST
            coords = moves[index][start : start + MOVES_PER_BURST]
            tasks = await queue_multiple_requests(client, coords, [[1]] * len(coords), name)
            all_tasks += tasks
            if burst < BURSTS - 1:
                await asyncio.sleep(rng.uniform(0, longest_pause_s))
                cancelled = client.cancel_session_requests(name)
                # Answers arrive in milliseconds or in seconds: cancel where they do on this machine.
                longest_pause_s *= 0.5 if cancelled == 0 else 1.25 if cancelled == len(tasks) else 1
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
