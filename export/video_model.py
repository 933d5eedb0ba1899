"""SAM 2.1's memory: its configuration beside an image model's, and the model that holds its weights.

transformers' `Sam2VideoModel` is used for its modules and weights alone; its sessions are not Meta's.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import Sam2Config, Sam2VideoConfig, Sam2VideoModel

from export.errors import CheckpointError
from export.sizes import image_size_of

# Parts of a Sam2VideoConfig that describe the memory, beside those of the image model.
_MEMORY_PREFIXES = (
    "memory_attention_",
    "memory_encoder_",
    "memory_fuser_",
    "mask_downsampler_",
    "sigmoid_",
    "enable_",
    "rope_",
)
_MEMORY_NAMES = ("num_maskmem", "max_object_pointers_in_encoder")
# What the graphs and the session logic are written for: SAM 2.1 has it in all sizes.
_FIXED: dict[str, object] = {
    "num_maskmem": 7,
    "max_object_pointers_in_encoder": 16,
    "enable_occlusion_spatial_embedding": True,
    "enable_temporal_pos_encoding_for_object_pointers": True,
    "memory_attention_num_attention_heads": 1,
    "memory_attention_downsample_rate": 1,
    "memory_attention_feed_forward_hidden_act": "relu",
    "memory_fuser_hidden_act": "gelu",
    "mask_downsampler_hidden_act": "gelu",
    "mask_downsampler_total_stride": 16,
}
# Widths that must be the image embeddings' own.
_WIDTHS = (
    "memory_attention_hidden_size",
    "memory_encoder_hidden_size",
    "mask_downsampler_embed_dim",
    "memory_fuser_embed_dim",
)


def memory_parameters(content: Mapping[str, Any]) -> dict[str, Any]:
    """The memory's parameters in a `config.json`; what it leaves out has Meta's value."""
    return {
        name: value
        for name, value in content.items()
        if name.startswith(_MEMORY_PREFIXES) or name in _MEMORY_NAMES
    }


def video_config(image: Sam2Config, memory: Mapping[str, Any], source: str) -> Sam2VideoConfig:
    """The configuration of an image model together with its memory.

    Args:
        image: the image model, at the image size that is wanted.
        memory: as `memory_parameters` gives them; empty for Meta's own.
        source: what the parameters come from, for errors.

    Raises:
        CheckpointError: the memory does not fit the image model, or is built in another way than SAM 2.1's.
    """
    size = image_size_of(image)
    parts = {}
    for name in ("prompt_encoder_config", "mask_decoder_config"):
        parts[name] = getattr(image, name).to_dict()
        # Named after the image model; the contents are the same.
        del parts[name]["model_type"]
    sized = {"image_size": size, "memory_attention_rope_feat_sizes": [size // 16, size // 16]}
    config = Sam2VideoConfig(vision_config=image.vision_config, **parts, **{**memory, **sized})
    width = int(image.vision_config.fpn_hidden_size)
    expected = {**_FIXED, **dict.fromkeys(_WIDTHS, width)}
    wrong = [
        f"{name} expected {value}, found {getattr(config, name)}"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    depth = memory_channels_of(config)
    if width % depth or width % 4:
        wrong.append(
            "memory_encoder_output_channels expected a divisor of the image embeddings' "
            f"{width} channels, found {depth}"
        )
    if wrong:
        raise CheckpointError(
            f"{source}: its memory is none that the video graphs compute: {'; '.join(wrong)}. "
            "With --no-video the image model is exported alone"
        )
    return config


def video_model(config: Sam2VideoConfig) -> Sam2VideoModel:
    """The architecture, its weights yet to come."""
    model = Sam2VideoModel(config)
    depth = memory_channels_of(config)
    for layer in model.memory_attention.layers:
        attention = layer.cross_attn_image
        if (
            attention.kv_in_dim != depth
        ):  # transformers builds it for 64 channels, whatever the configuration
            attention.kv_in_dim = depth
            attention.k_proj = nn.Linear(depth, attention.internal_dim)
            attention.v_proj = nn.Linear(depth, attention.internal_dim)
    return model.eval()


def memory_channels_of(config: Sam2VideoConfig) -> int:
    """Width of the memories (D)."""
    return int(config.memory_encoder_output_channels)


def memory_weights_of(model: Sam2VideoModel) -> dict[str, Tensor]:
    """The weights that the image model has not."""
    image_parts = (
        "shared_image_embedding.",
        "vision_encoder.",
        "prompt_encoder.",
        "mask_decoder.",
        "no_memory_embedding",
    )
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(image_parts)
    }


def rope_theta_of(config: Sam2VideoConfig) -> float:
    """Base of the rotary encoding's frequencies."""
    return float(config.rope_parameters["rope_theta"])
