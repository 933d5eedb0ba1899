"""The image encoder as one graph: pixels in, SAM 2.1's features for the mask decoder out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2Model

from export.layers import (
    Module,
    attention,
    dense,
    edge,
    feed_forward,
    fp32,
    fused_attention,
    layer_norm,
    projections,
)
from export.pixels import FP16_ZERO
from export.sizes import image_size_of

# Maps from which on one operator for attention pays (512 px): smaller graphs keep to standard operators.
FUSED_TOKENS = 1024
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
        # Written for processors; a GPU's graph has no operators that TensorRT does not know.
        self.for_processors = True
        self.image_size = image_size_of(model.config)
        self.backbone = model.vision_encoder.backbone
        self.neck = model.vision_encoder.neck
        decoder = model.mask_decoder
        self.conv_s0, self.conv_s1 = decoder.conv_s0, decoder.conv_s1
        # Meta's pyramids add nothing to their two finest levels; others may.
        self.high_res = None
        if not {0, 1} & set(self.neck.fpn_top_down_levels):
            self.high_res = nn.ModuleList(
                one_product(lateral, conv)
                for lateral, conv in (
                    (self.neck.convs[-1], self.conv_s0),
                    (self.neck.convs[-2], self.conv_s1),
                )
            )
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
        image_embed, feats_0, feats_1 = self._features(self._stages(pixels))
        fingerprint = self.fingerprint.expand(resized_image.shape[0], 1)
        return image_embed.half(), feats_0.half(), feats_1.half(), fingerprint

    def _stages(self, pixels: Tensor) -> list[Tensor]:
        """Hiera's stages: maps [batch, H, W, dim] at strides 4, 8, 16, 32."""
        x = fp32(dense(self.backbone.patch_embed.projection, pixels)).permute(0, 2, 3, 1)
        x = x + self.position
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            x = hiera_block(block, x, fused=self.for_processors)
            if index in self.backbone.stage_ends:
                stages.append(x)
        return stages

    def _features(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The pyramid's level at stride 16, and the decoder's projections of those at 4 and 8."""
        if self.high_res is None:
            level_0, level_1, level_2 = self._pyramid(stages, finest=0)
            return level_2, dense(self.conv_s0, level_0), dense(self.conv_s1, level_1)
        high_res = [
            dense(product, stage).permute(0, 3, 1, 2)
            for product, stage in zip(self.high_res, stages, strict=False)
        ]
        return self._pyramid(stages, finest=2)[0], high_res[0], high_res[1]

    def _pyramid(self, stages: list[Tensor], finest: int) -> list[Tensor]:
        """The feature pyramid's levels, each [batch, C, H, W], but for the coarsest one; the finest first."""
        coarsest = len(stages) - 1
        levels: list[Tensor] = []
        for index in range(coarsest, finest - 1, -1):
            lateral = dense(self.neck.convs[coarsest - index], stages[index].permute(0, 3, 1, 2))
            if index in self.neck.fpn_top_down_levels and index != coarsest:
                lateral = lateral + F.interpolate(levels[-1], scale_factor=2.0, mode="nearest")
            levels.append(lateral)
        return levels[:0:-1]


def one_product(lateral: nn.Conv2d, high_res: nn.Conv2d) -> nn.Linear:
    """Two 1x1 convolutions in a row as the one product that they are, over channels in the last axis.

    Of the pyramid's two finest levels nothing is used but the decoder's narrow projection of each, and
    nothing is added in between: widening to C channels first costs nine times the arithmetic and 67 MB.
    """
    first, second = (conv.weight.detach().double()[:, :, 0, 0] for conv in (lateral, high_res))
    biases = [conv.bias.detach().double() for conv in (lateral, high_res) if conv.bias is not None]
    product = nn.Linear(first.shape[1], second.shape[0])
    with torch.no_grad():
        product.weight.copy_(second @ first)
        product.bias.copy_(second @ biases[0] + biases[1])
    return product


def hiera_block(block: Module, x: Tensor, *, fused: bool = False) -> Tensor:
    """One transformer block of Hiera on [batch, H, W, dim]; the residual stream stays FP32.

    Attention is within windows of `block.window_size` (0: the whole map). At the start of a stage
    queries and residual are pooled, which halves the map and, with it, the windows. `fused`: attention over
    the whole map is one operator, where the map is large enough to gain by it.
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
    fused = fused and not block.window_size and height * height >= FUSED_TOKENS
    attended = window_attention(block.attn, windows, stride, fused=fused)
    x = residual + from_windows(attended, window // stride, padded // stride, height // stride)
    return x + fp32(feed_forward(block.mlp, layer_norm(block.layer_norm2, x)))


def window_attention(attn: Module, windows: Tensor, stride: int, *, fused: bool = False) -> Tensor:
    """Self-attention within windows [n, w, w, dim] ► [n, w/stride, w/stride, dim_out]."""
    side, channels = edge(windows, 1), attn.dim_out
    query, key, value = projections(attn.qkv, windows, 3)
    query = pool(query, stride).reshape(-1, (side // stride) ** 2, channels)
    key, value = (x.reshape(-1, side * side, channels) for x in (key, value))
    heads = attn.num_attention_heads
    if fused:
        mixed = fused_attention(query, key, value, heads)
    else:
        mixed = attention(query, key, value, heads, constant_tokens=True)
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
