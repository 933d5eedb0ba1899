"""SAM 2's memory as torch sees it: N objects at once, differentiable, forwards through a clip.

Objects of one call were prompted on the same frames. What is remembered of which frame follows the
reference: all prompted frames, the six last tracked ones, and up to sixteen pointers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Sam2VideoModel

from export.demo_model.model import Decoded, Features, decode
from export.video_model import memory_channels_of

ABSENT_LOGIT = -1024.0


@dataclass(frozen=True)
class Remembered:
    """Of N objects on one frame: tokens [hw, N, D] and pointers [N, C]."""

    frame: int
    tokens: Tensor
    pointers: Tensor


@dataclass
class Memories:
    prompted: list[Remembered] = field(default_factory=list)
    tracked: list[Remembered] = field(default_factory=list)


class Tracking:
    """The memory's parts around one model."""

    def __init__(self, model: Sam2VideoModel) -> None:
        config = model.config
        self.model = model
        self.image_size = int(model.image_size)
        self._width, self._depth = int(model.hidden_dim), memory_channels_of(config)
        self._memories = int(config.num_maskmem)
        self._pointers = int(config.max_object_pointers_in_encoder)
        self._side = side = self.image_size // 16
        device = model.no_memory_embedding.device

        def grid(encoding: torch.nn.Module, channels: int) -> Tensor:
            places: Tensor = encoding((1, channels, side, side), device, torch.float32)
            return places.flatten(2).permute(2, 0, 1)

        self._frame_places = grid(model.vision_encoder.neck.position_encoding, self._width)
        self._memory_places = grid(model.memory_encoder.position_encoding, self._depth)

    def without_memory(self, embed: Tensor) -> Tensor:
        """[B, C, h, w] as it is decoded where nothing is remembered."""
        bias: Tensor = self.model.no_memory_embedding.view(1, -1, 1, 1)
        return embed + bias

    def condition(self, embed: Tensor, frame: int, memories: Memories) -> Tensor:
        """Features [N, C, h, w] of `frame` in the light of what is remembered; `embed` [B, C, h, w]."""
        model, width, depth = self.model, self._width, self._depth
        prompted, tracked = memories.prompted, memories.tracked
        objects = prompted[0].tokens.shape[1]
        recent = [past for past in tracked if frame - past.frame < self._memories]
        chosen = [(self._memories - 1, past) for past in prompted]
        chosen += [(frame - past.frame - 1, past) for past in recent]
        times = model.memory_temporal_positional_encoding
        places = [(self._memory_places + times[row]).expand(-1, objects, -1) for row, _ in chosen]
        near = [past for past in tracked if frame - past.frame < self._pointers]
        pointing = [past for past in [*prompted, *near] if past.frame < frame]
        parts = width // depth
        pointers = torch.stack([past.pointers for past in pointing])
        tokens = pointers.view(-1, objects, parts, depth).permute(0, 2, 1, 3).flatten(0, 1)
        ages = torch.tensor([frame - past.frame for past in pointing], device=embed.device)
        when = model.temporal_positional_encoding_projection_layer(
            _sines(ages / (self._pointers - 1), width)
        )
        pointer_places = when[:, None].expand(-1, objects, -1).repeat_interleave(parts, 0)
        current = embed.flatten(2).permute(2, 0, 1).repeat_interleave(objects // len(embed), 1)
        conditioned: Tensor = model.memory_attention(
            current_vision_features=current,
            current_vision_position_embeddings=self._frame_places,
            memory=torch.cat([*(past.tokens for _, past in chosen), tokens]),
            memory_posision_embeddings=torch.cat([*places, pointer_places]),  # so spelt there
            num_object_pointer_tokens=len(tokens),
        )
        # [1, N, hw, C] for several objects, [hw, N, C] of one: the batch is what stands next to hw.
        flat = conditioned.reshape(objects, self._side**2, width)
        return flat.transpose(1, 2).reshape(objects, width, self._side, self._side)

    def remember(
        self,
        frame: int,
        embed: Tensor,
        logits: Tensor,
        tokens: Tensor,
        present: Tensor,
        *,
        from_prompt: bool,
    ) -> Remembered:
        """Encode masks of N objects.

        Args:
            frame: its number.
            embed: [B, C, h, w], without the no-memory embedding.
            logits: low-res masks [N, 1, s, s].
            tokens: of the chosen planes [N, C].
            present: FP32 [N], 1 where the object is there.
            from_prompt: masks of prompted frames are made black and white.
        """
        model, config = self.model, self.model.config
        size = (self.image_size, self.image_size)
        there = present.view(-1, 1)
        shown = torch.where(there[..., None, None] > 0.5, logits, ABSENT_LOGIT)
        large = F.interpolate(shown, size=size, mode="bilinear", align_corners=False)
        masks = (large > 0).float() if from_prompt else large.sigmoid()
        masks = masks * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        repeated = embed.repeat_interleave(len(logits) // len(embed), 0)
        features, _ = model.memory_encoder(repeated, masks)
        absent = model.occlusion_spatial_embedding_parameter[..., None, None]
        features = features + (1 - there)[..., None, None] * absent
        pointers = model.object_pointer_proj(tokens)
        pointers = there * pointers + (1 - there) * model.no_object_pointer
        return Remembered(frame, features.flatten(2).permute(2, 0, 1), pointers)

    def decode(
        self,
        embed: Tensor,
        high_res: tuple[Tensor, Tensor],
        coords: Tensor,
        labels: Tensor,
        mask_input: Tensor | None = None,
    ) -> Decoded:
        """`coords` [N, P, 2] in pixels; where P is 0, the two padding points that stand for no prompt."""
        if coords.shape[1] == 0:
            coords = coords.new_zeros(len(coords), 1, 2)
            labels = labels.new_full((len(labels), 1), -1)
        return decode(
            self.model,
            Features(embed, *high_res, pyramid=(embed, embed, embed)),
            coords,
            labels,
            mask_input,
        )


def _sines(positions: Tensor, channels: int) -> Tensor:
    half = channels // 2
    periods = 10000 ** (2 * (torch.arange(half, device=positions.device) // 2).float() / half)
    angles = positions[:, None] / periods
    return torch.cat([angles.sin(), angles.cos()], dim=1)
