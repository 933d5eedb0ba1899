"""Masks in the forms that tools draw, and in each tool's words where there is none or too much."""

import json

import cv2
import numpy as np
import pytest
from front.refusals import Refusal
from front.tools import cvat, label_studio, qupath, roboflow, x_anylabeling
from front.tools.label_studio_config import LabelTarget
from front.tools.masks import CroppedMask
from front.tools.shapes import outer_outlines, simplified_outlines

from tests.masks import overlap

EMPTY = CroppedMask.of(np.zeros((6, 8), np.uint8))
FULL = CroppedMask.of(np.ones((6, 8), np.uint8))


def filled(outlines, hw):
    canvas = np.zeros(hw, np.uint8)
    for outline in outlines:
        cv2.fillPoly(canvas, [outline.round().astype(np.int32)], 1)
    return canvas


def test_outlines_lie_where_the_mask_does():
    mask = np.zeros((60, 90), np.uint8)
    cv2.circle(mask, (70, 40), 15, 1, -1)
    np.testing.assert_array_equal(filled(outer_outlines(CroppedMask.of(mask), 0.0), (60, 90)), mask)


def test_outlines_without_specks():
    mask = np.zeros((100, 120), np.uint8)
    cv2.circle(mask, (40, 50), 25, 1, -1)
    cv2.circle(mask, (95, 50), 15, 1, -1)
    whole = mask.copy()
    mask[5:8, 5:8] = 1
    outlines = simplified_outlines(CroppedMask.of(mask), 0.001)
    assert len(outlines) == 2
    assert overlap(filled(outlines, mask.shape), whole) >= 0.98
    fewer = simplified_outlines(CroppedMask.of(mask), 0.02)
    assert sum(map(len, fewer)) < sum(map(len, outlines))


def test_what_covers_all_is_left_out_only_where_there_is_something_else():
    mask = np.ones((50, 50), np.uint8)
    outlines = simplified_outlines(CroppedMask.of(mask), 0.0)
    np.testing.assert_array_equal(filled(outlines, (50, 50)), mask)
    assert simplified_outlines(EMPTY, 0.001) == []
    mask = np.ones((100, 100), np.uint8)
    mask[:, 96] = 0
    outlines = simplified_outlines(CroppedMask.of(mask), 0.0)
    assert len(outlines) == 1
    assert outlines[0][:, 0].min() == 97


def test_masks_that_are_too_much_unpacked():
    assert json.loads(cvat._answer(FULL, 48).body)["bounds"] == [0, 0, 7, 5]
    with pytest.raises(Refusal, match="max_mask_cells"):
        cvat._answer(FULL, 47)
    roboflow._check_cells(2, (6, 8), 96)
    with pytest.raises(Refusal, match="max_mask_cells"):
        roboflow._check_cells(2, (6, 8), 95)


def test_an_empty_mask_in_each_tools_words():
    answer = json.loads(cvat._answer(EMPTY, 48).body)
    assert answer == {"mask": [[0]], "bounds": [0, 0, 0, 0], "points": []}
    assert qupath._features(iter([(EMPTY, 0.5)]), "sam2_t", 9) == []
    assert json.loads(x_anylabeling._answer([(EMPTY, 0.5)], 0.001).body)["data"]["shapes"] == []
    target = LabelTarget("brushlabels", "tag", "image", "image")
    answer = json.loads(label_studio._answer([(EMPTY, 0.5)], target, "Coin").body)
    (prediction,) = answer["results"]
    assert (prediction["result"], prediction["score"]) == ([], 0.0)


def test_outlines_that_are_too_long():
    board = CroppedMask.of(np.indices((8, 8)).sum(axis=0).astype(np.uint8) % 2)
    masks = [(board, 0.5), (board, 0.5)]
    assert len(qupath._features(iter(masks), "sam2_t", 256)) == 2
    with pytest.raises(Refusal, match="max_outline_edges"):
        qupath._features(iter(masks), "sam2_t", 255)
