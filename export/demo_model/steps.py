"""One training step, and how its weights change over the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from export.demo_model.batches import Batch
from export.demo_model.checkpoint import TrainingState
from export.demo_model.losses import neighbourhood, ownership_loss, prompt_loss, score_planes
from export.demo_model.model import LOW_RES_SIZE, decode, encode

_LOGIT_LIMIT = 32.0
_CELL = 4  # pixels of the input per low-res cell


@dataclass(frozen=True)
class Schedule:
    """Everything that depends on the progress through the run, 0..1."""

    peak_learning_rate: float
    last_learning_rate: float = 1e-5
    warm_up_steps: int = 100
    fine_targets_from: float = 0.7  # before, masks are compared at low resolution: cheaper

    def learning_rate(self, progress: float, step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        rate = (
            self.last_learning_rate + (self.peak_learning_rate - self.last_learning_rate) * cosine
        )
        return rate * min(1.0, (step + 1) / self.warm_up_steps)

    @staticmethod
    def focal_weight(progress: float) -> float:
        return 5 + 15 * min(1.0, 4 * progress)

    @staticmethod
    def dense_weight(progress: float) -> float:
        return 1 - 0.7 * min(1.0, progress)

    @staticmethod
    def ownership_weight(progress: float) -> float:
        return max(0.5, 1 - progress / 0.6)  # never 0: without it masks leak into look-alikes


def next_click(
    planes: Tensor, coverage: Tensor, chosen: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """A click in a mistake of the chosen planes, likelier deep inside it.

    Coordinates [N, 1, 2] in pixels of the input, labels [N, 1], the chosen planes [N, 1, s, s].
    """
    rows = torch.arange(len(planes), device=planes.device)
    earlier = planes.detach()[rows, chosen][:, None]
    wrong = ((earlier > 0) != (coverage > 0.5)).float()
    depth = F.avg_pool2d(wrong, 5, 1, 2, count_include_pad=False)
    weight = (wrong * depth.square()).flatten(1)
    perfect = weight.sum(1) <= 0
    weight = torch.where(perfect[:, None], coverage.flatten(1) ** 4 + 1e-6, weight)
    cell = torch.multinomial(weight, 1, generator=generator)
    label = ((coverage.flatten(1).gather(1, cell) > 0.5) | perfect[:, None]).long()
    xy = torch.stack([cell % LOW_RES_SIZE, cell // LOW_RES_SIZE], dim=-1)
    jitter = torch.rand(xy.shape, device=xy.device, generator=generator)
    return (xy + jitter) * _CELL - 0.5, label, earlier


def training_loss(
    state: TrainingState, batch: Batch, schedule: Schedule, progress: float
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch, with a correction click or two after it, and figures to log."""
    images = len(batch.images)
    focal_weight = schedule.focal_weight(progress)
    features = encode(state.model, batch.images)
    field_loss, pair_loss = state.heads(features.pyramid, batch.labels)
    small_outputs = sum(level.square().mean() for level in features.pyramid)
    loss = schedule.dense_weight(progress) * (field_loss + 0.3 * pair_loss) + 0.02 * small_outputs

    coords, labels = batch.point_coords, batch.point_labels
    coverage = F.avg_pool2d(batch.coverage, batch.coverage.shape[-1] // LOW_RES_SIZE)
    target = batch.coverage if progress >= schedule.fine_targets_from else coverage
    nearby = neighbourhood(target)
    answer = decode(state.model, features, coords, labels, None)
    planes = answer.planes
    scores = score_planes(planes, target, nearby, focal_weight)
    loss = loss + prompt_loss(scores, answer.iou_predictions, answer.object_scores)
    ownership = schedule.ownership_weight(progress)
    loss = loss + 0.5 * ownership * ownership_loss(planes, coverage, images)

    best = 1 + answer.iou_predictions[:, 1:].argmax(1)
    top_iou = scores.iou.gather(1, best[:, None]).mean()
    first = top_iou if batch.kind == "click" else scores.iou[:, 0].mean()
    figures = {f"{batch.kind} IoU": first.item()}
    chosen = best if batch.kind == "click" else torch.zeros_like(best)
    for _ in range(int(state.choices.choice(3, p=(0.45, 0.42, 0.13)))):
        click, label, earlier = next_click(planes, coverage, chosen)
        coords, labels = torch.cat([coords, click], 1), torch.cat([labels, label], 1)
        with_mask = state.choices.random() < 0.8
        mask_input = earlier.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT) if with_mask else None
        answer = decode(state.model, features, coords, labels, mask_input)
        planes = answer.planes
        scores = score_planes(planes, target, nearby, focal_weight)
        loss = loss + 0.7 * prompt_loss(scores, answer.iou_predictions, answer.object_scores)
        chosen = torch.zeros_like(best)
        figures["corrected IoU"] = scores.iou[:, 0].mean().item()
    return loss, {"loss": loss.item(), "dense loss": field_loss.item(), **figures}


def train_step(
    state: TrainingState, batch: Batch, schedule: Schedule, progress: float
) -> dict[str, float]:
    """Update the weights and their moving average."""
    rate = schedule.learning_rate(progress, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    loss, figures = training_loss(state, batch, schedule, progress)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = torch.nn.utils.clip_grad_norm_(state.model.parameters(), 2.0)
    state.optimizer.step()
    state.step += 1
    decay = min(0.999, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(
            list(state.average.parameters()), list(state.model.parameters()), 1 - decay
        )
    return {**figures, "gradient": gradient.item(), "learning rate": rate}
