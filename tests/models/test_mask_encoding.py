import io
import json

import numpy as np
import pytest
import torch
from mask_encoding import (
    InvalidOutputError,
    clamp_low_res,
    encode_masks,
    parse_mask_formats,
)
from PIL import Image
from pycocotools import mask as coco_mask

ALL = frozenset({"bitmap", "logits", "rle", "png"})
PLENTY = 1 << 30


def random_logits(objects: int = 2, candidates: int = 3, side: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(objects, candidates, side, side)).astype(np.float32)


@pytest.mark.parametrize("original_hw", [(40, 57), (7, 5), (1, 1), (1, 300), (40000, 1)])
def test_upsampling_is_the_references(original_hw):
    logits = random_logits()
    encoded = encode_masks(logits, original_hw, ALL, PLENTY)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits), original_hw, mode="bilinear", align_corners=False
    ).numpy()
    # float32 rounding in another order
    np.testing.assert_allclose(encoded.mask_logits, expected, atol=2e-5)
    clear = np.abs(expected) > 1e-4
    assert np.array_equal(encoded.masks[clear], (expected > 0)[clear])


def test_every_format_holds_the_same_mask():
    encoded = encode_masks(random_logits(), (33, 21), ALL, PLENTY)
    assert set(np.unique(encoded.masks)) == {0, 1}
    for index in np.ndindex(2, 3):
        mask = encoded.masks[index]
        rle = json.loads(encoded.masks_rle[index])
        assert rle["size"] == [33, 21]
        assert np.array_equal(coco_mask.decode(rle), mask)
        png = np.asarray(Image.open(io.BytesIO(encoded.masks_png[index])))
        assert np.array_equal(png, mask * 255)


def test_what_was_not_asked_for_has_no_elements():
    encoded = encode_masks(random_logits(), (33, 21), frozenset({"rle"}), PLENTY)
    assert encoded.masks_rle.shape == (2, 3)
    assert [encoded.masks.size, encoded.mask_logits.size, encoded.masks_png.size] == [0, 0, 0]
    nothing = encode_masks(random_logits(), (33, 21), frozenset(), PLENTY)
    assert sum(array.size for array in vars(nothing).values()) == 0


def test_an_answer_beyond_the_limit_is_refused_with_its_size():
    with pytest.raises(InvalidOutputError, match=r"mask_format: .* 100 bytes .* = 4158 bytes"):
        encode_masks(random_logits(), (33, 21), frozenset({"bitmap"}), 100)
    encode_masks(random_logits(), (33, 21), frozenset({"rle", "png"}), 100)


def test_formats_are_parsed_strictly():
    assert parse_mask_formats(None) == {"bitmap"}
    assert parse_mask_formats([]) == frozenset()
    assert parse_mask_formats([b"rle", b"logits"]) == {"rle", "logits"}
    with pytest.raises(InvalidOutputError, match="mask_format: expected any of bitmap.*'webm'"):
        parse_mask_formats([b"bitmap", b"webm"])
    with pytest.raises(InvalidOutputError, match="mask_format"):
        parse_mask_formats([b"\xff\xfe"])


def test_low_res_logits_are_clamped_to_32():
    assert clamp_low_res(np.array([-99, -5, 99], np.float32)).tolist() == [-32, -5, 32]
