"""Prompts for which the video decoder's reference decides clearly, on a picture of two discs.

What the decoder *chooses* (a plane, whether an object is there) may turn on the last bit where it hardly
decides: there, two right programs differ. So prompts are drawn until one is clear.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from export.decoder_graph import NO_TOKEN
from export.reference import reference_decode
from export.verify import Array
from export.video_reference import Decoded, reference_video_decode

# Clear enough that no rounding turns it: object score, difference of the two best IoUs, stability.
CLEAR_SCORE, CLEAR_IOU, CLEAR_STABILITY = 0.1, 0.02, 0.01
DRAWS = 32
# Centre x, y and radius, in widths of the image.
DISCS = ((0.3, 0.35, 0.15), (0.65, 0.6, 0.2))


class Prompt(NamedTuple):
    """One object's decoder inputs."""

    token_labels: Tensor  # [N]
    embed: Tensor  # [C, S/16, S/16]
    mask: Tensor | None = None  # [1, S/4, S/4]
    add_no_memory: bool = False
    best_of_three: bool = False
    object_present: bool = True
    unit_point_coords: Tensor = torch.empty(0, 2)  # [N, 2]


class ClearPrompts:
    """Draws prompts for one model and one frame."""

    def __init__(
        self, model: Sam2VideoModel, high_res: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> None:
        self.model, self.high_res, self.generator = model, high_res, generator

    def drawn(self, prompt: Prompt) -> tuple[Prompt, Decoded]:
        """The prompt with points and features for which the reference decides clearly, if some are found;
        preferably with the object there."""
        last_clear: tuple[Prompt, Decoded] | None = None
        for _ in range(DRAWS):
            noise = self._noise(*prompt.embed.shape)
            drawn = prompt._replace(
                unit_point_coords=self._points(prompt.token_labels),
                embed=(prompt.embed.float() + 0.05 * prompt.embed.float().std() * noise).half(),
            )
            found = drawn, self._decoded(drawn)
            if self._is_clear(*found):
                last_clear = found
                if found[1].object_score_logit > 0:
                    break
        return last_clear or found

    def _points(self, labels: Tensor) -> Tensor:
        """Clicks into a disc, a box around it, anything for the rest: [N, 2]."""
        x, y, radius = DISCS[0]
        points = torch.rand(len(labels), 2, generator=self.generator)
        near = torch.tensor([x, y]) + 0.1 * radius * self._noise(len(labels), 2)
        for label, away in ((1, 0.0), (2, -radius), (3, radius)):
            points = torch.where((labels == label)[:, None], near + away, points)
        return points

    def _decoded(self, prompt: Prompt) -> Decoded:
        return reference_video_decode(
            self.model,
            (prompt.embed, self.high_res[0], self.high_res[1]),
            prompt.unit_point_coords,
            prompt.token_labels,
            prompt.mask,
            add_no_memory=prompt.add_no_memory,
            best_of_three=prompt.best_of_three,
            object_present=prompt.object_present,
        )

    def _is_clear(self, prompt: Prompt, decoded: Decoded) -> bool:
        # This one adds the no-memory embedding in any case.
        surplus = 0 if prompt.add_no_memory else self.model.no_memory_embedding.view(1, -1, 1, 1)
        planes, ious = reference_decode(
            self.model,  # an image model as well
            (prompt.embed[None].float() - surplus, self.high_res[0], self.high_res[1]),
            prompt.unit_point_coords,
            prompt.token_labels,
            prompt.mask,
        )
        score = abs(float(decoded.object_score_logit))
        best, second = ious[1:].sort(descending=True).values[:2].tolist()
        if score < CLEAR_SCORE or best - second < CLEAR_IOU:
            return False
        config = self.model.mask_decoder.config
        delta = float(config.dynamic_multimask_stability_delta)
        inner, outer = int((planes[0] > delta).sum()), int((planes[0] > -delta).sum())
        off = inner / max(outer, 1) - float(config.dynamic_multimask_stability_thresh)
        return prompt.best_of_three or abs(off) > CLEAR_STABILITY

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)


def decoder_inputs(prompts: list[Prompt], high_res: tuple[Tensor, Tensor]) -> dict[str, Array]:
    """The objects of one call, but for the fingerprint."""
    empty = torch.zeros(1, *high_res[0].shape[2:])

    def numbers(values: Iterable[bool]) -> Array:
        return np.array([float(value) for value in values], np.float32)

    return {
        "image_embed": torch.stack([p.embed for p in prompts]).numpy(),
        "high_res_feats_0": high_res[0].numpy(),
        "high_res_feats_1": high_res[1].numpy(),
        "add_no_memory": numbers(p.add_no_memory for p in prompts),
        "unit_point_coords": torch.stack([p.unit_point_coords for p in prompts]).numpy(),
        "token_labels": torch.stack([p.token_labels for p in prompts]).numpy(),
        "dense_mask_input": torch.stack(
            [empty if p.mask is None else p.mask for p in prompts]
        ).numpy(),
        "has_mask_input": numbers(p.mask is not None for p in prompts),
        "best_of_three": numbers(p.best_of_three for p in prompts),
        "object_present": numbers(p.object_present for p in prompts),
    }


def labels_of(*labels: int) -> Tensor:
    """As many for each object of a call: what is missing is no token."""
    padded = [*labels, *[NO_TOKEN] * (3 - len(labels))]
    return torch.tensor(padded, dtype=torch.int32)


def two_discs(size: int) -> Tensor:
    """Masks UINT8 [2, S, S]: something that a trained model takes for objects."""
    place = (torch.arange(size).float() + 0.5) / size
    y, x = torch.meshgrid(place, place, indexing="ij")
    return torch.stack([(x - a) ** 2 + (y - b) ** 2 < r**2 for a, b, r in DISCS]).to(torch.uint8)


def picture_of(discs: Tensor) -> Tensor:
    """UINT8 [1, 3, S, S]: the masks in two colours on grey."""
    image = torch.full((3, *discs.shape[1:]), 90.0)
    for disc, colour in zip(discs, ((220.0, 60.0, 50.0), (60.0, 200.0, 90.0)), strict=True):
        image = torch.where(disc.bool(), torch.tensor(colour).view(3, 1, 1), image)
    return image.to(torch.uint8)[None]
