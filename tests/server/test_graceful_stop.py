"""SIGTERM with new images in flight: what was taken on finishes or is UNAVAILABLE, as are new calls.

Statuses only. `SAM2_STOP_ROUNDS=10` for more rounds.
"""

import io
import json
import os
import signal
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import RunningServer

pytestmark = [pytest.mark.server, pytest.mark.slow]

IMAGES = 8
ROUNDS = int(os.environ.get("SAM2_STOP_ROUNDS", "2"))


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (300, 400, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_nothing_but_answers_and_unavailable(
    demo_repository: Path, tmp_path: Path, round_number: int
) -> None:
    outcomes: Counter[str] = Counter()
    later: Counter[str] = Counter()
    asked, ended = threading.Barrier(IMAGES + 1), threading.Event()
    images = [picture(1000 * round_number + n) for n in range(IMAGES)]

    def ask(client: RawClient, image: bytes, counts: Counter[str]) -> None:
        try:
            client.infer(image=bytes_tensor(image), **click(9, 9))
            counts["OK"] += 1
        except RefusedError as error:
            counts[str(error.status)] += 1

    with RunningServer(demo_repository, tmp_path / "run", "--no-probe") as server:
        launcher = json.loads((server.state_dir / "server.json").read_text())["launcher"]["pid"]
        clients = [RawClient(server, "grpc") for _ in range(IMAGES)]
        for client in clients:  # connected, and the models warm
            ask(client, picture(0), Counter())

        def in_flight(client: RawClient, image: bytes) -> None:
            asked.wait(60)
            ask(client, image, outcomes)

        def go_on(client: RawClient) -> None:
            while not ended.is_set():
                ask(client, images[0], later)
                ended.wait(0.02)

        first = [
            threading.Thread(target=in_flight, args=pair)
            for pair in zip(clients, images, strict=True)
        ]
        others = [
            threading.Thread(target=go_on, args=(RawClient(server, "grpc"),)) for _ in range(2)
        ]
        for thread in first:
            thread.start()
        asked.wait(60)
        os.kill(launcher, signal.SIGTERM)
        for thread in others:
            thread.start()
    for thread in first:
        thread.join(120)
    ended.set()
    for thread in [*first, *others]:
        thread.join(120)
        assert not thread.is_alive()
    assert sum(outcomes.values()) == IMAGES
    assert set(outcomes) <= {"OK", "UNAVAILABLE"}, outcomes
    assert set(later) <= {"OK", "UNAVAILABLE"}, later
    assert later["UNAVAILABLE"], "the server was still there"
