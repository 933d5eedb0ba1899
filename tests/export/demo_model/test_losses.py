"""Losses and dense targets on tiny arrays with known values."""

import pytest
import torch

from export.demo_model.dense_heads import DenseHeads, dense_targets
from export.demo_model.losses import neighbourhood, ownership_loss, score_planes


def square(side=64, low=16, high=32):
    coverage = torch.zeros(1, 1, side, side)
    coverage[..., low:high, low:high] = 1
    return coverage


def test_a_perfect_plane_scores_one_and_costs_next_to_nothing():
    coverage = square()
    right, empty, inverted = (coverage * 2 - 1) * 20, torch.full_like(coverage, -20.0), None
    inverted = -right
    planes = torch.cat([right, empty, inverted, right], dim=1)
    scores = score_planes(planes, coverage, neighbourhood(coverage), focal_weight=20)
    assert scores.iou.tolist() == [[1.0, 0.0, 0.0, 1.0]]
    assert scores.loss[0, 0] < 0.01
    assert scores.loss[0, 2] > scores.loss[0, 1] > 1


def test_half_of_the_object_has_an_iou_of_a_half():
    coverage = square()
    planes = torch.full((1, 4, 64, 64), -10.0)
    planes[..., 16:24, 16:32] = 10
    scores = score_planes(planes, coverage, neighbourhood(coverage), focal_weight=1)
    assert scores.iou.tolist() == [[0.5] * 4]


def test_planes_are_interpolated_to_a_finer_target():
    coarse, fine = square(), square(128, 32, 64)
    planes = ((coarse * 2 - 1) * 20).expand(1, 4, 64, 64)
    scores = score_planes(planes, fine, neighbourhood(fine), focal_weight=1)
    # bilinear corners are rounded by one pixel each: 4 of 1024 are lost
    assert scores.iou[0, 0].item() == pytest.approx(1.0, abs=0.005)


def test_the_neighbourhood_reaches_three_cells_beyond_the_object():
    near = neighbourhood(square())
    assert near[0, 0, 16, 16] == pytest.approx(1.02)
    assert near[0, 0, 13, 16] == pytest.approx(1.02)
    assert near[0, 0, 12, 16] == pytest.approx(0.02)
    assert neighbourhood(square(128, 32, 64)).shape == (1, 1, 128, 128)


def test_ownership_costs_more_when_two_prompts_claim_the_same_pixels():
    first, second = square(64, 8, 24), square(64, 40, 56)
    coverage = torch.cat([first, second])
    right = ((coverage * 2 - 1) * 8).expand(2, 4, 64, 64)
    confused = right.flip(0)
    assert ownership_loss(right, coverage, 1) < 0.1 * ownership_loss(confused, coverage, 1)


def test_dense_targets_of_one_small_object():
    labels = torch.zeros(1, 10, 10, dtype=torch.uint8)
    labels[0, 2:5, 6:9] = 7
    foreground, border, to_x, to_y, weight = dense_targets(labels)[0]
    assert foreground.sum() == 9
    assert border[3, 7] == 0
    assert border[2, 6] == 1
    # the centre is x 7, y 3; one tenth of the side is one pixel
    assert (to_x[4, 8].item(), to_y[4, 8].item()) == (-1.0, -1.0)
    assert to_x[0, 0] == to_y[0, 0] == 0
    assert weight[3, 7].item() == pytest.approx(9**-0.7)
    assert weight[0, 0] == 0


def test_equal_labels_in_two_images_are_different_objects():
    labels = torch.zeros(2, 10, 10, dtype=torch.uint8)
    labels[0, 0:2, 0:2] = 1
    labels[1, 8:10, 8:10] = 1
    targets = dense_targets(labels)
    assert targets[0, 2, 0, 0].item() == pytest.approx(0.5)
    assert targets[1, 2, 9, 9].item() == pytest.approx(-0.5)


def test_dense_heads_give_gradients_to_every_map():
    heads = DenseHeads(width=8)
    pyramid = tuple(torch.randn(1, 8, side, side, requires_grad=True) for side in (64, 32, 16))
    labels = torch.zeros(1, 64, 64, dtype=torch.uint8)
    labels[0, 10:40, 10:40] = 1
    fields, pairs = heads(pyramid, labels)
    (fields + pairs).backward()
    assert all(level.grad.abs().sum() > 0 for level in pyramid)
