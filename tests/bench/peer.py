"""transformers' Sam2Model in this process beside a server with the same weights, on the same photograph.

What somebody does without a server: decode, resize, encode once, then prompts; masks at the image's size.
"""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from triton_sam2 import SAM2TritonClient

from export.checkpoint import Memory, random_checkpoint
from export.encoder_graph import PIXEL_MEAN, PIXEL_STD
from tests.photographs import encoded

CLIENTS = (1, 2, 4, 8)
OBJECTS = 8


class Peer:
    """The untrained tiny model that the benchmark's server serves, in PyTorch."""

    def __init__(self) -> None:
        self._model = random_checkpoint("tiny", 0, None, Memory(False, None)).model.eval()
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
        self._mean, self._std = mean, std

    @torch.inference_mode()
    def set_image(self, data: bytes) -> None:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        self._size = picture.size
        side = self._model.config.vision_config.image_size
        squashed = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
        pixels = torch.from_numpy(squashed.copy()).permute(2, 0, 1).float() / 255
        self._side = side
        self._features = self._model.get_image_embeddings(((pixels - self._mean) / self._std)[None])

    @torch.inference_mode()
    def click(self, points_xy: np.ndarray) -> np.ndarray:
        """[B, 2] in the photograph's pixels ► masks [B, H, W]."""
        width, height = self._size
        scaled = torch.from_numpy(points_xy / (width, height) * self._side).float()
        found = self._model(
            image_embeddings=self._features,
            input_points=scaled[None, :, None],
            input_labels=torch.ones(1, len(points_xy), 1, dtype=torch.int32),
            multimask_output=False,
        )
        planes = F.interpolate(found.pred_masks[0], (height, width), mode="bilinear")
        return (planes[:, 0] > 0).numpy()


def beside_the_peer(url: str, data: bytes, rounds: int, console: Console) -> None:
    """Cold call, click, several objects, and clicks of many clients at once: ratios first."""
    peer = Peer()
    width, height = Image.open(io.BytesIO(data)).size
    rng = np.random.default_rng(0)
    points = (rng.random((OBJECTS, 2)) * (width, height)).astype(np.float32)
    one, labels = points[:1, None], np.ones((1, 1), np.int32)
    table = Table("call", "times the peer's speed", "ours, ms", "the peer, ms")
    with SAM2TritonClient(url, timeout=600) as client:
        fresh = variants(data)

        def cold() -> None:
            client.segment(next(fresh), one, labels, formats=("rle",))

        def peer_cold() -> None:
            peer.set_image(next(fresh))
            peer.click(points[:1])

        def click() -> None:
            client.predict(one, labels, formats=("rle",))

        def objects() -> None:
            client.predict(points[:, None], np.ones((OBJECTS, 1), np.int32), formats=("rle",))

        client.set_image(data)
        peer.set_image(data)
        handle = client.image
        for name, ours, theirs, times in (
            ("first click on a new image", cold, peer_cold, max(2, rounds // 10)),
            ("next click", click, lambda: peer.click(points[:1]), rounds),
            (f"{OBJECTS} objects", objects, lambda: peer.click(points), max(2, rounds // 4)),
        ):
            if name == "next click":
                client.set_image(data)
            mine, other = in_turns(ours, theirs, times)
            table.add_row(name, f"{other / mine:.2f}", f"{mine:.0f}", f"{other:.0f}")

        def click_of_many() -> None:
            client.predict(one, labels, image=handle, formats=("rle",))

        for clients in CLIENTS:
            mine = rate(click_of_many, clients, rounds)
            other = rate(lambda: peer.click(points[:1]), clients, rounds)
            name = f"clicks/s, {clients} clients"
            table.add_row(name, f"{mine / other:.2f}", f"{mine:.1f} /s", f"{other:.1f} /s")
    table.title = "ours through gRPC, and transformers' Sam2Model in this process"
    console.print(table)


def variants(data: bytes) -> Iterator[bytes]:
    """The photograph with one pixel changed each time, so that none is in a cache."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for number in itertools.count(1):
        picture.putpixel((0, 0), (number & 255, number >> 8 & 255, 7))
        yield encoded(picture, "JPEG", quality=90)


def in_turns(
    first: Callable[[], object], second: Callable[[], object], times: int
) -> tuple[float, float]:
    """Median ms of both, one after the other each time."""
    elapsed: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for call, spent in zip((first, second), elapsed, strict=True):
            started = time.perf_counter()
            call()
            spent.append((time.perf_counter() - started) * 1e3)
    return float(np.median(elapsed[0])), float(np.median(elapsed[1]))


def rate(call: Callable[[], object], clients: int, calls: int) -> float:
    """Calls a second of several clients together."""
    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        for done in [pool.submit(call) for _ in range(calls)]:
            done.result()
        return calls / (time.perf_counter() - started)
