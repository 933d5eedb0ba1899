"""The image encoder as one graph: pixels in, SAM 2.1's features for the mask decoder out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2Model

from export.layers import Module, attention, dense, edge, feed_forward, fp32, layer_norm
from export.pixels import FP16_ZERO
from export.sizes import image_size_of

# ImageNet's statistics, as SAM 2's transforms apply them to pixels in [0, 1].
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class EncoderGraph(nn.Module):
    """`resized_image` ► image embedding, high-resolution features, fingerprint.

    The features are without `no_memory_embedding`, which the image decoder adds (video does not).
    """

    pixel_mean: Tensor
    fp16_pixel_mean: Tensor
    pixel_std: Tensor
    position: Tensor
    fingerprint: Tensor

    def __init__(self, model: Sam2Model, fingerprint: int) -> None:
        super().__init__()
        self.image_size = image_size_of(model.config)
        self.backbone = model.vision_encoder.backbone
        self.neck = model.vision_encoder.neck
        self.conv_s0 = model.mask_decoder.conv_s0
        self.conv_s1 = model.mask_decoder.conv_s1
        side = self.image_size // self.backbone.config.patch_stride[0]
        with torch.no_grad():
            position = self.backbone._get_pos_embed((side, side)).detach().clone()
        # Constants of this image size: interpolated once here instead of in every request.
        self.register_buffer("position", position.float())
        self.register_buffer("pixel_mean", 255 * torch.tensor(PIXEL_MEAN).view(3, 1, 1))
        self.register_buffer("fp16_pixel_mean", self.pixel_mean - FP16_ZERO)
        self.register_buffer("pixel_std", 255 * torch.tensor(PIXEL_STD).view(3, 1, 1))
        self.register_buffer("fingerprint", torch.tensor([[fingerprint]], dtype=torch.int64))

    def forward(self, resized_image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode a batch.

        Args:
            resized_image: [batch, 3, S, S], RGB: FP16, grey levels less `FP16_ZERO`; or UINT8, grey levels.
                Which of them a written graph takes is decided by what it is traced with.

        Returns:
            `image_embed` FP16 [batch, C, S/16, S/16], `high_res_feats_0` FP16
            [batch, C/8, S/4, S/4], `high_res_feats_1` FP16 [batch, C/4, S/8, S/8],
            `encoder_fingerprint` INT64 [batch, 1].
        """
        mean = self.pixel_mean if resized_image.dtype == torch.uint8 else self.fp16_pixel_mean
        pixels = (resized_image.float() - mean) / self.pixel_std
        stages = self._stages(pixels)
        level_0, level_1, level_2 = self._pyramid(stages)
        fingerprint = self.fingerprint.expand(resized_image.shape[0], 1)
        return (
            level_2.half(),
            dense(self.conv_s0, level_0).half(),
            dense(self.conv_s1, level_1).half(),
            fingerprint,
        )

    def _stages(self, pixels: Tensor) -> list[Tensor]:
        """Hiera's stages: maps [batch, H, W, dim] at strides 4, 8, 16, 32."""
        x = fp32(dense(self.backbone.patch_embed.projection, pixels)).permute(0, 2, 3, 1)
        x = x + self.position
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            x = hiera_block(block, x)
            if index in self.backbone.stage_ends:
                stages.append(x)
        return stages

    def _pyramid(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The feature pyramid's levels at strides 4, 8, 16, each [batch, C, H, W]."""
        coarsest = len(stages) - 1
        levels: list[Tensor] = []
        for index in range(coarsest, -1, -1):
            lateral = dense(self.neck.convs[coarsest - index], stages[index].permute(0, 3, 1, 2))
            if index in self.neck.fpn_top_down_levels and index != coarsest:
                lateral = lateral + F.interpolate(levels[-1], scale_factor=2.0, mode="nearest")
            levels.append(lateral)
        return levels[-1], levels[-2], levels[-3]


def hiera_block(block: Module, x: Tensor) -> Tensor:
    """One transformer block of Hiera on [batch, H, W, dim]; the residual stream stays FP32.

    Attention is within windows of `block.window_size` (0: the whole map). At the start of a stage
    queries and residual are pooled, which halves the map and, with it, the windows.
    """
    normed = layer_norm(block.layer_norm1, x)
    stride = block.query_stride[0] if block.query_stride else 1
    residual = x
    if block.dim != block.dim_out:
        residual = fp32(dense(block.proj, normed))
        residual = pool(residual, stride)
    height = edge(x, 1)
    window = block.window_size or height
    windows, padded = to_windows(normed, window)
    attended = window_attention(block.attn, windows, stride)
    x = residual + from_windows(attended, window // stride, padded // stride, height // stride)
    return x + fp32(feed_forward(block.mlp, layer_norm(block.layer_norm2, x)))


def window_attention(attn: Module, windows: Tensor, stride: int) -> Tensor:
    """Self-attention within windows [n, w, w, dim] ► [n, w/stride, w/stride, dim_out]."""
    side, channels = edge(windows, 1), attn.dim_out
    query, key, value = torch.split(dense(attn.qkv, windows), channels, dim=3)
    query = pool(query, stride)
    mixed = attention(
        query.reshape(-1, (side // stride) ** 2, channels),
        key.reshape(-1, side * side, channels),
        value.reshape(-1, side * side, channels),
        attn.num_attention_heads,
        constant_tokens=True,
    )
    mixed = dense(attn.proj, mixed)
    return fp32(mixed).reshape(-1, side // stride, side // stride, channels)


def pool(x: Tensor, stride: int) -> Tensor:
    """Max-pool a map [n, H, W, dim] by `stride`."""
    if stride == 1:
        return x
    return F.max_pool2d(x.permute(0, 3, 1, 2), stride, stride).permute(0, 2, 3, 1)


def to_windows(x: Tensor, window: int) -> tuple[Tensor, int]:
    """Cut a square map [batch, H, H, dim] into windows [n, window, window, dim], zero-padded at the
    right and bottom; the second result is the padded edge length."""
    height, channels = edge(x, 1), edge(x, 3)
    padding = -height % window
    padded = height + padding
    if padding:
        x = F.pad(x, (0, 0, 0, padding, 0, padding))
    if padded == window:
        return x, padded
    count = padded // window
    x = x.reshape(-1, count, window, count, window, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, window, window, channels), padded


def from_windows(windows: Tensor, window: int, padded: int, height: int) -> Tensor:
    """The inverse of `to_windows`, padding cut off: [batch, height, height, dim]."""
    channels = edge(windows, 3)
    count = padded // window
    x = windows
    if count > 1:
        x = x.reshape(-1, count, count, window, window, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, padded, padded, channels)
    return x[:, :height, :height] if padded != height else x
