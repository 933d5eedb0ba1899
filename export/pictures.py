"""Pictures that masks are compared on, with objects to ask for: all in this repository, or made by it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.demo_model.coins import coin_masks
from export.demo_model.scoring import ScoredScene, heldout_scenes, scored_scene

# Coins of Pompeii; Brooklyn Museum, no known copyright restrictions.
COINS = Path(__file__).resolve().parent.parent / "client/examples/images/coins.png"
SCENES = 12


class Picture(NamedTuple):
    """One image and a click and a box for each of B objects, in its pixels."""

    name: str
    image: NDArray[np.uint8]  # [H, W, 3]
    clicks_xy: NDArray[np.float32]  # [B, 2]
    boxes_xyxy: NDArray[np.float32]  # [B, 4]


def compared_pictures(scenes: int = SCENES) -> Iterator[Picture]:
    """Scenes that the small model has never seen, and a photograph."""
    for index, scene in enumerate(heldout_scenes(scenes)):
        yield _picture(f"scene {index}", scene)
    image = np.asarray(Image.open(COINS).convert("RGB"))
    masks = coin_masks((image.shape[0], image.shape[1]))
    yield _picture("coins", scored_scene(image, masks, np.random.default_rng(0)))


def _picture(name: str, scene: ScoredScene) -> Picture:
    return Picture(name, scene.image, scene.centre_clicks, scene.boxes)
