"""Memory attention as one graph: a frame's features, conditioned on what is remembered of B objects."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.layers import Module, dense, fp32, layer_norm
from export.video_model import memory_channels_of, rope_theta_of

# Weight of the frame's own positional encoding, where it is added to the features.
POSITION_WEIGHT = 0.1
# Attention is computed for this many positions of the frame at a time (4096 of them at 1024 px), so that
# the weights of one part stay near the processor: 1.6 times the speed and a fifth of the memory.
QUERIES_AT_ONCE = 256


class MemoryAttentionGraph(nn.Module):
    """Self-attention within the frame, cross-attention to memories and object pointers.

    Memories and pointers are sets: each brings its place in time along, and none is padding.
    """

    frame_position: Tensor
    memory_position: Tensor
    memory_times: Tensor
    cosines: Tensor
    sines: Tensor
    periods: Tensor
    encoder_fingerprint: Tensor
    memory_fingerprint: Tensor

    def __init__(self, model: Module, encoder_fingerprint: int, memory_fingerprint: int) -> None:
        super().__init__()
        attention = model.memory_attention
        width = self.width = int(model.hidden_dim)
        depth = self.memory_channels = memory_channels_of(model.config)
        side = self.side = int(model.image_size) // 16
        self.blocks = nn.ModuleList(_Block(layer) for layer in attention.layers)
        self.last_norm = attention.layer_norm
        self.time_projection = model.temporal_positional_encoding_projection_layer
        with torch.no_grad():
            frame = model.vision_encoder.neck.position_encoding(
                (1, width, side, side), torch.device("cpu"), torch.float32
            )
            memory = model.memory_encoder.position_encoding(
                (1, depth, side, side), torch.device("cpu"), torch.float32
            )
        angles = rotation_angles(side, width, rope_theta_of(model.config))
        half = width // 2
        for name, tensor in (
            ("frame_position", POSITION_WEIGHT * frame.flatten(2).transpose(1, 2)),
            ("memory_position", memory.flatten(2).transpose(1, 2)[None]),
            ("memory_times", model.memory_temporal_positional_encoding.reshape(-1, depth)),
            ("cosines", angles.cos()),
            ("sines", angles.sin()),
            ("periods", 10000 ** (2 * (torch.arange(half) // 2).float() / half)),
            ("encoder_fingerprint", torch.tensor([encoder_fingerprint])),
            ("memory_fingerprint", torch.tensor([memory_fingerprint])),
        ):
            self.register_buffer(name, tensor.detach().clone())

    def forward(  # noqa: PLR0917 - the tracer passes tensors by position
        self,
        image_embed: Tensor,
        encoder_fingerprint: Tensor,
        maskmem_features: Tensor,
        maskmem_tpos: Tensor,
        obj_ptrs: Tensor,
        obj_ptr_offsets: Tensor,
        memory_fingerprint: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Condition one frame on the memories of B objects.

        Args:
            image_embed: FP16 [1, C, S/16, S/16], without `no_memory_embedding`.
            encoder_fingerprint: INT64 [1, 1], of these features.
            maskmem_features: FP16 [B, M, D, S/16, S/16], M at least 1.
            maskmem_tpos: INT64 [B, M], the row of the temporal encoding.
            obj_ptrs: FP32 [B, P, C]; P may be 0.
            obj_ptr_offsets: FP32 [B, P], frames over (most pointers - 1).
            memory_fingerprint: INT64 [1, 1], of memories and pointers.

        Returns:
            `conditioned_embed` FP16 [B, C, S/16, S/16] and `fingerprint_matches` BOOL [1].
        """
        keys, values, pointer_keys = self._remembered(
            maskmem_features, maskmem_tpos, obj_ptrs, obj_ptr_offsets
        )
        x = image_embed.float().reshape(1, self.width, -1).transpose(1, 2) + self.frame_position
        # One frame for all objects, until the first cross-attention tells them apart.
        for module in self.blocks:
            block: Any = module
            x = x + self._within_frame(block, x)
            x = x + self._to_memory(block, x, keys, values, pointer_keys)
            normed = layer_norm(block.norm3, x)
            x = x + fp32(dense(block.linear2, F.relu(dense(block.linear1, normed))))
        x = layer_norm(self.last_norm, x)
        conditioned = x.transpose(1, 2).reshape(-1, self.width, self.side, self.side).half()
        same_encoder = encoder_fingerprint[0] == self.encoder_fingerprint
        same_memory = memory_fingerprint[0] == self.memory_fingerprint
        return conditioned, same_encoder & same_memory

    def _remembered(
        self,
        maskmem_features: Tensor,
        maskmem_tpos: Tensor,
        obj_ptrs: Tensor,
        obj_ptr_offsets: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Memories as keys [B, M, hw, D], all values [B, T, D], pointers as keys [B, P * C/D, D]."""
        depth, area = self.memory_channels, self.side**2
        objects = maskmem_features.shape[0]
        memory = maskmem_features.float().reshape(objects, -1, depth, area).transpose(2, 3)
        times = self.memory_times[maskmem_tpos]
        keys = memory + self.memory_position + times.unsqueeze(2)
        # A pointer of C channels is C/D tokens. They are a set as well, so no interleaving is needed,
        # and with it no reshape that an empty tensor could confuse.
        parts = self.width // depth
        pointers = torch.cat(torch.split(obj_ptrs, depth, dim=2), dim=1)
        angle = obj_ptr_offsets.unsqueeze(2) / self.periods
        when = fp32(dense(self.time_projection, torch.cat([angle.sin(), angle.cos()], dim=2)))
        pointer_keys = pointers + torch.cat([when] * parts, dim=1)
        values = torch.cat([memory.reshape(objects, -1, depth), pointers], dim=1)
        return keys, values, pointer_keys

    def _within_frame(self, block: "_Block", x: Tensor) -> Tensor:
        """Self-attention: [B, hw, C] ► the same."""
        normed = layer_norm(block.norm1, x)
        query = self._rotated(dense(block.self_query, normed))
        key = self._rotated(dense(block.self_key, normed))
        value = dense(block.self_attn.v_proj, normed)
        return fp32(dense(block.self_attn.o_proj, attend(query, key, value)))

    def _to_memory(
        self, block: "_Block", x: Tensor, keys: Tensor, values: Tensor, pointer_keys: Tensor
    ) -> Tensor:
        """Cross-attention: [1 or B, hw, C] ► [B, hw, C]. Pointers have no place in the frame: no rotation."""
        attn = block.cross_attn
        query = self._rotated(dense(block.cross_query, layer_norm(block.norm2, x)))
        rotated = self._rotated(dense(block.cross_key, keys))
        rotated = rotated.reshape(keys.shape[0], -1, self.width)
        key = torch.cat([rotated, dense(block.cross_key, pointer_keys)], dim=1)
        return fp32(dense(attn.o_proj, attend(query, key, dense(attn.v_proj, values))))

    def _rotated(self, x: Tensor) -> Tensor:
        """Rotary encoding of [..., hw, C]: the pairs' first channels, then their second ones."""
        first, second = torch.split(fp32(x), self.width // 2, dim=-1)
        turned = torch.cat(
            [
                first * self.cosines - second * self.sines,
                second * self.cosines + first * self.sines,
            ],
            dim=-1,
        )
        return turned if x.dtype == torch.float32 else turned.to(x.dtype)


class _Block(nn.Module):
    """A layer's weights, the queries' and keys' rows in the order that the rotation wants."""

    def __init__(self, layer: Module) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = layer.self_attn, layer.cross_attn_image
        self.self_query, self.self_key = (
            pairs_apart(projection)
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        )
        self.cross_query, self.cross_key = (
            pairs_apart(projection)
            for projection in (layer.cross_attn_image.q_proj, layer.cross_attn_image.k_proj)
        )
        self.norm1, self.norm2, self.norm3 = layer.layer_norm1, layer.layer_norm2, layer.layer_norm3
        self.linear1, self.linear2 = layer.linear1, layer.linear2


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one head, [B, hw, C] to [B, T, C], a constant number of queries at a time."""
    key = key.transpose(1, 2)
    mixed = []
    # Scaling the query first keeps FP16 logits in range.
    scaled = query * int(query.shape[2]) ** -0.5
    for part in torch.split(scaled, QUERIES_AT_ONCE, dim=1):
        weights = torch.softmax(fp32(part @ key), dim=-1)
        weights = weights if value.dtype == torch.float32 else weights.to(value.dtype)
        mixed.append(weights @ value)
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


def pairs_apart(projection: Module) -> nn.Linear:
    """The projection with its outputs reordered: even channels first, then odd ones.

    Rotary encoding turns pairs of neighbouring channels. Reordered alike for queries and keys, every product
    stays what it was, and the rotation becomes one of two halves, without complex numbers or strides.
    """
    outputs = int(projection.out_features)
    order = torch.cat([torch.arange(0, outputs, 2), torch.arange(1, outputs, 2)])
    reordered = nn.Linear(int(projection.in_features), outputs)
    with torch.no_grad():
        reordered.weight.copy_(projection.weight[order])
        reordered.bias.copy_(projection.bias[order])
    return reordered


def rotation_angles(side: int, channels: int, theta: float) -> Tensor:
    """Axial rotary encoding's angles [side * side, channels / 2]: by x for one half, by y for the other."""
    frequencies = theta ** -(torch.arange(0, channels, 4).float() / channels)
    place = torch.arange(side * side)
    x, y = (place % side).float(), torch.div(place, side, rounding_mode="floor").float()
    return torch.cat([torch.outer(x, frequencies), torch.outer(y, frequencies)], dim=1)
