"""Prompt encoder and mask decoder as one graph: embeddings and B objects' prompts in, planes out."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.layers import (
    Module,
    attention,
    channel_norm,
    dense,
    edge,
    feed_forward,
    fp32,
    layer_norm,
)
from export.sizes import image_size_of

NOT_A_POINT = -1
NO_TOKEN = -2
# Added to attention logits of a token that is none: exp() of it is exactly 0, and it stays finite.
NO_TOKEN_BIAS = -1e9
# Coordinates beyond this many image widths mean nothing, and larger ones overflow on their way.
UNIT_COORD_LIMIT = 1e6


class DecoderSteps(nn.Module):
    """SAM 2.1's prompt encoder and mask decoder, step by step: for one image, or for a video's frame."""

    gaussian: Tensor
    image_position: Tensor
    label_table: Tensor
    output_tokens: Tensor
    no_memory: Tensor
    no_mask: Tensor
    fingerprint: Tensor

    def __init__(self, model: Module, fingerprint: int) -> None:
        super().__init__()
        self.image_size = image_size_of(model.config)
        self.decoder = model.mask_decoder
        self.mask_embed = model.prompt_encoder.mask_embed
        prompts, decoder = model.prompt_encoder, model.mask_decoder
        width = self.embed_channels = int(prompts.hidden_size)
        with torch.no_grad():
            # Row label + 2: no token, not a point, background, foreground, two box corners.
            label_table = torch.cat(
                [
                    torch.zeros(1, width),
                    prompts.not_a_point_embed.weight.float(),
                    prompts.point_embed.weight.float(),
                ]
            )
            output_tokens = torch.cat(
                [t.weight.float() for t in (decoder.obj_score_token, decoder.iou_token)]
                + [decoder.mask_tokens.weight.float()]
            )
            image_position = model.get_image_wide_positional_embeddings().float()
        for name, tensor in (
            ("gaussian", prompts.shared_embedding.positional_embedding.float()),
            ("image_position", image_position.flatten(2).transpose(1, 2)),
            ("label_table", label_table),
            ("output_tokens", output_tokens[None]),
            ("no_memory", model.no_memory_embedding.float().view(1, 1, width)),
            ("no_mask", prompts.no_mask_embed.weight.float().view(1, 1, width)),
            ("fingerprint", torch.tensor([fingerprint], dtype=torch.int64)),
        ):
            self.register_buffer(name, tensor.detach().clone())

    def _sparse(self, unit_point_coords: Tensor, token_labels: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens [B, 6 + N, C], and the attention bias [B, 1, 1, 6 + N] that drops some."""
        size = self.image_size
        unit = unit_point_coords.clamp(-UNIT_COORD_LIMIT, UNIT_COORD_LIMIT)
        # Half a pixel, so that a coordinate means the pixel's centre: the reference's order of steps.
        centred = 2 * ((unit * size + 0.5) / size) - 1
        phase = (2 * math.pi) * (centred @ self.gaussian)
        position = torch.cat([phase.sin(), phase.cos()], dim=-1)
        is_point = (token_labels >= 0).unsqueeze(2)
        # Selected, not multiplied: what stands in a dropped token's coordinates must not matter.
        position = torch.where(is_point, position, torch.zeros_like(position))
        sparse = position + self.label_table[(token_labels - NO_TOKEN).long()]
        dropped = (token_labels == NO_TOKEN).float()
        output_tokens = self.output_tokens.expand(dropped.shape[0], -1, -1)
        kept = torch.zeros_like(output_tokens[:, :, 0])
        key_bias = torch.cat([kept, NO_TOKEN_BIAS * dropped], dim=1)
        return torch.cat([output_tokens, sparse], dim=1), key_bias[:, None, None]

    def _dense(self, dense_mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """The mask's embedding [B, S/16 * S/16, C], or the no-mask embedding, object by object."""
        embed = self.mask_embed
        x = channel_norm(embed.layer_norm1, dense(embed.conv1, dense_mask_input))
        x = channels_last(dense(embed.conv2, embed.activation(x)))
        x = embed.activation(layer_norm(embed.layer_norm2, x))
        # Of size 1: a product over the channels.
        weight = embed.conv3.weight.flatten(1)
        x = fp32(F.linear(x.to(weight.dtype), weight, embed.conv3.bias))
        return torch.where(has_mask_input.view(-1, 1, 1) > 0.5, x, self.no_mask)

    def _two_way(self, sparse: Tensor, key_bias: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The two-way transformer: tokens [B, 6 + N, C] and the image's pixels [B, S/16 * S/16, C]."""
        tokens = sparse
        transformer, position = self.decoder.transformer, self.image_position
        for layer in transformer.layers:
            query = tokens if layer.skip_first_layer_pe else tokens + sparse
            attended = cross_attention(
                layer.self_attn,
                dense(layer.self_attn.q_proj, query),
                dense(layer.self_attn.k_proj, query),
                tokens,
                key_bias,
            )
            tokens = attended if layer.skip_first_layer_pe else tokens + attended
            tokens = layer_norm(layer.layer_norm1, tokens)
            attn = layer.cross_attn_token_to_image
            key = positioned(attn.k_proj, pixels, position)
            attended = cross_attention(attn, dense(attn.q_proj, tokens + sparse), key, pixels)
            tokens = layer_norm(layer.layer_norm2, tokens + attended)
            tokens = layer_norm(layer.layer_norm3, tokens + fp32(feed_forward(layer.mlp, tokens)))
            attn = layer.cross_attn_image_to_token
            query = positioned(attn.q_proj, pixels, position)
            key = dense(attn.k_proj, tokens + sparse)
            attended = cross_attention(attn, query, key, tokens, key_bias)
            pixels = layer_norm(layer.layer_norm4, pixels + attended)
        attn = transformer.final_attn_token_to_image
        key = positioned(attn.k_proj, pixels, position)
        attended = cross_attention(attn, dense(attn.q_proj, tokens + sparse), key, pixels)
        return layer_norm(transformer.layer_norm_final_attn, tokens + attended), pixels

    def _planes(
        self, tokens: Tensor, pixels: Tensor, high_res_feats_0: Tensor, high_res_feats_1: Tensor
    ) -> Tensor:
        """Upscale the image four times and read it out once per mask token: [B, 4, S/4, S/4].

        Channels stay last. The finest pixels stay in fours, one four for each pixel of the map before; it is
        the planes that are put in rows, and they are the least of it.
        """
        decoder, side = self.decoder, self.image_size // 16
        x = upscaled(decoder.upscale_conv1, pixels)
        x = in_rows(x, side) + channels_last(high_res_feats_1).float()
        x = decoder.activation(layer_norm(decoder.upscale_layer_norm, x))
        finest = in_fours(channels_last(high_res_feats_0), 2 * side)
        x = decoder.activation(upscaled(decoder.upscale_conv2, x) + finest.float())
        readouts = torch.stack(
            [
                fp32(feed_forward(mlp, tokens[:, 2 + plane]))
                for plane, mlp in enumerate(decoder.output_hypernetworks_mlps)
            ],
            dim=1,
        )
        # In FP32: the logits themselves, and one small product.
        planes: Tensor = readouts @ x.transpose(1, 2)
        planes = planes.reshape(-1, 4, 2 * side, 2 * side, 2, 2).transpose(3, 4)
        return planes.reshape(-1, 4, 4 * side, 4 * side)

    def _ious(self, tokens: Tensor) -> Tensor:
        """The planes' predicted IoUs [B, 4]."""
        return torch.sigmoid(fp32(feed_forward(self.decoder.iou_prediction_head, tokens[:, 1])))


class DecoderGraph(DecoderSteps):
    """The B objects of one image."""

    def forward(  # noqa: PLR0917 - the tracer passes tensors by position
        self,
        image_embed: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        encoder_fingerprint: Tensor,
        unit_point_coords: Tensor,
        token_labels: Tensor,
        dense_mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode all planes for B objects of one image.

        Args:
            image_embed: FP16 [1, C, S/16, S/16], without `no_memory_embedding`.
            high_res_feats_0: FP16 [1, C/8, S/4, S/4].
            high_res_feats_1: FP16 [1, C/4, S/8, S/8].
            encoder_fingerprint: INT64 [1, 1].
            unit_point_coords: FP32 [B, N, 2], x over the original width, y over the height.
            token_labels: INT32 [B, N]; 0, 1 clicks, 2, 3 box corners, -1 not a point, -2 no token
                at all: it influences nothing, as if N were one less for that object.
            dense_mask_input: FP32 [B, 1, S/4, S/4], logits of an earlier plane.
            has_mask_input: FP32 [B], 1 where the object's mask counts, else 0.

        Returns:
            `plane_logits` FP32 [B, 4, S/4, S/4], `plane_ious` FP32 [B, 4], and
            `fingerprint_matches` BOOL [1]. Plane 0 is the single mask, 1 to 3 the candidates.
        """
        sparse, key_bias = self._sparse(unit_point_coords, token_labels)
        pixels = channels_last(image_embed).float() + self.no_memory
        pixels = pixels + self._dense(dense_mask_input, has_mask_input)
        tokens, pixels = self._two_way(sparse, key_bias, pixels)
        planes = self._planes(tokens, pixels, high_res_feats_0, high_res_feats_1)
        return planes, self._ious(tokens), encoder_fingerprint[0] == self.fingerprint


def positioned(projection: nn.Linear, pixels: Tensor, position: Tensor) -> Tensor:
    """`projection` of pixels and positions, [B, T, C]: that of the positions is a constant of the graph."""
    with torch.no_grad():
        constant = F.linear(position, projection.weight.float(), projection.bias.float())
    weight = projection.weight
    return F.linear(pixels.to(weight.dtype), weight) + constant.to(weight.dtype)


def upscaled(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """A transposed convolution of size and stride 2 as the product that it is; FP32 out.

    [B, T, C] ► [B, 4T, C']: each pixel's four follow each other, row by row.
    """
    channels = conv.out_channels
    weight = conv.weight.permute(0, 2, 3, 1).reshape(conv.in_channels, 4 * channels)
    bias = conv.bias
    assert bias is not None  # noqa: S101 - transformers' always have one
    product = x.to(weight.dtype) @ weight + bias.repeat(4)
    return fp32(product).reshape(-1, 4 * edge(x, 1), channels)


def channels_last(feats: Tensor) -> Tensor:
    """[B, C, H, W] ► [B, H * W, C]."""
    return feats.reshape(-1, edge(feats, 1), edge(feats, 2) * edge(feats, 3)).transpose(1, 2)


def in_rows(x: Tensor, side: int) -> Tensor:
    """What `upscaled` gives of a map of edge `side`, row by row: [B, 4 * side * side, C]."""
    x = x.reshape(-1, side, side, 2, 2 * edge(x, 2)).transpose(2, 3)
    return x.reshape(-1, 4 * side * side, edge(x, 4) // 2)


def in_fours(x: Tensor, side: int) -> Tensor:
    """The inverse of `in_rows`."""
    x = x.reshape(-1, side, 2, side, 2 * edge(x, 2)).transpose(2, 3)
    return x.reshape(-1, 4 * side * side, edge(x, 4) // 2)


def cross_attention(
    attn: Module, query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None
) -> Tensor:
    """Multi-head attention of SAM's decoder over [B, T, C]; FP32 out.

    Query and key come projected, the value as it is.
    """
    mixed = attention(
        query,
        key,
        dense(attn.v_proj, value),
        attn.num_attention_heads,
        key_bias=key_bias,
    )
    return fp32(dense(attn.o_proj, mixed))
