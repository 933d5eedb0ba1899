"""What tracking computes, by transformers' own modules, one object at a time: the graphs' yardstick."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Sam2VideoModel

from export.decoder_graph import NO_TOKEN
from export.mask_prompt_graph import LOGIT_SCALE, LOGIT_SHIFT


class Decoded(NamedTuple):
    """One object's mask [1, S/4, S/4], IoU [1], score [1] and pointer [C]."""

    low_res_mask: Tensor
    iou_prediction: Tensor
    object_score_logit: Tensor
    obj_ptr: Tensor


@torch.no_grad()
def reference_condition(  # noqa: PLR0917
    model: Sam2VideoModel,
    image_embed: Tensor,
    memories: Tensor,
    times: Tensor,
    pointers: Tensor,
    offsets: Tensor,
) -> Tensor:
    """Features [C, S/16, S/16] conditioned on one object's memories.

    Args:
        model: the model in FP32.
        image_embed: [C, S/16, S/16], without `no_memory_embedding`.
        memories: [M, D, S/16, S/16].
        times: [M], rows of the temporal encoding.
        pointers: [P, C].
        offsets: [P], frames over (most pointers - 1).
    """
    width, side = image_embed.shape[0], image_embed.shape[1]
    depth = memories.shape[1]
    cpu = torch.device("cpu")

    def grid(position_encoding: torch.nn.Module, channels: int) -> Tensor:
        encoded = position_encoding((1, channels, side, side), cpu, torch.float32)
        flat: Tensor = encoded.flatten(2).permute(2, 0, 1)
        return flat

    places = grid(model.memory_encoder.position_encoding, depth)
    tokens = [memory.float().flatten(1).T[:, None] for memory in memories]
    positions = [places + model.memory_temporal_positional_encoding[time] for time in times]
    parts = width // depth
    half = width // 2
    angles = offsets[:, None] / 10000 ** (2 * (torch.arange(half) // 2).float() / half)
    when = model.temporal_positional_encoding_projection_layer(
        torch.cat([angles.sin(), angles.cos()], dim=1)
    )
    tokens.append(pointers.reshape(-1, 1, depth))
    positions.append(when.repeat_interleave(parts, dim=0)[:, None])
    conditioned: Tensor = model.memory_attention(
        current_vision_features=image_embed.float().flatten(1).T[:, None],
        memory=torch.cat(tokens),
        current_vision_position_embeddings=grid(model.vision_encoder.neck.position_encoding, width),
        memory_posision_embeddings=torch.cat(positions),  # so spelt there
        num_object_pointer_tokens=parts * len(pointers),
    )
    return conditioned.reshape(side * side, width).T.reshape(width, side, side)


@torch.no_grad()
def reference_video_decode(
    model: Sam2VideoModel,
    embeddings: tuple[Tensor, Tensor, Tensor],
    unit_point_coords: Tensor,
    token_labels: Tensor,
    mask_input: Tensor | None,
    *,
    add_no_memory: bool,
    best_of_three: bool,
    object_present: bool = True,
) -> Decoded:
    """One object's mask, score and pointer.

    Args:
        model: the model in FP32.
        embeddings: image_embed [C, S/16, S/16], raw or conditioned; high-resolution features [1, …].
        unit_point_coords: [N, 2], x and y over the original width and height.
        token_labels: [N]; tokens labelled -2 are taken out.
        mask_input: [1, S/4, S/4] logits, or None.
        add_no_memory: whether nothing is remembered.
        best_of_three: the best candidate, or the single mask with its stability fallback.
        object_present: False for an empty mask prompt.
    """
    image_embed, *high_res = (tensor.float() for tensor in embeddings)
    if add_no_memory:
        image_embed = image_embed + model.no_memory_embedding.view(-1, 1, 1)
    kept = token_labels != NO_TOKEN
    points = unit_point_coords[kept][None, None] * model.image_size
    sparse = model.prompt_encoder._embed_points(points, token_labels[kept][None, None], pad=False)
    _, dense = model.prompt_encoder(
        None, None, None, None if mask_input is None else mask_input[None]
    )
    masks, ious, tokens, scores = model.mask_decoder(
        image_embeddings=image_embed[None],
        image_positional_embeddings=model.get_image_wide_positional_embeddings(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=best_of_three,
        high_resolution_features=high_res,
    )
    # With the single mask there is one of each, and its token, even where another plane took its place.
    best = int(ious[0, 0].argmax())
    score = scores[0, 0].reshape(1)
    mask = masks[0, 0, best][None]
    pointer = model.object_pointer_proj(tokens[0, 0, best])
    if score <= 0:
        mask = torch.full_like(mask, -1024.0)
    if score <= 0 or not object_present:
        pointer = model.no_object_pointer[0]
    return Decoded(mask, ious[0, 0, best][None], score, pointer)


@torch.no_grad()
def reference_remember(
    model: Sam2VideoModel,
    image_embed: Tensor,
    low_res_mask: Tensor,
    score: Tensor,
    *,
    binarize: bool,
) -> Tensor:
    """Memory features [D, S/16, S/16] of one object's mask [1, S/4, S/4] with its score [1]."""
    size = (model.image_size, model.image_size)
    logits = F.interpolate(low_res_mask[None], size=size, mode="bilinear", align_corners=False)
    soft = (logits > 0).float() if binarize else logits.sigmoid()
    config = model.config
    masks = soft * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
    features: Tensor
    features, _ = model.memory_encoder(image_embed.float()[None], masks)
    if score <= 0:
        features = features + model.occlusion_spatial_embedding_parameter[..., None, None]
    return features[0]


@torch.no_grad()
def reference_mask_prompt(model: Sam2VideoModel, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The decoder's dense input and the frame's logits, [1, S/4, S/4], of a mask UINT8 [1, S, S]."""
    given = mask.float()[None]
    quarter = F.interpolate(
        given * LOGIT_SCALE + LOGIT_SHIFT,
        size=(model.image_size // 4, model.image_size // 4),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    return model.mask_downsample(given)[0], quarter[0]
