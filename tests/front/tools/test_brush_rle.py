"""Brush masks: Label Studio's own decoder reads them, and its own encoder writes the same bytes."""

import numpy as np
import pytest
from front.tools.brush_rle import encode_brush_mask
from front.tools.masks import CroppedMask

from tests.front.tools.label_studio_player import brush_module


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (5, 7), (40, 60), (300, 500)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_masks(shape, share):
    mask = (np.random.default_rng(7).random(shape) < share).astype(np.uint8)
    theirs = brush_module()
    code = encode_brush_mask(CroppedMask.of(mask))
    seen = theirs.decode_rle(list(code)).reshape(*shape, 4)
    np.testing.assert_array_equal(seen, np.repeat(mask[:, :, None], 4, axis=2) * 255)
    if mask.size < 5000:
        assert list(code) == theirs.encode_rle(np.repeat(mask.reshape(-1), 4) * 255)


@pytest.mark.parametrize("box", [(3, 4, 20, 9), (0, 2, 30, 5), (0, 0, 30, 12), (29, 11, 30, 12)])
def test_boxes_in_a_larger_picture(box):
    mask = np.zeros((12, 30), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 1
    code = encode_brush_mask(CroppedMask.of(mask))
    assert list(code) == brush_module().encode_rle(np.repeat(mask.reshape(-1), 4) * 255)


def test_more_runs_than_are_laid_out_at_once():
    mask = np.indices((400, 401)).sum(axis=0).astype(np.uint8) % 2
    seen = (
        brush_module()
        .decode_rle(list(encode_brush_mask(CroppedMask.of(mask))))
        .reshape(400, 401, 4)
    )
    np.testing.assert_array_equal(seen[:, :, 3], mask * 255)


def test_a_known_mask():
    # 4 values in 32 bits, word 8, widths 3 4 8 16; a run of 3-bit length 4 - 1 with value 255; padding.
    expected = "00000000000000000000000000000100" + "00111" + "0010" + "0011" + "0111" + "1111"
    expected += "1" + "00" + "011" + "11111111"
    expected += "0" * (8 - len(expected) % 8)
    code = encode_brush_mask(CroppedMask.of(np.ones((1, 1), np.uint8)))
    assert "".join(f"{byte:08b}" for byte in code) == expected
