"""Masks in the forms that tools draw."""

import json

import cv2
import numpy as np
import pytest
from front.refusals import Refusal
from front.tools import cvat, label_studio, qupath, roboflow, x_anylabeling
from front.tools.label_studio_config import LabelTarget
from front.tools.shapes import cropped_mask, simplified_outlines
from triton_sam2 import Segmentation

from tests.masks import overlap


def test_the_part_that_has_foreground():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 4] = mask[2, 5:7] = 1
    part, bounds = cropped_mask(mask)
    assert bounds == (4, 1, 6, 2)
    np.testing.assert_array_equal(part, [[1, 0, 0], [1, 1, 1]])
    assert cropped_mask(np.ones((2, 3), np.uint8))[1] == (0, 0, 2, 1)


def test_an_empty_mask_is_one_pixel_of_background():
    part, bounds = cropped_mask(np.zeros((6, 8), np.uint8))
    assert part.tolist() == [[0]]
    assert bounds == (0, 0, 0, 0)


def filled(outlines, hw):
    canvas = np.zeros(hw, np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [outline.round().astype(np.int32)], 1)
    return canvas


def test_outlines_without_specks():
    mask = np.zeros((100, 120), np.uint8)
    cv2.circle(mask, (40, 50), 25, 1, -1)
    cv2.circle(mask, (95, 50), 15, 1, -1)
    whole = mask.copy()
    mask[5:8, 5:8] = 1
    outlines = simplified_outlines(mask, 0.001)
    assert len(outlines) == 2
    assert overlap(filled(outlines, mask.shape), whole) >= 0.98
    assert sum(map(len, simplified_outlines(mask, 0.02))) < sum(map(len, outlines))


def test_what_covers_all_is_left_out_only_where_there_is_something_else():
    mask = np.ones((50, 50), np.uint8)
    np.testing.assert_array_equal(filled(simplified_outlines(mask, 0.0), (50, 50)), mask)
    assert simplified_outlines(np.zeros((50, 50), np.uint8), 0.001) == []
    mask = np.ones((100, 100), np.uint8)
    mask[:, 96] = 0
    outlines = simplified_outlines(mask, 0.0)
    assert len(outlines) == 1
    assert outlines[0][:, 0].min() == 97


def result(mask):
    """What the server would have answered for one object."""
    tensors = {
        "masks": mask[None, None],
        "mask_logits": mask[None, None].astype(np.float32) - 0.5,
        "low_res_masks": np.zeros((1, 1, 4, 4), np.float32),
        "iou_predictions": np.ones((1, 1), np.float32),
        "cached_image_id": np.array([b"a"]),
        "original_hw": np.array(mask.shape, np.int32),
    }
    return Segmentation.from_tensors(tensors)


def test_masks_that_are_too_much_for_json():
    mask = np.ones((6, 8), np.uint8)
    assert json.loads(cvat._answer(result(mask), 48).body)["bounds"] == [0, 0, 7, 5]
    with pytest.raises(Refusal, match="max_mask_cells"):
        cvat._answer(result(mask), 47)
    assert roboflow._arrays([result(mask)] * 2, 96).body
    with pytest.raises(Refusal, match="max_mask_cells"):
        roboflow._arrays([result(mask)] * 2, 95)


def test_an_empty_mask_in_each_tools_words():
    empty = result(np.zeros((6, 8), np.uint8))
    answer = json.loads(cvat._answer(empty, 48).body)
    assert answer == {"mask": [[0]], "bounds": [0, 0, 0, 0], "points": []}
    assert qupath._features(iter([(np.zeros((6, 8), np.uint8), 0.5)]), "sam2_t", 9) == []
    assert json.loads(x_anylabeling._answer(empty, 0.001).body)["data"]["shapes"] == []
    target = LabelTarget("brushlabels", "tag", "image", "image")
    (prediction,) = json.loads(label_studio._answer(empty, target, "Coin").body)["results"]
    assert (prediction["result"], prediction["score"]) == ([], 0.0)


def test_outlines_that_are_too_long():
    board = np.indices((8, 8)).sum(axis=0).astype(np.uint8) % 2
    masks = [(board, 0.5), (board, 0.5)]
    assert len(qupath._features(iter(masks), "sam2_t", 256)) == 2
    with pytest.raises(Refusal, match="max_outline_edges"):
        qupath._features(iter(masks), "sam2_t", 255)
