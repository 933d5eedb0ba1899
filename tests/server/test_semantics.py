"""A click on a coin gives that coin, wherever it lies and however its picture is stored.

The expected place is an outline traced on the photograph (its file says how), moved as the picture is moved.
A swapped x and y, a forgotten rescale or an ignored orientation lands on another coin or on none.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageDraw
from triton_sam2 import SAM2TritonClient

from tests.masks import overlap
from tests.photographs import encoded, opened, photograph
from tests.running_server import ROOT

pytestmark = pytest.mark.server

COINS = opened(photograph("coins.png"))
OUTLINES_XY = [
    np.array(outline, np.float64)
    for outline in json.loads(
        (ROOT / "export/demo_model/photos_data/coins_outlines.json").read_text()
    )["outlines_xy"]
]
# Clear coins of all four rows.
CHOSEN = (1, 5, 9, 13, 15, 19)
LEAST_OVERLAP = 0.8
PADDING_LTRB = (120, 40, 30, 90)


def padded(picture: Image.Image) -> Image.Image:
    """The picture on a larger canvas of its own background."""
    left, top, right, bottom = PADDING_LTRB
    size = (picture.width + left + right, picture.height + top + bottom)
    canvas = Image.new("L", size, int(np.median(np.asarray(picture))))
    canvas.paste(picture, (left, top))
    return canvas


def noted(picture: Image.Image, orientation: int) -> bytes:
    """The picture's pixels as a camera stores them that notes an orientation instead of turning them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, "JPEG", quality=95, exif=exif)


def png(picture: Image.Image) -> bytes:
    return encoded(picture, "PNG")


WIDTH, HEIGHT = COINS.size


@dataclass(frozen=True)
class Move:
    """What is done to the picture, and where a point of it is then."""

    file: Callable[[], bytes]
    moved_xy: Callable[[np.ndarray], np.ndarray]
    size: tuple[int, int]


def scaled(factor_x: float, factor_y: float) -> Move:
    size = (round(WIDTH * factor_x), round(HEIGHT * factor_y))
    factors = np.array([size[0] / WIDTH, size[1] / HEIGHT])
    return Move(
        lambda: png(COINS.resize(size, Image.Resampling.BICUBIC)), lambda xy: xy * factors, size
    )


SAME = (WIDTH, HEIGHT)
TURNED = (HEIGHT, WIDTH)
MOVES = {
    "as it is": Move(lambda: photograph("coins.png"), lambda xy: xy, SAME),
    "as jpeg": Move(lambda: encoded(COINS, "JPEG", quality=90), lambda xy: xy, SAME),
    "as webp": Move(lambda: encoded(COINS.convert("RGB"), "WEBP", quality=90), lambda xy: xy, SAME),
    "twice as large": scaled(2, 2),
    "smaller": scaled(0.7, 0.7),
    "wider": scaled(1.3, 1),
    "taller": scaled(1, 1.3),
    "on a larger canvas": Move(
        lambda: png(padded(COINS)),
        lambda xy: xy + PADDING_LTRB[:2],
        (WIDTH + PADDING_LTRB[0] + PADDING_LTRB[2], HEIGHT + PADDING_LTRB[1] + PADDING_LTRB[3]),
    ),
    "turned right by EXIF": Move(
        lambda: noted(COINS, 6), lambda xy: np.stack([HEIGHT - xy[:, 1], xy[:, 0]], 1), TURNED
    ),
    "turned left by EXIF": Move(
        lambda: noted(COINS, 8), lambda xy: np.stack([xy[:, 1], WIDTH - xy[:, 0]], 1), TURNED
    ),
    "upside down by EXIF": Move(lambda: noted(COINS, 3), lambda xy: [WIDTH, HEIGHT] - xy, SAME),
    "mirrored by EXIF": Move(
        lambda: noted(COINS, 2), lambda xy: np.stack([WIDTH - xy[:, 0], xy[:, 1]], 1), SAME
    ),
}


def filled(outline_xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The area within an outline, bool [H, W]."""
    canvas = Image.new("1", size)
    ImageDraw.Draw(canvas).polygon([tuple(xy) for xy in outline_xy], fill=1)
    return np.asarray(canvas)


@pytest.fixture(scope="module")
def client(server):
    with SAM2TritonClient(server.grpc_url) as client:
        yield client


@pytest.mark.parametrize("name", MOVES)
def test_a_click_gives_the_coin_under_it_wherever_it_went(client, name):
    move = MOVES[name]
    outlines = [move.moved_xy(OUTLINES_XY[i]) for i in CHOSEN]
    centres = [[outline.mean(axis=0).tolist()] for outline in outlines]
    client.set_image(move.file())
    result = client.predict(centres, [[1]] * len(centres), multimask_output=True).best()
    assert result.original_hw == move.size[::-1]
    overlaps = [
        overlap(mask[0].astype(bool), filled(outline, move.size))
        for mask, outline in zip(result.masks, outlines, strict=True)
    ]
    assert min(overlaps) > LEAST_OVERLAP, [round(value, 2) for value in overlaps]


@pytest.mark.parametrize("name", MOVES)
def test_a_box_gives_the_coin_in_it_wherever_it_went(client, name):
    move = MOVES[name]
    outlines = [move.moved_xy(OUTLINES_XY[i]) for i in CHOSEN]
    boxes = [[*outline.min(axis=0), *outline.max(axis=0)] for outline in outlines]
    result = client.segment(move.file(), box=boxes)
    overlaps = [
        overlap(mask[0].astype(bool), filled(outline, move.size))
        for mask, outline in zip(result.masks, outlines, strict=True)
    ]
    assert min(overlaps) > LEAST_OVERLAP, [round(value, 2) for value in overlaps]


def test_objects_in_one_call_are_those_of_one_call_each(client):
    client.set_image(photograph("coins.png"))
    centres = [[OUTLINES_XY[i].mean(axis=0).tolist()] for i in CHOSEN]
    together = client.predict(centres, [[1]] * len(centres), low_res_masks=True)
    for index, centre in enumerate(centres):
        alone = client.predict([centre], [[1]], low_res_masks=True)
        difference = np.abs(alone.low_res_masks[0] - together.low_res_masks[index]).max()
        # float32 in another order of summation
        assert difference < 1e-3
        assert overlap(alone.masks[0, 0] > 0, together.masks[index, 0] > 0) > 0.999


def test_a_correction_moves_the_mask_the_way_it_points(client):
    """A click on one coin, then one on its neighbour as well: both; then the neighbour as background: one."""
    one, other = (filled(OUTLINES_XY[i], SAME) for i in (13, 14))
    xy_one, xy_other = (OUTLINES_XY[i].mean(axis=0).tolist() for i in (13, 14))
    client.set_image(photograph("coins.png"))
    first = client.predict([xy_one], [1], low_res_masks=True)
    without = client.predict([xy_one, xy_other], [1, 0], mask_input=first.low_res_masks[0])
    assert overlap(without.masks[0, 0] > 0, one) > LEAST_OVERLAP
    assert (without.masks[0, 0].astype(bool) & other).sum() < 0.05 * other.sum()
