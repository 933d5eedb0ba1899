"""Whatever follows clicked objects through a clip, and the torch model as one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Sam2VideoModel

from export.demo_model.fields import ByteImage
from export.demo_model.model import Decoded, encode
from export.demo_model.video.tracking import ABSENT_LOGIT, Memories, Tracking

_LOGIT_LIMIT = 32.0


@dataclass(frozen=True)
class Click:
    """On one object, in pixels of the picture; label 1 foreground, 0 background."""

    frame: int
    x: float
    y: float
    label: int = 1


@dataclass(frozen=True)
class Tracked:
    """K objects on T frames."""

    masks: NDArray[np.bool_]  # [T, K, H, W]
    present: NDArray[np.bool_]  # [T, K]


class ClipTracker(Protocol):
    def track(self, pictures: ByteImage, clicks: NDArray[np.float32]) -> Tracked:
        """Follow K objects from `clicks` [K, 2] on the first of `pictures` [T, H, W, 3]."""
        ...

    def correct(self, pictures: ByteImage, first: Click, correction: Click) -> Tracked:
        """Follow one object, correct it on a frame, and follow it again from the first frame."""
        ...


@dataclass(frozen=True)
class _Step:
    """What a frame's decoding leaves of N objects."""

    logits: Tensor  # [N, 1, s, s], chosen and gated
    tokens: Tensor  # [N, C]
    present: Tensor  # FP32 [N]


class TorchTracker:
    """The torch model with the reference's semantics for clicks and tracking forwards."""

    def __init__(self, model: Sam2VideoModel) -> None:
        self._tracking = Tracking(model.eval())
        self._model = model

    @torch.no_grad()
    def track(self, pictures: ByteImage, clicks: NDArray[np.float32]) -> Tracked:
        steps = self._follow(self._encoded(pictures), self._coords(pictures, clicks), None)
        return _tracked(steps, pictures)

    @torch.no_grad()
    def correct(self, pictures: ByteImage, first: Click, correction: Click) -> Tracked:
        features = self._encoded(pictures)
        start = self._coords(pictures, [(first.x, first.y)])
        steps = self._follow(
            features, start, (correction.frame, self._corrected(pictures, correction))
        )
        return _tracked(steps, pictures)

    def _corrected(self, pictures: ByteImage, click: Click) -> tuple[Tensor, Tensor]:
        return self._coords(pictures, [(click.x, click.y)]), torch.tensor([[click.label]])

    def _coords(
        self, pictures: ByteImage, clicks: NDArray[np.float32] | Sequence[tuple[float, float]]
    ) -> Tensor:
        """In pixels of the model's input, [K, 1, 2]."""
        height, width = pictures.shape[1:3]
        unit = torch.as_tensor(np.asarray(clicks, np.float32)) / torch.tensor([width, height])
        return (unit * self._tracking.image_size)[:, None]

    def _encoded(self, pictures: ByteImage) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Features of each frame without the no-memory embedding; frames are resized bicubically, as
        the reference does with video."""
        size = self._tracking.image_size
        features = []
        for picture in pictures:
            resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())[None]
            encoded = encode(self._model, pixels)
            high_res = encoded.high_res_feats_0, encoded.high_res_feats_1
            features.append((encoded.pyramid[2], *high_res))
        return features

    def _follow(
        self,
        features: list[tuple[Tensor, Tensor, Tensor]],
        coords: Tensor,
        correction: tuple[int, tuple[Tensor, Tensor]] | None,
    ) -> list[_Step]:
        """Track forwards; with a correction, twice: to it, and then again with it."""
        labels = torch.ones(coords.shape[:2], dtype=torch.int64)
        memories = Memories()
        embed, *high_res = features[0]
        answer = self._tracking.decode(
            self._tracking.without_memory(embed), (high_res[0], high_res[1]), coords, labels
        )
        steps = [_best_of_three(answer)]
        self._remember(memories, 0, embed, steps[0], from_prompt=True)
        for frame in range(1, len(features)):
            steps.append(self._tracked_frame(features[frame], frame, memories))
            self._remember(memories, frame, features[frame][0], steps[frame], from_prompt=False)
        if correction is None:
            return steps
        corrected, (coords, labels) = correction
        before = Memories(memories.prompted, [m for m in memories.tracked if m.frame < corrected])
        conditioned = self._tracking.condition(features[corrected][0], corrected, before)
        embed, *high_res = features[corrected]
        earlier = steps[corrected].logits.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT)
        answer = self._tracking.decode(
            conditioned, (high_res[0], high_res[1]), coords, labels, earlier
        )
        steps[corrected] = _best_of_three(answer)
        again = Memories(list(memories.prompted))
        self._remember(again, corrected, embed, steps[corrected], from_prompt=True)
        for frame in range(1, len(features)):
            if frame != corrected:
                steps[frame] = self._tracked_frame(features[frame], frame, again)
                self._remember(again, frame, features[frame][0], steps[frame], from_prompt=False)
        return steps

    def _tracked_frame(
        self, features: tuple[Tensor, Tensor, Tensor], frame: int, memories: Memories
    ) -> _Step:
        embed, *high_res = features
        conditioned = self._tracking.condition(embed, frame, memories)
        nothing = conditioned.new_zeros(len(conditioned), 0, 2)
        answer = self._tracking.decode(
            conditioned, (high_res[0], high_res[1]), nothing, nothing[..., 0].long()
        )
        return _best_of_three(answer)

    def _remember(
        self, memories: Memories, frame: int, embed: Tensor, step: _Step, *, from_prompt: bool
    ) -> None:
        memory = self._tracking.remember(
            frame, embed, step.logits, step.tokens, step.present, from_prompt=from_prompt
        )
        (memories.prompted if from_prompt else memories.tracked).append(memory)


def _best_of_three(answer: Decoded) -> _Step:
    """At most one click was given: the candidate with the highest predicted IoU."""
    best = 1 + answer.iou_predictions[:, 1:].argmax(1)
    rows = torch.arange(len(best))
    present = (answer.object_scores[:, 0] > 0).float()
    logits = answer.planes[rows, best][:, None]
    logits = torch.where(present.view(-1, 1, 1, 1) > 0.5, logits, ABSENT_LOGIT)
    return _Step(logits, answer.mask_tokens[rows, best], present)


def _tracked(steps: list[_Step], pictures: ByteImage) -> Tracked:
    masks = [
        F.interpolate(step.logits, pictures.shape[1:3], mode="bilinear", align_corners=False) > 0
        for step in steps
    ]
    return Tracked(
        masks=torch.stack(masks)[:, :, 0].numpy(),
        present=torch.stack([step.present > 0.5 for step in steps]).numpy(),
    )
