"""The outlines of the coins in the photograph `coins` (made by `trace_coins.py`), as masks."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

OUTLINES_PATH = Path(__file__).parent / "photos_data" / "coins_outlines.json"
_SUPERSAMPLING = 8


def coin_masks(image_hw: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """Each coin's pixels [H, W]."""
    outlines = json.loads(OUTLINES_PATH.read_text(encoding="utf-8"))["outlines_xy"]
    return [rasterise(np.array(outline), image_hw) for outline in outlines]


def rasterise(outline_xy: NDArray[np.float64], image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies inside the outline; pixel indices name pixel centres."""
    # OpenCV's polygon filling includes the border: fill a finer grid and take the majority
    height, width = image_hw
    fine = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    points = (outline_xy + 0.5) * _SUPERSAMPLING - 0.5
    cv2.fillPoly(fine, [np.round(points * 16).astype(np.int32)], 255, shift=4)
    return np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) > 127)
