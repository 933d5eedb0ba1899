"""How the coins' ground truth was made: `python -m export.demo_model.trace_coins`.

scikit-image's photograph `coins` comes without outlines. The 24 centres and radii below were read
off the enlarged picture by eye. Around each such ellipse the steepest fall from bright to dark is
followed, by the cheapest closed path through a polar picture of the rim: no threshold, and no
model. All 24 outlines were then looked at in an overlay enlarged six times; they follow the rims,
chips and corners included, to within about a pixel.
"""

from __future__ import annotations

import json

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from export.demo_model.coins import OUTLINES_PATH
from export.demo_model.fields import ByteImage, FloatImage, Points, as_floats

# centre x, centre y, radius x, radius y: row by row, left to right
SEEDS = (
    (44.5, 54.8, 21.8, 19.6),
    (100.5, 56.3, 19.4, 17.2),
    (155.5, 50.7, 23.2, 22.6),
    (215.8, 51.4, 23.8, 21.6),
    (275.9, 52.9, 20.7, 19.4),
    (334.7, 44.0, 29.3, 27.8),
    (45.8, 124.4, 20.8, 20.6),
    (103.0, 126.0, 19.0, 18.7),
    (153.7, 127.2, 19.7, 17.5),
    (205.8, 124.7, 20.2, 19.8),
    (270.8, 119.5, 25.1, 24.5),
    (336.6, 125.1, 19.0, 19.8),
    (44.1, 197.4, 18.4, 19.8),
    (102.4, 195.9, 21.8, 21.2),
    (154.8, 198.0, 19.4, 19.0),
    (212.7, 193.3, 23.9, 23.5),
    (273.7, 194.3, 22.9, 22.0),
    (347.2, 186.8, 32.2, 31.0),
    (46.4, 260.3, 28.0, 27.8),
    (114.0, 265.7, 21.4, 21.4),
    (172.4, 261.9, 28.6, 25.7),
    (244.3, 264.0, 24.9, 24.0),
    (300.9, 263.8, 25.4, 24.8),
    (358.0, 268.2, 22.4, 20.8),
)
ANGLES = 120
_SHARES = np.linspace(0.84, 1.16, 65)  # of the seed's radius
_STEEPEST_TURN = 4  # shares by which the path may change from one angle to the next


def _closed_path(cost: FloatImage) -> NDArray[np.int64]:
    """Column per row of the cheapest path that returns to where it began; `cost` [A, R]."""
    rows, columns = cost.shape
    best_total, best_path = np.inf, np.zeros(rows, np.int64)
    for start in range(columns):
        total = np.full(columns, np.inf)
        total[start] = cost[0, start]
        came_from = np.zeros((rows, columns), np.int64)
        for row in range(1, rows):
            padded = np.pad(total, _STEEPEST_TURN, constant_values=np.inf)
            moves = np.stack([padded[i : i + columns] for i in range(2 * _STEEPEST_TURN + 1)])
            moves += 0.04 * np.abs(np.arange(-_STEEPEST_TURN, _STEEPEST_TURN + 1))[:, None]
            choice = moves.argmin(0)
            came_from[row] = np.arange(columns) + choice - _STEEPEST_TURN
            total = moves.min(0) + cost[row]
        near = slice(max(0, start - _STEEPEST_TURN), start + _STEEPEST_TURN + 1)
        end = near.start + int(total[near].argmin())
        if total[end] < best_total:
            best_total, path = total[end], [end]
            for row in range(rows - 1, 0, -1):
                path.append(int(came_from[row, path[-1]]))
            best_path = np.array(path[::-1])
    return best_path


def trace(image: ByteImage, coin: int) -> Points:
    """The outline of one coin, [120, 2] as x, y in pixels of the photograph."""
    centre_x, centre_y, radius_x, radius_y = SEEDS[coin]
    angles = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    x = centre_x + radius_x * np.cos(angles)[:, None] * _SHARES
    y = centre_y + radius_y * np.sin(angles)[:, None] * _SHARES
    smooth = cv2.GaussianBlur(as_floats(image), (0, 0), 0.8)
    polar = cv2.remap(smooth, as_floats(x), as_floats(y), cv2.INTER_CUBIC)
    reach = 3  # compare the mean of three samples inside with three outside
    inner = np.stack([np.roll(polar, 1 + i, 1) for i in range(reach)]).mean(0)
    outer = np.stack([np.roll(polar, -1 - i, 1) for i in range(reach)]).mean(0)
    fall = np.clip(inner - outer, -10, 60) / 20
    fall[:, : reach + 1] = fall[:, -reach - 1 :] = -1
    # a mild pull to the seed, so that relief inside the coin does not win by a little
    cost = -fall + 0.15 * np.abs(_SHARES - 1) / 0.1
    shares = _SHARES[_closed_path(as_floats(cost))]
    shares = np.convolve(np.pad(shares, 1, mode="wrap"), (0.25, 0.5, 0.25), mode="valid")
    outline = np.stack(
        [
            centre_x + radius_x * shares * np.cos(angles),
            centre_y + radius_y * shares * np.sin(angles),
        ],
        axis=1,
    )
    return np.asarray(outline.round(2))


def main() -> None:
    image = data.coins()
    outlines = [trace(image, coin).tolist() for coin in range(len(SEEDS))]
    document = {
        "image": "skimage.data.coins",
        "image_hw": list(image.shape),
        "made_by": "export/demo_model/trace_coins.py, then checked by eye",
        "outlines_xy": outlines,
    }
    text = json.dumps(document).replace("]], [[", "]],\n[[")
    OUTLINES_PATH.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
