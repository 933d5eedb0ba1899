"""Short videos: a photograph seen through a window that wanders, turns and comes nearer."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.models.video.scenarios import HEIGHT, WIDTH
from tests.photographs import opened, photograph


def clip(
    frames: int, width: int = WIDTH, height: int = HEIGHT, name: str = "astronaut.png"
) -> list[bytes]:
    """JPEG files of the frames, upright."""
    pixels = np.asarray(opened(photograph(name)).convert("RGB"))
    centre = (pixels.shape[1] / 2, pixels.shape[0] / 2)
    files = []
    for number in range(frames):
        zoom = (0.8 + 0.01 * number) * width / 320
        turn = cv2.getRotationMatrix2D(centre, 2.0 * number, zoom)
        turn[:, 2] += np.array(
            [width / 2 - centre[0] + 4 * number, height / 2 - centre[1] - 2 * number]
        )
        frame = cv2.warpAffine(pixels, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=92)
        files.append(buffer.getvalue())
    return files


def write_clip(files: list[bytes], folder: Path) -> Path:
    """The frames as Meta's loader wants them: a folder of numbered JPEG files."""
    folder.mkdir(parents=True)
    for number, data in enumerate(files):
        (folder / f"{number:05}.jpg").write_bytes(data)
    return folder
