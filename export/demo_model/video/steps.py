"""One training step on clips: prompts, tracking, memories of own masks, and the loss of each frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.demo_model.losses import neighbourhood, score_planes
from export.demo_model.model import Decoded
from export.demo_model.steps import next_click
from export.demo_model.video.clip_pool import LEAST_PRESENT_PX, ClipBatch
from export.demo_model.video.tracking import Memories, Tracking

_LOGIT_LIMIT = 32.0
_FOCAL_WEIGHT = 20.0
_ABSENT_WEIGHT = 3.0


@dataclass(frozen=True)
class ClipSchedule:
    """What depends on the progress through the run, 0..1."""

    peak_learning_rate: float
    last_learning_rate: float = 1e-5
    warm_up_steps: int = 60
    lengths: tuple[tuple[float, int], ...] = ((0.0, 3), (0.3, 4), (0.6, 6), (0.85, 8))

    def learning_rate(self, progress: float, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        spread = self.peak_learning_rate - self.last_learning_rate
        rate = self.last_learning_rate + spread * cosine
        return rate * min(1.0, (step + 1) / self.warm_up_steps)

    def frames(self, progress: float) -> int:
        """Length of the clips: short at first, when each frame teaches the same."""
        return [length for start, length in self.lengths if start <= progress][-1]

    @staticmethod
    def forced_share(progress: float) -> float:
        """How often the true masks are remembered instead of the predicted ones."""
        return max(0.0, 1 - 2.5 * progress)


class PlaceHead(nn.Module):
    """Draws the mask at a sixteenth of the size from the conditioned features: teaches attention early,
    and is dropped afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 1, 1)

    def forward(self, conditioned: Tensor, coverage: Tensor, present: Tensor) -> Tensor:
        target = F.avg_pool2d(coverage, 4)
        logits: Tensor = self.conv(conditioned)
        weight = torch.tensor(5.0, device=logits.device)
        cross = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
        drawn = logits.sigmoid()
        overlap = 2 * (drawn * target).sum((1, 2, 3)) + 0.2
        total = drawn.square().sum((1, 2, 3)) + target.square().sum((1, 2, 3)) + 0.2
        return cross + ((1 - overlap / total) * present).mean()


@dataclass
class _Sums:
    """Losses and figures over the frames of a batch."""

    loss: Tensor
    ious: list[float]
    absent_found: list[float]
    present_found: list[float]


def clip_loss(
    tracking: Tracking,
    head: PlaceHead,
    batch: ClipBatch,
    choices: np.random.Generator,
    *,
    progress: float,
    schedule: ClipSchedule,
) -> tuple[Tensor, dict[str, float]]:
    """Track a batch of clips; the mean loss of its frames, and figures to log."""
    generator = torch.Generator().manual_seed(int(choices.integers(1 << 62)))
    frames, objects = batch.masks.shape[:2]
    truth = batch.masks.float()
    coverage = F.avg_pool2d(truth, 4)[:, :, None]  # [T, N, 1, S/4, S/4]
    present = (truth.flatten(2).sum(2) >= LEAST_PRESENT_PX).float()
    forced = choices.random() < schedule.forced_share(progress)
    rows = torch.arange(objects)
    sums = _Sums(torch.zeros(()), [], [], [])
    memories = Memories()
    logits, tokens, there = _first_frame(tracking, batch, coverage[0], sums)
    if forced:
        logits = coverage[0] * 20 - 10
    memories.prompted.append(
        tracking.remember(
            0, batch.image_embed[0].float(), logits.detach(), tokens, there, from_prompt=True
        )
    )
    for frame in range(1, frames):
        embed = batch.image_embed[frame].float()
        high_res = batch.high_res_feats_0[frame].float(), batch.high_res_feats_1[frame].float()
        conditioned = tracking.condition(embed, frame, memories)
        answer = tracking.decode(
            conditioned, high_res, truth.new_zeros(objects, 0, 2), batch.point_labels[:, :0]
        )
        best = _add_loss(sums, answer, coverage[frame], present[frame])
        sums.loss = sums.loss + head(conditioned, coverage[frame], present[frame])
        chosen = 1 + answer.iou_predictions[:, 1:].argmax(1) if choices.random() < 0.7 else best
        from_prompt = frame == batch.correction_frame
        if from_prompt:
            click = next_click(answer.planes, coverage[frame], chosen, generator)
            answer = _corrected(tracking, (conditioned, *high_res), click)
            _add_loss(sums, answer, coverage[frame], present[frame])
            chosen = torch.zeros_like(chosen)
        seen = (answer.object_scores[:, 0].detach() > 0).float()
        logits = answer.planes[rows, chosen][:, None]
        if forced:
            seen, logits = present[frame], coverage[frame] * 20 - 10
        elif choices.random() < 0.5:
            seen = present[frame]
        memory = tracking.remember(
            frame,
            embed,
            logits.detach(),  # memories teach through their pointers and the encoder, not through masks
            answer.mask_tokens[rows, chosen],
            seen,
            from_prompt=from_prompt,
        )
        (memories.prompted if from_prompt else memories.tracked).append(memory)
    loss = sums.loss / (frames - 1)
    figures = {
        "loss": loss.item(),
        "IoU": float(np.mean(sums.ious)),
        "last IoU": sums.ious[-1],
        "there": float(np.mean(sums.present_found)),
    }
    if sums.absent_found:
        figures["gone"] = float(np.mean(sums.absent_found))
    return loss, figures


def _first_frame(
    tracking: Tracking, batch: ClipBatch, coverage: Tensor, sums: _Sums
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, tokens and presence of the prompted frame; all objects are there."""
    high_res = batch.high_res_feats_0[0].float(), batch.high_res_feats_1[0].float()
    embed = batch.image_embed[0].float()
    rows = torch.arange(len(coverage))
    if batch.kind == "mask":
        dense = tracking.model.mask_downsample(batch.masks[0][:, None].float())
        answer = tracking.decode(embed, high_res, batch.point_coords, batch.point_labels, dense)
        chosen, logits = torch.zeros_like(rows), coverage * 20 - 10
    else:
        prepared = tracking.without_memory(embed)
        answer = tracking.decode(prepared, high_res, batch.point_coords, batch.point_labels)
        best = 1 + answer.iou_predictions[:, 1:].argmax(1)
        chosen = best if batch.kind == "click" else torch.zeros_like(rows)
        logits = answer.planes[rows, chosen][:, None]
    # Whoever prompts means something that is there: the head must go on saying so.
    sums.loss = sums.loss + 0.3 * F.softplus(-answer.object_scores).mean()
    return logits, answer.mask_tokens[rows, chosen], torch.ones(len(rows))


def _corrected(
    tracking: Tracking,
    features: tuple[Tensor, Tensor, Tensor],
    click: tuple[Tensor, Tensor, Tensor],
) -> Decoded:
    """The answer to one click into the worst of each mask."""
    coords, labels, earlier = click
    mask_input = earlier.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT)
    return tracking.decode(features[0], features[1:], coords, labels, mask_input)


def _add_loss(sums: _Sums, answer: Decoded, coverage: Tensor, present: Tensor) -> Tensor:
    """Add one decoding's loss to the sums; the planes [N] of 1..3 with the least loss."""
    scores = score_planes(answer.planes, coverage, neighbourhood(coverage), _FOCAL_WEIGHT)
    several = scores.loss[:, 1:].min(1)
    quality = (answer.iou_predictions - scores.iou).square().mean(1)
    masks = 0.5 * scores.loss[:, 0] + several.values + 0.5 * scores.loss[:, 1:].mean(1) + quality
    count = present.sum().clamp(min=1)
    weight = torch.where(present > 0.5, 1.0, _ABSENT_WEIGHT)  # they are few
    presence = F.binary_cross_entropy_with_logits(answer.object_scores[:, 0], present, weight)
    sums.loss = sums.loss + (masks * present).sum() / count + 0.5 * presence
    with torch.no_grad():
        top = 1 + answer.iou_predictions[:, 1:].argmax(1)
        rows = torch.arange(len(top))
        sums.ious.append(float((scores.iou[rows, top] * present).sum() / count))
        right = ((answer.object_scores[:, 0] > 0).float() == present).float()
        sums.present_found.extend(right[present > 0.5].tolist())
        sums.absent_found.extend(right[present <= 0.5].tolist())
    return 1 + several.indices
