"""Evaluation: IoU, the choice of masks, baselines and the coins' ground truth."""

from dataclasses import dataclass

import numpy as np
import pytest

from export.demo_model.baselines import box_rectangle, flood_fill, grab_cut, otsu_component
from export.demo_model.coins import rasterise
from export.demo_model.evaluate import Scores, report, with_best_flood_fill
from export.demo_model.photos import coins_scene
from export.demo_model.prompts import centre_click
from export.demo_model.scoring import (
    LEAST_SCORED_AREA,
    heldout_scenes,
    mask_iou,
    score_scene,
    scored_scene,
)


@pytest.mark.parametrize(
    ("predicted", "truth", "iou"),
    [
        ([[1, 1], [0, 0]], [[1, 1], [0, 0]], 1.0),
        ([[1, 1], [0, 0]], [[0, 0], [1, 1]], 0.0),
        ([[1, 1], [0, 0]], [[1, 0], [1, 0]], 1 / 3),
        ([[0, 0], [0, 0]], [[1, 0], [0, 0]], 0.0),
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 1.0),
    ],
)
def test_iou(predicted, truth, iou):
    assert mask_iou(np.array(predicted), np.array(truth)) == pytest.approx(iou)


def test_iou_refuses_masks_of_different_shapes():
    with pytest.raises(ValueError, match=r"expected shape \(2, 3\), got \(3, 2\)"):
        mask_iou(np.zeros((3, 2)), np.zeros((2, 3)))


def disc_image(side=64):
    y, x = np.mgrid[0:side, 0:side]
    mask = (x - 40) ** 2 + (y - 24) ** 2 < 144
    image = np.full((side, side, 3), 60, np.uint8)
    image[mask] = (200, 180, 90)
    return image, mask


def test_baselines_find_a_plain_disc():
    image, mask = disc_image()
    click = tuple(int(v) for v in centre_click(mask))
    box = np.array([29, 13, 51, 35], np.float32)
    # smoothing blurs the rim by about a pixel of a radius of 12
    assert mask_iou(flood_fill(image, click, 50), mask) > 0.85
    assert mask_iou(otsu_component(image, click), mask) > 0.85
    assert mask_iou(grab_cut(image, box), mask) > 0.95
    assert mask_iou(grab_cut(image, box, around=0.5), mask) > 0.95
    assert mask_iou(box_rectangle(image, box), mask) == pytest.approx(np.pi / 4, abs=0.06)


@dataclass
class Answer:
    masks: np.ndarray
    iou_predictions: np.ndarray
    low_res_masks: np.ndarray


class Oracle:
    """Knows the truth; its best plane is the one it says is best, the others are empty."""

    def __init__(self, scene):
        self.scene, self.calls = scene, []

    def set_image(self, image, /):
        self.calls.append(("set_image", image.shape))

    def predict(
        self,
        point_coords=None,
        point_labels=None,
        *,
        box=None,
        mask_input=None,
        multimask_output=False,
    ):
        self.calls.append((np.shape(point_coords), np.shape(box), np.shape(mask_input)))
        planes = 3 if multimask_output else 1
        shape = (len(self.scene.masks), planes, *self.scene.image.shape[:2])
        masks = np.zeros(shape, np.uint8)
        masks[:, planes // 2] = self.scene.masks
        iou = np.full(shape[:2], 0.1, np.float32)
        iou[:, planes // 2] = 0.9
        return Answer(masks, iou, np.zeros((*shape[:2], 4, 4), np.float32))


def test_scoring_takes_the_plane_with_the_highest_predicted_iou():
    image, mask = disc_image()
    scene = scored_scene(image, [mask, mask], np.random.default_rng(0))
    oracle = Oracle(scene)
    scores = score_scene(oracle, scene)
    assert scores == {
        name: [1.0, 1.0] for name in ("centre click", "random click", "box", "corrected")
    }
    assert oracle.calls == [
        ("set_image", (64, 64, 3)),
        ((2, 1, 2), (), ()),
        ((2, 1, 2), (), ()),
        ((), (2, 4), ()),
        ((2, 2, 2), (), (2, 1, 4, 4)),
    ]


def test_heldout_scenes_repeat_and_leave_small_objects_out():
    first, again = (list(heldout_scenes(3, seed=9, size=96)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.random_clicks, other.random_clicks)
        assert (one.masks.mean((1, 2)) >= LEAST_SCORED_AREA).all()
        for mask, (x, y) in zip(one.masks, one.random_clicks, strict=True):
            assert mask[int(y), int(x)]


def test_the_report_has_a_row_per_method_and_the_best_flood_fill_only():
    ious = {
        "centre click": [0.9, 0.7],
        "flood fill ±6": [0.1, 0.2],
        "flood fill ±24": [0.5, 0.4],
    }
    scores = with_best_flood_fill(Scores([0.005, 0.1], ious))
    assert list(scores.ious) == ["centre click", "flood fill ±24"]
    assert scores.mean("centre click") == pytest.approx(0.8)
    assert scores.mean("centre click", 0.04, 1.0) == 0.7
    table = report(scores, scores)
    assert table.row_count == 2


def test_rasterised_pixels_have_their_centre_inside():
    square = np.array([[1.5, 0.5], [4.5, 0.5], [4.5, 2.5], [1.5, 2.5]])
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(rasterise(square, (4, 6)), expected)


def test_the_coins_are_24_separate_bright_discs():
    scene = coins_scene()
    assert scene.masks.shape == (24, 303, 384)
    assert scene.masks.sum(0).max() == 1
    grey = scene.image[..., 0].astype(float)
    for mask in scene.masks:
        x, y = np.nonzero(mask.any(0))[0], np.nonzero(mask.any(1))[0]
        box_area = (x[-1] - x[0] + 1) * (y[-1] - y[0] + 1)
        # as round as coins are: one is chipped, one has two tabs
        assert mask.sum() / box_area == pytest.approx(np.pi / 4, abs=0.08)
        ring = np.zeros_like(mask)
        ring[max(y[0] - 3, 0) : y[-1] + 4, max(x[0] - 3, 0) : x[-1] + 4] = True
        assert grey[mask].mean() > grey[ring & ~mask].mean() + 15
