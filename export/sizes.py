"""The four SAM 2.1 architectures, and the one place where an image size is applied to one.

The numbers are those of Meta's `configs/sam2.1/sam2.1_hiera_{t,s,b+,l}.yaml` together with the
defaults of its `Hiera` class, which the base_plus file relies on.
"""

import copy
import math
import re
from typing import Any, Literal, get_args

from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)

from export.errors import CheckpointError, ImageSizeError

SizeName = Literal["tiny", "small", "base_plus", "large"]
SIZES: tuple[SizeName, ...] = get_args(SizeName)
DEFAULT_IMAGE_SIZE = 1024

# Meta's file names carry these instead of the full words.
_MODEL_CFG_SIZES: dict[str, SizeName] = {
    "t": "tiny",
    "s": "small",
    "b+": "base_plus",
    "l": "large",
}

_BACKBONES: dict[SizeName, dict[str, Any]] = {
    "tiny": {
        "embed_dim": 96,
        "num_heads": 1,
        "blocks_per_stage": [1, 2, 7, 2],
        "global_attention_blocks": [5, 7, 9],
        "window_size_per_stage": [8, 4, 14, 7],
        "window_positional_embedding_background_size": [7, 7],
    },
    "small": {
        "embed_dim": 96,
        "num_heads": 1,
        "blocks_per_stage": [1, 2, 11, 2],
        "global_attention_blocks": [7, 10, 13],
        "window_size_per_stage": [8, 4, 14, 7],
        "window_positional_embedding_background_size": [7, 7],
    },
    "base_plus": {
        "embed_dim": 112,
        "num_heads": 2,
        "blocks_per_stage": [2, 3, 16, 3],
        "global_attention_blocks": [12, 16, 20],
        "window_size_per_stage": [8, 4, 14, 7],
        "window_positional_embedding_background_size": [14, 14],
    },
    "large": {
        "embed_dim": 144,
        "num_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
        "window_positional_embedding_background_size": [7, 7],
    },
}


_PER_STAGE = (
    "embed_dim_per_stage",
    "num_attention_heads_per_stage",
    "blocks_per_stage",
    "global_attention_blocks",
    "window_size_per_stage",
    "window_positional_embedding_background_size",
)


def config_for(size: SizeName, image_size: int = DEFAULT_IMAGE_SIZE) -> Sam2Config:
    """The configuration of one of Meta's SAM 2.1 sizes, for square images of `image_size` pixels."""
    backbone = dict(_BACKBONES[size])
    # Each stage has twice the channels and heads of the one before it.
    embed_dim, num_heads = backbone.pop("embed_dim"), backbone.pop("num_heads")
    dims = [embed_dim * 2**stage for stage in range(4)]
    heads = [num_heads * 2**stage for stage in range(4)]
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(
                hidden_size=dims[0],
                num_attention_heads=heads[0],
                embed_dim_per_stage=dims,
                num_attention_heads_per_stage=heads,
                **backbone,
            ),
            backbone_channel_list=dims[::-1],
            fpn_hidden_size=256,
            fpn_top_down_levels=[2, 3],
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(),
        mask_decoder_config=Sam2MaskDecoderConfig(),
    )
    return with_image_size(config, image_size)


def size_of_model_cfg(model_cfg: str) -> SizeName:
    """The size that a Meta configuration name (`configs/sam2.1/sam2.1_hiera_t.yaml`) stands for."""
    found = re.search(r"(?:^|/)sam2\.1_hiera_([^/]+?)(?:\.yaml)?$", model_cfg)
    if found is None or found.group(1) not in _MODEL_CFG_SIZES:
        known = ", ".join(f"configs/sam2.1/sam2.1_hiera_{short}.yaml" for short in _MODEL_CFG_SIZES)
        raise CheckpointError(f"--model-cfg: expected one of {known}; got {model_cfg!r}")
    return _MODEL_CFG_SIZES[found.group(1)]


def size_of(config: Sam2Config) -> SizeName | None:
    """Which of Meta's sizes a configuration's encoder is of, whatever it is called; None for none of them."""

    def shape_of(other: Sam2Config) -> list[Any]:
        # By what makes an encoder, not by all that a file says of it: names, types and versions differ.
        vision, backbone = other.vision_config, other.vision_config.backbone_config
        return [
            vision.fpn_hidden_size,
            list(vision.fpn_top_down_levels),
            *(list(getattr(backbone, name)) for name in _PER_STAGE),
        ]

    found = shape_of(config)
    return next((size for size in SIZES if shape_of(config_for(size)) == found), None)


def image_size_of(config: Sam2Config) -> int:
    """Edge length, in pixels, of the square images a configuration is for."""
    return int(config.prompt_encoder_config.image_size)


def image_size_step(config: Sam2Config) -> int:
    """Image sizes must be multiples of this many pixels."""
    backbone = config.vision_config.backbone_config
    patch_stride = int(backbone.patch_stride[0])
    pools = 2 ** int(backbone.num_query_pool_stages)
    # Every stage halves the map evenly, and the first stage's window embedding tiles the first map.
    return math.lcm(patch_stride * pools, patch_stride * int(backbone.window_size_per_stage[0]))


def with_image_size(config: Sam2Config, image_size: int) -> Sam2Config:
    """A copy of `config` for another square image size; weights do not depend on it.

    Raises:
        ImageSizeError: `image_size` is not a positive multiple of what the architecture steps by.
    """
    step = image_size_step(config)
    if image_size < step or image_size % step:
        below = max(step, image_size // step * step)
        raise ImageSizeError(
            f"--image-size: expected a positive multiple of {step} (each of the backbone's stages "
            f"halves the map, and its {config.vision_config.backbone_config.window_size_per_stage[0]}"
            f"-wide window embedding must tile it); got {image_size}. "
            f"Nearest: {below} or {below + step}"
        )
    sized = copy.deepcopy(config)
    strides = (4, 8, 16)
    sized.vision_config.backbone_config.image_size = [image_size, image_size]
    sized.vision_config.backbone_feature_sizes = [
        [image_size // s, image_size // s] for s in strides
    ]
    sized.prompt_encoder_config.image_size = image_size
    return sized
