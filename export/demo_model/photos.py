"""Real photographs, never trained on: `python -m export.demo_model.photos --output-dir ...`.

All come with the scikit-image package, so nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from skimage import data

from export.demo_model.coins import coin_masks
from export.demo_model.fields import ByteImage
from export.demo_model.predictors import Predictor
from export.demo_model.prompts import FOREGROUND
from export.demo_model.scoring import ScoredScene, scored_scene
from export.demo_model.server_predictor import open_predictor

_COLOURS = np.random.default_rng(0).integers(60, 256, (64, 3))


@dataclass(frozen=True)
class Photograph:
    """A picture and where to click in it, x and y in its pixels."""

    name: str
    image: ByteImage
    clicks: tuple[tuple[int, int], ...]


def as_rgb(image: ByteImage) -> ByteImage:
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def coins_scene() -> ScoredScene:
    """The photograph `coins` with its 24 outlines (`trace_coins.py` says how they were made)."""
    image = as_rgb(data.coins())
    masks = coin_masks((image.shape[0], image.shape[1]))
    return scored_scene(image, masks, np.random.default_rng(0))


def photographs() -> tuple[Photograph, ...]:
    """Clicks were placed by eye."""
    coins = coins_scene()
    clicks = tuple((int(x), int(y)) for x, y in coins.centre_clicks)
    galaxies = as_rgb(data.hubble_deep_field()[330:620, 380:640])
    return (
        Photograph("coins", coins.image, clicks),
        Photograph("cell", as_rgb(data.cell()), ((428, 375),)),
        Photograph("ihc", as_rgb(data.immunohistochemistry()), ((315, 400), (395, 210))),
        Photograph("galaxies", galaxies, ((105, 26), (40, 72), (131, 108), (103, 222), (120, 267))),
    )


def overlay(predictor: Predictor, photograph: Photograph, scale: int = 2) -> ByteImage:
    """The picture beside itself with each click's mask in a colour of its own, enlarged."""
    predictor.set_image(photograph.image)
    coords = np.array(photograph.clicks, np.float32)[:, None]
    labels = np.full((len(coords), 1), FOREGROUND, np.int32)
    prediction = predictor.predict(coords, labels, multimask_output=True)
    best = prediction.iou_predictions.argmax(1)
    height, width = photograph.image.shape[:2]
    size = (width * scale, height * scale)
    plain = cv2.resize(photograph.image, size, interpolation=cv2.INTER_CUBIC)
    painted = plain.copy()
    for index, (plane, click) in enumerate(zip(best, photograph.clicks, strict=True)):
        mask = cv2.resize(prediction.masks[index, plane], size, interpolation=cv2.INTER_NEAREST)
        colour = _COLOURS[index % len(_COLOURS)]
        painted[mask > 0] = (0.6 * painted[mask > 0] + 0.4 * colour).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(painted, contours, -1, colour.tolist(), 1, cv2.LINE_AA)
        centre = (click[0] * scale, click[1] * scale)
        cv2.circle(painted, centre, 3, (255, 0, 0), -1, cv2.LINE_AA)
    return np.concatenate([plain, painted], axis=1)


def main(
    output_dir: Annotated[Path, typer.Option(help="Where the overlays go, one PNG each.")],
    weights: Annotated[Path | None, typer.Option(help="Folder of weights.")] = None,
    url: Annotated[str | None, typer.Option(help="A running server instead of torch.")] = None,
) -> None:
    """Click on real photographs and draw what comes back."""
    output_dir.mkdir(parents=True, exist_ok=True)
    predictor = open_predictor(weights, url)
    for photograph in photographs():
        picture = overlay(predictor, photograph)
        cv2.imwrite(str(output_dir / f"{photograph.name}.png"), picture[..., ::-1])


if __name__ == "__main__":
    typer.run(main)
