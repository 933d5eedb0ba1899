"""What SAM 2.1 computes, by transformers' own forward passes: the yardstick for the graphs."""

import torch
from torch import Tensor
from transformers import Sam2Model

from export.decoder_graph import NO_TOKEN
from export.encoder_graph import PIXEL_MEAN, PIXEL_STD
from export.sizes import image_size_of


@torch.no_grad()
def reference_encode(model: Sam2Model, resized_image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features of grey levels [batch, 3, S, S], in FP32: image_embed, high_res_feats_0, high_res_feats_1.

    Without `no_memory_embedding`, like the encoder graph's.
    """
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (PIXEL_MEAN, PIXEL_STD))
    levels = model.vision_encoder((resized_image.float() / 255 - mean) / std).fpn_hidden_states
    decoder = model.mask_decoder
    return levels[2], decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1])


@torch.no_grad()
def reference_decode(
    model: Sam2Model,
    embeddings: tuple[Tensor, Tensor, Tensor],
    unit_point_coords: Tensor,
    token_labels: Tensor,
    mask_input: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """All 4 planes and IoU predictions of one object.

    Args:
        model: the model in FP32.
        embeddings: as `reference_encode` gives them, batch 1.
        unit_point_coords: [N, 2], x and y over the original width and height.
        token_labels: [N]; tokens labelled -2 are taken out before the reference sees them.
        mask_input: [1, S/4, S/4] logits, or None.

    Returns:
        Plane logits [4, S/4, S/4] and IoU predictions [4].
    """
    image_embed, *high_res = (tensor.float() for tensor in embeddings)
    kept = token_labels != NO_TOKEN
    points = unit_point_coords[kept][None, None] * image_size_of(model.config)
    sparse = model.prompt_encoder._embed_points(points, token_labels[kept][None, None], pad=False)
    _, dense = model.prompt_encoder(
        None, None, None, None if mask_input is None else mask_input[None]
    )
    planes, ious = [], []
    # The reference hands out either the single mask or the three candidates: ask for both.
    decoder = model.mask_decoder
    fallback, decoder.dynamic_multimask_via_stability = (
        decoder.dynamic_multimask_via_stability,
        False,
    )
    try:
        for multimask_output in (False, True):
            masks, scores, _, _ = decoder(
                image_embeddings=image_embed + model.no_memory_embedding.view(1, -1, 1, 1),
                image_positional_embeddings=model.get_image_wide_positional_embeddings(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask_output,
                high_resolution_features=high_res,
            )
            planes.append(masks[0, 0])
            ious.append(scores[0, 0])
    finally:
        decoder.dynamic_multimask_via_stability = fallback
    return torch.cat(planes), torch.cat(ious)
