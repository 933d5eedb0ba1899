"""Losses on mask planes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PlaneScores:
    """Loss and true IoU of every plane, each [N, 4]."""

    loss: Tensor
    iou: Tensor


def neighbourhood(coverage: Tensor) -> Tensor:
    """Soft coverage [N, 1, t, t] to a weight: 1.02 in and near the object, 0.02 elsewhere."""
    side = coverage.shape[-1]
    coarse = F.max_pool2d(coverage, side // 64) if side > 64 else coverage
    near = (F.max_pool2d(coarse, 7, 1, 3) > 0.02).float()
    return F.interpolate(near, (side, side)) + 0.02


def score_planes(
    planes: Tensor, coverage: Tensor, nearby: Tensor, focal_weight: float
) -> PlaneScores:
    """Low-res logits [N, 4, s, s] against soft coverage [N, 1, t, t] with t >= s.

    Logits are interpolated to the coverage's grid first, as the server interpolates them, so that
    the outline is learned between the low-res cells too. Cross entropy counts twice: over the
    image, and over the object's neighbourhood, so that small objects get a gradient.
    """
    logits = planes
    if planes.shape[-1] != coverage.shape[-1]:
        logits = F.interpolate(planes, coverage.shape[-2:], mode="bilinear", align_corners=False)
    target = coverage.expand_as(logits)
    probability = logits.sigmoid()
    error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = 0.5 * (error * (probability - target).square()).mean((-1, -2))
    local = (error * (nearby / nearby.sum((-1, -2), keepdim=True))).sum((-1, -2))
    overlap = 2 * (probability * target).sum((-1, -2)) + 1
    total = probability.square().sum((-1, -2)) + target.square().sum((-1, -2)) + 1
    loss = focal_weight * focal + error.mean((-1, -2)) + 0.3 * local + 1 - overlap / total
    with torch.no_grad():
        predicted, truth = logits > 0, target > 0.5
        union = (predicted | truth).sum((-1, -2)).clamp(min=1)
        iou = (predicted & truth).sum((-1, -2)).float() / union
    return PlaneScores(loss, iou)


def prompt_loss(scores: PlaneScores, iou_predictions: Tensor, object_score: Tensor) -> Tensor:
    """Plane 0 must be right, the best of planes 1..3 too; the others follow at half the weight.

    The domain has no parts and wholes to disagree about, so every plane should be a good answer:
    then a wrong choice by predicted IoU costs little.
    """
    single, several = scores.loss[:, 0], scores.loss[:, 1:]
    quality = (iou_predictions - scores.iou).square().mean()
    present = F.softplus(-object_score).mean()
    return (
        single.mean()
        + several.min(1).values.mean()
        + 0.5 * several.mean()
        + 2 * quality
        + 0.01 * present
    )


def ownership_loss(planes: Tensor, coverage: Tensor, images: int) -> Tensor:
    """Which of an image's K prompts owns a pixel, or none: cross entropy over K + 1 classes.

    `planes` [B*K, 4, s, s], `coverage` [B*K, 1, s, s]. Keeps the masks of one image apart early
    in training.
    """
    logits = planes.view(images, -1, *planes.shape[1:])
    logits = torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1).log_softmax(1)
    owned = coverage.view(images, -1, *coverage.shape[1:])
    owned = owned / owned.sum(1, keepdim=True).clamp(min=1)
    shares = torch.cat([1 - owned.sum(1, keepdim=True), owned], dim=1)
    per_owner = shares / (shares.sum((-1, -2), keepdim=True) + 1)
    return -(per_owner * logits).sum((-1, -2)).mean((0, 2)).sum() / 4
