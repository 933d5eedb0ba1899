"""The clip of the video demo: the same every time, and what it says of the coins is true of its pixels."""

import numpy as np
from demo.moving_coins import FRAMES, HEIGHT, JOURNEYS, WIDTH, moving_coins

from tests.running_server import ROOT

PHOTOGRAPH = ROOT / "client/examples/images/coins.png"


def test_it_is_the_same_every_time_and_its_coins_are_where_it_says():
    clip, again = moving_coins(PHOTOGRAPH), moving_coins(PHOTOGRAPH)
    assert np.array_equal(clip.frames, again.frames)
    assert clip.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert clip.visible.shape == (FRAMES, len(JOURNEYS), HEIGHT, WIDTH)
    assert (clip.visible.sum(axis=1) <= 1).all()
    for row, journey in enumerate(JOURNEYS):
        for number, (x, y) in ((0, journey.start_xy), (-1, journey.end_xy)):
            rows, columns = np.nonzero(clip.visible[number, row])
            assert abs(columns.mean() - x) < 3
            assert abs(rows.mean() - y) < 3
    coins, velvet = clip.visible.any(axis=1), ~clip.visible.any(axis=1)
    grey = clip.frames[..., 0]
    assert grey[coins].mean() > grey[velvet].mean() + 40
    # One passes below another: less of it is to be seen then.
    areas = clip.visible.sum(axis=(2, 3))
    assert (areas.min(axis=0) < 0.8 * areas[0]).any()
