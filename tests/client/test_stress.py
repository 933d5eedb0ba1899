"""`just stress` in the tests: the bursts as they are, the mouse in a shorter run, memory in a longer one."""

import asyncio
import gc
import random

import numpy as np
import psutil
import pytest
from triton_sam2 import SpeculativeSAM2Client, queue_multiple_requests

from tests.client.stress_bursts import burst_stress
from tests.client.stress_mouse import mouse_run

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_bursts_of_mouse_moves_with_cancellations(server):
    # The small model answers in milliseconds: now and then before any cancellation arrives.
    for seed in range(4):
        figures = burst_stress(server.grpc_url, server.metrics_url, seed)
        print(figures.report())
        figures.check()
        if figures.server_failed:
            break
    figures.check_server_was_told()


def test_latest_only_decodes_no_more_than_the_naive_queue(server):
    naive = mouse_run(server.grpc_url, server.metrics_url, latest_only=False, moves=60)
    latest = mouse_run(server.grpc_url, server.metrics_url, latest_only=True, moves=60)
    assert naive.masks_seen == 60
    assert latest.masks_seen <= 60
    assert latest.decodes <= naive.decodes


def test_answers_that_are_cancelled_on_arrival_leave_no_memory(server):
    """Masks of 2 MB, cancelled at random moments: gRPC's asyncio client lost over 100 MB in such a run."""
    rng = random.Random(0)
    moves = [[[10 * index, 700]] for index in range(4)]
    growth = []
    with SpeculativeSAM2Client(server.grpc_url) as client:
        client.set_image(np.zeros((1400, 1500, 3), np.uint8))

        async def bursts(count):
            for _ in range(count):
                tasks = await queue_multiple_requests(client, moves, [[1]] * len(moves), "s")
                await asyncio.sleep(rng.uniform(0.02, 0.12))
                client.cancel_session_requests("s")
            await asyncio.wait([future for _, future in tasks])

        for _ in range(4):
            asyncio.run(bursts(50))
            gc.collect()
            growth.append(psutil.Process().memory_info().rss / 1e6)
        status = client.get_session_status("s")
    print(f"resident memory after each round: {growth} MB, {status}")
    assert status["cancelled"] > 100
    assert status["completed"] > 20
    assert growth[-1] - growth[0] < 60
