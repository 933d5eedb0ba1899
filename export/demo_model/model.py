"""The micro SAM 2.1 as three differentiable steps: load, encode an image, decode prompts.

`transformers` returns either plane 0 or planes 1..3 of the mask decoder; training needs all four
of one pass, hence a decoder forward of our own over the same modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam2Config, Sam2Model, Sam2VideoModel

from export.checkpoint_keys import transformers_video_keys

WEIGHTS_DIR = Path(__file__).parent / "weights"
IMAGE_SIZE = 256
LOW_RES_SIZE = IMAGE_SIZE // 4
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Features:
    """What the decoder reads of B images: width C = 96, S = 256.

    `image_embed` [B, C, S/16, S/16] with the no-memory embedding added,
    `high_res_feats_0` [B, C/8, S/4, S/4], `high_res_feats_1` [B, C/4, S/8, S/8],
    `pyramid`: the FPN maps behind them, fine to coarse.
    """

    image_embed: Tensor
    high_res_feats_0: Tensor
    high_res_feats_1: Tensor
    pyramid: tuple[Tensor, Tensor, Tensor]


def build_model(seed: int, config_dir: Path = WEIGHTS_DIR) -> Sam2Model:
    """The demo architecture with random weights."""
    torch.manual_seed(seed)
    return Sam2Model(Sam2Config.from_pretrained(config_dir))


def load_model(weights_dir: Path = WEIGHTS_DIR) -> Sam2Model:
    """The demo architecture with the weights of `weights_dir`, in FP32."""
    model = Sam2Model(Sam2Config.from_pretrained(weights_dir))
    state = load_file(weights_dir / "model.safetensors")
    memory = transformers_video_keys(state)  # beside the image model's weights, for video
    kept = {name: tensor.float() for name, tensor in state.items() if name not in memory}
    model.load_state_dict(kept)
    return model.eval()


def save_model(model: Sam2Model, weights_dir: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `config.json` and `model.safetensors`."""
    weights_dir.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(weights_dir)
    state = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, weights_dir / "model.safetensors", metadata={"format": "pt"})


def normalise(images: Tensor) -> Tensor:
    """uint8 [B, 3, S, S] to the encoder's input, float32."""
    mean = torch.tensor(_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(_STD, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def encode(model: Sam2Model, images: Tensor) -> Features:
    """uint8 [B, 3, S, S] to features."""
    hidden_states = model.vision_encoder.backbone(normalise(images)).intermediate_hidden_states
    maps, _ = model.vision_encoder.neck(hidden_states)
    coarse, middle, fine = maps[-3:]
    return Features(
        image_embed=coarse + model.no_memory_embedding.view(1, -1, 1, 1),
        high_res_feats_0=model.mask_decoder.conv_s0(fine),
        high_res_feats_1=model.mask_decoder.conv_s1(middle),
        pyramid=(fine, middle, coarse),
    )


@dataclass(frozen=True)
class Decoded:
    """What the mask decoder says to N prompts.

    `planes` [N, 4, S/4, S/4] low-res logits, `iou_predictions` [N, 4], `object_scores` [N, 1] logits,
    `mask_tokens` [N, 4, C], from which a video's object pointers are made.
    """

    planes: Tensor
    iou_predictions: Tensor
    object_scores: Tensor
    mask_tokens: Tensor


def decode(
    model: Sam2Model | Sam2VideoModel,
    features: Features,
    point_coords: Tensor,
    point_labels: Tensor,
    mask_input: Tensor | None,
) -> Decoded:
    """All four mask planes for N prompts, N a multiple of the B images, image by image.

    `image_embed` and the high-resolution features may be of different B. `point_coords` [N, P, 2] in
    pixels of the S x S input, `point_labels` [N, P] with SAM 2's labels (box corners 2 and 3, padding
    -1); the padding point that always follows is added here.
    """
    decoder, prompt_encoder = model.mask_decoder, model.prompt_encoder
    prompts = len(point_coords)
    sparse = prompt_encoder._embed_points(point_coords[:, None], point_labels[:, None], pad=True)
    if mask_input is None:
        dense = prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    else:
        dense = prompt_encoder.mask_embed(mask_input)
    output_tokens = torch.cat(
        [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
    )
    tokens = torch.cat([output_tokens.expand(prompts, 1, -1, -1), sparse], dim=2)
    embed = features.image_embed
    source = embed.repeat_interleave(prompts // len(embed), 0) + dense
    positions = model.get_image_wide_positional_embeddings().expand(prompts, -1, -1, -1)
    tokens, image = decoder.transformer(tokens, source, positions, None)

    def add_per_image(upscaled: Tensor, skip: Tensor) -> Tensor:
        grouped = upscaled.view(len(skip), -1, *upscaled.shape[1:])
        return (grouped + skip[:, None]).flatten(0, 1)

    image = image.transpose(2, 3).reshape(source.shape)
    upscaled = add_per_image(decoder.upscale_conv1(image), features.high_res_feats_1)
    upscaled = decoder.activation(decoder.upscale_layer_norm(upscaled))
    upscaled = add_per_image(decoder.upscale_conv2(upscaled), features.high_res_feats_0)
    upscaled = decoder.activation(upscaled)
    weights = torch.stack(
        [mlp(tokens[:, 0, 2 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
    )
    return Decoded(
        planes=(weights @ upscaled.flatten(2)).view(prompts, -1, *upscaled.shape[-2:]),
        iou_predictions=decoder.iou_prediction_head(tokens[:, 0, 1]),
        object_scores=decoder.pred_obj_score_head(tokens[:, 0, 0]),
        mask_tokens=tokens[:, 0, 2:6],
    )
