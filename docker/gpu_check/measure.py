"""Masks of a server, against those of another one, and how fast they come."""

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from triton_sam2 import SAM2TritonClient

# FP16 moves logits by hundredths, which flips pixels on a mask's outline and nowhere else: on objects of some
# hundred pixels that is a percent or two. A wrong mask is another object, or none.
LOWEST_MASK_IOU = 0.95
LARGEST_SCORE_DIFFERENCE = 0.05
CLIENTS = 8


@dataclass(frozen=True)
class Prompt:
    """Points or boxes on one image, in its pixels."""

    name: str
    points_xy: list[list[float]] | None = None
    labels: list[int] | None = None
    box_xyxy: list[float] | None = None


@dataclass(frozen=True)
class Answer:
    masks: NDArray[np.bool_]  # [3, H, W]
    scores: NDArray[np.float32]  # [3]


@dataclass(frozen=True)
class Speed:
    """Milliseconds and rates of one server."""

    cold_ms: float
    click_ms: float
    click_95_ms: float
    clicks_per_second: float
    images_per_second: float


def prompts_for(image: Path) -> list[Prompt]:
    """A grid of clicks, a refining click and boxes, for any image."""
    with Image.open(image) as opened:
        width, height = opened.size
    grid = [(x, y) for y in (0.3, 0.65) for x in (0.28, 0.5, 0.8)]
    prompts = [Prompt(f"click {x:.2f} {y:.2f}", [[x * width, y * height]], [1]) for x, y in grid]
    prompts.append(
        Prompt("two clicks", [[0.28 * width, 0.65 * height], [0.1 * width, 0.1 * height]], [1, 0])
    )
    prompts.append(Prompt("box", box_xyxy=[0.2 * width, 0.2 * height, 0.7 * width, 0.7 * height]))
    return prompts


def answers(url: str, images: list[Path]) -> dict[str, Answer]:
    """Three candidate masks and scores for every image and prompt."""
    found = {}
    with SAM2TritonClient(url, timeout=300) as client:
        for image in images:
            client.set_image(str(image))
            for prompt in prompts_for(image):
                masks, scores = client.predict(
                    prompt.points_xy, prompt.labels, box=prompt.box_xyxy, multimask_output=True
                )
                found[f"{image.name}: {prompt.name}"] = Answer(masks[0] > 0, scores[0])
    return found


def differences(
    reference: dict[str, Answer], found: dict[str, Answer]
) -> list[tuple[str, float, float]]:
    """Name, worst mask IoU and largest score difference of each prompt."""
    rows = []
    for name, expected in reference.items():
        got = found[name]
        ious = [mask_iou(a, b) for a, b in zip(expected.masks, got.masks, strict=True)]
        rows.append((name, min(ious), float(np.abs(expected.scores - got.scores).max())))
    return rows


def wrong_masks(rows: list[tuple[str, float, float]]) -> list[str]:
    """What is wrong, in words; empty if every mask is right. NaN is never right."""
    return [
        f"{name}: mask IoU {iou:.3f} with FP32 (at least {LOWEST_MASK_IOU}), scores differ by "
        f"{difference:.3f} (at most {LARGEST_SCORE_DIFFERENCE})"
        for name, iou, difference in rows
        if not (iou >= LOWEST_MASK_IOU and difference <= LARGEST_SCORE_DIFFERENCE)
    ]


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = np.logical_or(a, b).sum()
    # Two empty masks are equal. Outlines of a handful of pixels say nothing.
    return 1.0 if union < 20 else float(np.logical_and(a, b).sum() / union)


def measure(url: str, image: Path, seconds: float) -> Speed:
    """Latencies of one client alone, then rates of several."""
    variants = _Variants(image)
    with SAM2TritonClient(url, timeout=300) as client:

        def cold() -> None:
            client.segment(next(variants), [[50, 50]], [1])

        def click() -> None:
            client.predict([[50, 50]], [1])

        client.set_image(str(image))
        click()
        cold_ms = [_timed(cold) for _ in range(10)]
        client.set_image(str(image))
        click_ms = [_timed(click) for _ in range(50)]
        handle = client.image

        def click_of_many() -> None:
            client.predict([[50, 50]], [1], image=handle)

        return Speed(
            cold_ms=float(np.median(cold_ms)),
            click_ms=float(np.median(click_ms)),
            click_95_ms=float(np.percentile(click_ms, 95)),
            clicks_per_second=_rate(click_of_many, seconds),
            images_per_second=_rate(cold, seconds),
        )


class _Variants:
    """Images that differ in one pixel, so that none is in the cache; safe among threads."""

    def __init__(self, image: Path) -> None:
        with Image.open(image) as opened:
            self._picture = opened.convert("RGB")
        self._number = iter(range(1 << 24))

    def __next__(self) -> bytes:
        number = next(self._number)
        picture = self._picture.copy()
        picture.putpixel((0, 0), (number & 255, number >> 8 & 255, number >> 16 & 255))
        file = io.BytesIO()
        picture.save(file, "BMP")
        return file.getvalue()


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def _rate(call: Callable[[], None], seconds: float) -> float:
    """Calls a second of several clients together."""
    end = time.monotonic() + seconds

    def work(_: int) -> int:
        calls = 0
        while time.monotonic() < end:
            call()
            calls += 1
        return calls

    started = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        total = sum(pool.map(work, range(CLIENTS)))
    return total / (time.monotonic() - started)
