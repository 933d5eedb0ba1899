"""Part 2 of the stress test: a mouse dragged at 60 Hz."""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from skimage import data
from triton_sam2 import SAM2TritonClient, Segmentation, queue_multiple_requests

from tests.client.stress_counts import make_client, same, settled_counters

MOUSE_HZ = 60
MOUSE_MOVES = 200


@dataclass(frozen=True)
class MouseFigures:
    """One run of part 2."""

    decodes: int
    last_mask_s: float
    masks_seen: int


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
