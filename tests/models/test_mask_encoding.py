import io
import json

import cv2
import numpy as np
import pytest
import torch
from mask_encoding import (
    EncodingCancelledError,
    InvalidOutputError,
    OutputLimits,
    clamp_low_res,
    encode_masks,
    parse_mask_formats,
)
from PIL import Image
from pycocotools import mask as coco_mask

ALL = frozenset({"bitmap", "logits", "rle", "png"})
PLENTY = OutputLimits(max_output_bytes=1 << 30, max_encoded_pixels=1 << 40)


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
        encode_masks(random_logits(), (33, 21), frozenset({"bitmap"}), OutputLimits(100, 1 << 40))
    encode_masks(random_logits(), (33, 21), frozenset({"rle", "png"}), OutputLimits(100, 1 << 40))


def test_work_beyond_the_limit_is_refused_whatever_the_format():
    # 2 x 3 masks of 33 x 21, twice
    limits = OutputLimits(max_output_bytes=0, max_encoded_pixels=8315)
    with pytest.raises(
        InvalidOutputError, match=r"8315 pixels .*max_encoded_pixels.*png and rle = 8316"
    ):
        encode_masks(random_logits(), (33, 21), frozenset({"rle", "png"}), limits)
    encode_masks(random_logits(), (33, 21), frozenset({"rle"}), limits)


def test_work_that_nobody_wants_ends_at_the_next_step():
    asked = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) == 3

    with pytest.raises(EncodingCancelledError):
        encode_masks(random_logits(), (33, 21), frozenset({"rle"}), PLENTY, is_cancelled)
    assert len(asked) == 3


def smooth_logits(seed: int, side: int, offset: float) -> np.ndarray:
    """Blobs as the decoder makes them: mostly negative for a negative offset."""
    noise = np.random.default_rng(seed).normal(size=(1, 1, side, side)).astype(np.float32)
    return cv2.GaussianBlur(noise[0, 0], (0, 0), 3)[None, None] * 20 + np.float32(offset)


SIZES = [(1, 1), (1, 5000), (5000, 1), (17, 33), (64, 64), (63, 2000), (1100, 1301), (3000, 701)]


@pytest.mark.parametrize("original_hw", SIZES, ids=str)
@pytest.mark.parametrize("offset", [-1e3, -3.0, -1.0, 0.0, 2.0, 1e3])
def test_blocks_of_columns_are_the_whole_plane(original_hw, offset):
    low_res = smooth_logits(7, 64, offset)
    encoded = encode_masks(low_res, original_hw, ALL, PLENTY)
    whole = cv2.resize(low_res[0, 0], original_hw[::-1], interpolation=cv2.INTER_LINEAR)
    # OpenCV's vector instructions round the ends of rows differently, in the last bit.
    np.testing.assert_allclose(encoded.mask_logits[0, 0], whole, rtol=3e-7, atol=2e-6)
    mask = encoded.masks[0, 0]
    assert np.array_equal(mask, encoded.mask_logits[0, 0] > 0)
    clear = np.abs(whole) > 1e-5
    assert np.array_equal(mask[clear], (whole > 0)[clear])
    rle = json.loads(encoded.masks_rle[0, 0])
    assert rle["counts"] == coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    # Where no logits are asked for, columns without a positive pixel are never resized.
    short = encode_masks(low_res, original_hw, frozenset({"rle", "png"}), PLENTY)
    assert json.loads(short.masks_rle[0, 0]) == rle
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(short.masks_png[0, 0]))), mask * 255)


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
