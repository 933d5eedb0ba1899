"""A short clip, always the same: the photograph's coins glide over its velvet, one below another."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from export.demo_model.coins import coin_masks

WIDTH, HEIGHT, FRAMES = 320, 240, 24
_SUPERSAMPLING = 4  # positions are fractions of a pixel


@dataclass(frozen=True)
class Journey:
    """Where a coin (by its number in the outlines) is at first and in the end, x, y; later ones lie above."""

    coin: int
    start_xy: tuple[float, float]
    end_xy: tuple[float, float]


JOURNEYS = (
    Journey(coin=2, start_xy=(60, 120), end_xy=(262, 128)),
    Journey(coin=9, start_xy=(250, 60), end_xy=(96, 190)),
    Journey(coin=16, start_xy=(50, 205), end_xy=(120, 40)),
)


@dataclass(frozen=True)
class Clip:
    """Frames uint8 [T, H, W, 3], and what is visible of each coin, bool [T, K, H, W]."""

    frames: NDArray[np.uint8]
    visible: NDArray[np.bool_]


def moving_coins(photograph: Path) -> Clip:
    """The clip, from the coins' photograph."""
    with Image.open(photograph) as file:
        picture = file.convert("L")
    pixels = np.asarray(picture)
    masks = coin_masks((picture.height, picture.width))
    # The velvet, as light as the photograph has it from left to right, without coins.
    background = picture.filter(ImageFilter.GaussianBlur(60)).resize((WIDTH, HEIGHT))
    grain = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH))
    velvet = np.asarray(background, np.float32) * 0.75 + grain
    frames, visible = [], []
    for number in range(FRAMES):
        part = number / (FRAMES - 1)
        frame, seen = velvet.copy(), np.zeros((len(JOURNEYS), HEIGHT, WIDTH), bool)
        for row, journey in enumerate(JOURNEYS):
            x, y = (
                start + part * (end - start)
                for start, end in zip(journey.start_xy, journey.end_xy, strict=True)
            )
            cover, coin = _placed(pixels, masks[journey.coin], x, y)
            frame = frame * (1 - cover) + coin * cover
            seen[:row] &= cover < 0.5
            seen[row] = cover >= 0.5
        frames.append(np.repeat(frame.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2))
        visible.append(seen)
    return Clip(np.stack(frames), np.stack(visible))


def _placed(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], x: float, y: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A coin with its centre at x, y: how much of each pixel it covers, and its grey."""
    rows, columns = np.nonzero(mask)
    left, top = columns.min(), rows.min()
    right, bottom = columns.max() + 1, rows.max() + 1
    at_x, at_y = x - (right - left) / 2, y - (bottom - top) / 2
    # Output pixel ► input pixel: shifted by a fraction, which bilinear interpolation evens out.
    shift = (1, 0, -at_x, 0, 1, -at_y)
    placed = [
        Image.fromarray(layer[top:bottom, left:right].astype(np.float32)).transform(
            (WIDTH, HEIGHT), Image.Transform.AFFINE, shift, Image.Resampling.BILINEAR
        )
        for layer in (mask, pixels)
    ]
    cover, coin = (np.asarray(layer, np.float32) for layer in placed)
    return cover, coin
