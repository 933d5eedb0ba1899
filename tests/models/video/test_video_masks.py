"""Masks of an answer: one for each object, and no pixel for two where that is wanted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mask_encoding import InvalidOutputError, OutputLimits
from memory_bank import FrameOutput
from torch.nn import functional as F
from video_errors import CancelledStepError
from video_masks import encode_frame_masks, stack_outputs

LIMITS = OutputLimits(max_output_bytes=1 << 28, max_encoded_pixels=1 << 28)
ALL = frozenset({"bitmap", "logits", "rle", "png"})


def logits(objects: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 8, (objects, 1, 16, 16)).astype(np.float32)


# The larger one is encoded in blocks.
@pytest.mark.parametrize("hw", [(60, 90), (1200, 1400)])
def test_non_overlapping_masks_are_metas(hw):
    base = pytest.importorskip("sam2.modeling.sam2_base")
    low_res = logits(4)
    full = F.interpolate(torch.from_numpy(low_res), hw, mode="bilinear", align_corners=False)
    expected = base.SAM2Base._apply_non_overlapping_constraints(SimpleNamespace(), full)[:, 0]
    got = encode_frame_masks(
        low_res, hw, ALL, non_overlap=True, limits=LIMITS, is_cancelled=lambda: False
    )
    # Rounding decides where two objects are as good as equal.
    contested = np.isclose(
        full.sort(dim=0).values[-1, 0], full.sort(dim=0).values[-2, 0], atol=1e-4
    )
    equal = np.isclose(got["mask_logits"], expected.numpy(), atol=1e-4)
    assert (equal | contested[None]).all()
    assert contested.mean() < 1e-3
    assert np.array_equal(got["masks"] > 0, got["mask_logits"] > 0)
    assert got["masks"].sum(axis=0).max() == 1


def test_each_format_has_one_mask_for_an_object():
    got = encode_frame_masks(
        logits(3), (20, 30), ALL, non_overlap=False, limits=LIMITS, is_cancelled=lambda: False
    )
    assert got["masks"].shape == got["mask_logits"].shape == (3, 20, 30)
    assert got["masks_rle"].shape == got["masks_png"].shape == (3,)


def test_no_object_and_no_format_have_no_masks():
    for low_res, formats in ((logits(0), ALL), (logits(2), frozenset())):
        got = encode_frame_masks(
            low_res, (20, 30), formats, non_overlap=True, limits=LIMITS, is_cancelled=lambda: False
        )
        assert [values.size for values in got.values()] == [0, 0, 0, 0]
        assert [values.ndim for values in got.values()] == [3, 3, 1, 1]


@pytest.mark.parametrize("non_overlap", [True, False])
def test_what_is_too_large_or_cancelled_ends(non_overlap):
    with pytest.raises(InvalidOutputError, match="max_output_bytes"):
        encode_frame_masks(
            logits(2),
            (2000, 2000),
            ALL,
            non_overlap=non_overlap,
            limits=OutputLimits(1 << 20, 1 << 28),
            is_cancelled=lambda: False,
        )
    with pytest.raises(CancelledStepError):
        encode_frame_masks(
            logits(2),
            (20, 30),
            ALL,
            non_overlap=non_overlap,
            limits=LIMITS,
            is_cancelled=lambda: True,
        )


def test_an_object_without_an_output_is_absent():
    output = FrameOutput(
        np.ones((8, 8), np.float16), None, np.zeros(4, np.float32), 2.5, 0.75, memory_fingerprint=0
    )
    stacked = stack_outputs([output, None], 8)
    assert stacked["low_res_masks"][0].min() == 1
    assert stacked["low_res_masks"][1].max() == -1024
    assert stacked["object_score_logits"].tolist() == [2.5, -1024]
    assert stacked["iou_predictions"].tolist() == [0.75, 0]
