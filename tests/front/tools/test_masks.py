"""Masks as the part with foreground: from COCO's run-length code as pycocotools writes it, and back whole."""

import numpy as np
import pytest
from front.refusals import Refusal
from front.tools.masks import CroppedMask, segmented_masks
from hypothesis import given
from hypothesis import strategies as st
from triton_sam2 import Segmentation
from triton_sam2._results.masks import mask_to_rle


def whole(mask: CroppedMask) -> np.ndarray:
    canvas = np.zeros(mask.original_hw, np.uint8)
    x0, y0, x1, y1 = mask.bounds
    canvas[y0 : y1 + 1, x0 : x1 + 1] = mask.pixels
    return canvas


def result(*masks: np.ndarray) -> Segmentation:
    """What the server answers for objects of one candidate each."""
    texts = [f'{{"size": {r["size"]}, "counts": "{r["counts"]}"}}' for r in map(mask_to_rle, masks)]
    texts = [text.replace("\\", "\\\\") for text in texts]
    rows = np.array([[text.encode()] for text in texts], np.object_)
    tensors = {
        "masks_rle": rows,
        "iou_predictions": np.linspace(0, 1, len(masks), dtype=np.float32)[:, None],
        "cached_image_id": np.array([b"a"]),
        "original_hw": np.array(masks[0].shape, np.int32),
    }
    return Segmentation.from_tensors(tensors)


def check(mask: np.ndarray) -> None:
    ((seen, _),) = segmented_masks(result(mask), mask.size)
    expected = CroppedMask.of(mask)
    assert (seen.bounds, seen.original_hw) == (expected.bounds, expected.original_hw)
    np.testing.assert_array_equal(seen.pixels, expected.pixels)
    np.testing.assert_array_equal(whole(seen), mask)
    assert seen.is_empty is not bool(mask.any())
    assert seen.pixels.flags.c_contiguous


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_masks(height, width, seed, share):
    check((np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8))


@pytest.mark.parametrize(
    "box", [(0, 0, 640, 480), (3, 470, 600, 480), (100, 50, 101, 51), (639, 0, 640, 480)]
)
def test_boxes_with_long_runs(box):
    mask = np.zeros((480, 640), np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = 1
    check(mask)


def test_an_empty_mask_is_one_pixel_of_background():
    check(np.zeros((6, 8), np.uint8))
    assert CroppedMask.of(np.zeros((6, 8), np.uint8)).bounds == (0, 0, 0, 0)


def test_several_and_no_more_than_allowed():
    one, two = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    one[1:3, 4] = one[2, 5:7] = 1
    two[:, 2] = 1
    masks = segmented_masks(result(one, two), 12)
    assert [mask.bounds for mask, _ in masks] == [(4, 1, 6, 2), (2, 0, 2, 5)]
    assert [score for _, score in masks] == [0.0, 1.0]
    with pytest.raises(Refusal, match="max_rendered_pixels"):
        segmented_masks(result(one, two), 11)
