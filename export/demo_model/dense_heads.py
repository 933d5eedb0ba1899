"""Training-only heads on the encoder's three maps: they teach it objects faster than clicks do.

At every place: foreground or not, border or not, where the object's centre lies; for pairs of
places: same object or not. Dropped when training ends.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PAIRED_PLACES = (384, 320, 256)  # places compared with each other, fine to coarse


def dense_targets(labels: Tensor) -> Tensor:
    """uint8 labels [B, h, w] to [B, 5, h, w].

    Foreground; border; offset to the object's centre in x and y, in tenths of the side; a weight
    that keeps large objects from outvoting small ones, 0 on the background.
    """
    batch, height, width = labels.shape
    ids = labels.long() + 256 * torch.arange(batch, device=labels.device).view(-1, 1, 1)
    flat = ids.flatten()
    area = torch.bincount(flat, minlength=256 * batch).clamp(min=1).float()
    y = torch.arange(height, device=labels.device).view(1, -1, 1).expand_as(labels).float()
    x = torch.arange(width, device=labels.device).view(1, 1, -1).expand_as(labels).float()

    def to_centre(axis: Tensor) -> Tensor:
        total = torch.bincount(flat, weights=axis.flatten(), minlength=256 * batch).float()
        return ((total / area)[ids] - axis) / (0.1 * height)

    foreground = (labels > 0).float()
    values = labels.float()[:, None]
    spread = F.max_pool2d(values, 3, 1, 1) + F.max_pool2d(-values, 3, 1, 1)
    weight = foreground / area[ids] ** 0.7
    border = (spread[:, 0] != 0).float()
    offsets = (to_centre(x) * foreground, to_centre(y) * foreground)
    return torch.stack([foreground, border, *offsets, weight], dim=1)


class DenseHeads(nn.Module):
    def __init__(self, width: int, embedding: int = 24) -> None:
        super().__init__()
        self.fields = nn.ModuleList([nn.Conv2d(width, 4, 1) for _ in range(3)])
        self.embeddings = nn.ModuleList([nn.Conv2d(width, embedding, 1) for _ in range(3)])
        self.radius = nn.Parameter(torch.full((3,), 2.0))
        for layers, gain in ((self.embeddings, 1.5), (self.fields, 0.5)):
            for layer in layers:
                nn.init.normal_(layer.get_parameter("weight"), std=gain * width**-0.5)

    def forward(self, pyramid: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of the fields and of the pairs; `labels` uint8 [B, h, w] of the finest map."""
        targets = dense_targets(labels)
        field_loss = pair_loss = torch.zeros((), device=labels.device)
        for level, features in enumerate(pyramid):
            stride = 1 << level
            offset = stride // 2
            here = targets[:, :, offset::stride, offset::stride]
            fields = self.fields[level](features)
            field_loss = field_loss + self._field_loss(fields, here)
            pair_loss = pair_loss + self._pair_loss(
                level, features, labels[:, offset::stride, offset::stride]
            )
        return field_loss / 3, pair_loss / 3

    @staticmethod
    def _field_loss(fields: Tensor, targets: Tensor) -> Tensor:
        weight = targets[:, 4]
        offset_error = F.smooth_l1_loss(fields[:, 2:], targets[:, 2:4], reduction="none", beta=0.3)
        return (
            F.binary_cross_entropy_with_logits(fields[:, 0], targets[:, 0])
            + 0.5 * F.binary_cross_entropy_with_logits(fields[:, 1], targets[:, 1])
            + 0.5 * (offset_error.sum(1) * weight).sum() / (weight.sum() + 1)
        )

    def _pair_loss(self, level: int, features: Tensor, labels: Tensor) -> Tensor:
        embedded = self.embeddings[level](features).flatten(2).transpose(1, 2)
        chosen = torch.randperm(embedded.shape[1], device=labels.device)[: _PAIRED_PLACES[level]]
        embedded, ids = embedded[:, chosen], labels.flatten(1)[:, chosen]
        same = (ids[:, :, None] == ids[:, None]).float()
        logits = self.radius[level] - torch.cdist(embedded, embedded).square()
        error = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
        mates = same.sum(-1)
        weight = 1 / mates
        weight = weight / weight.mean(-1, keepdim=True)
        attract = (error * same).sum(-1) / mates
        repel = (error * (1 - same)).sum(-1) / ((1 - same).sum(-1) + 1)
        return ((attract + repel) * weight).mean()
