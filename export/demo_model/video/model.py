"""The demo model with a memory: its weights made anew, loaded and saved.

The image model's weights are never trained here, so that stills stay what they are. What learns: the
memory (attention, encoder, pointers, encodings), and the head of the object score, which only video reads.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Sam2VideoModel

from export.checkpoint_files import read_directory_config
from export.checkpoint_keys import transformers_video_keys
from export.demo_model.model import WEIGHTS_DIR, load_model
from export.video_model import memory_weights_of, video_config, video_model

SCORE_HEAD = "mask_decoder.pred_obj_score_head."


def empty_video_model(config_dir: Path = WEIGHTS_DIR) -> Sam2VideoModel:
    """The architecture; its weights mean nothing yet."""
    image, memory = read_directory_config(config_dir)
    return video_model(video_config(image, memory, str(config_dir)))


def new_video_model(seed: int, weights_dir: Path = WEIGHTS_DIR) -> Sam2VideoModel:
    """The image model of `weights_dir`, and a memory that knows nothing."""
    torch.manual_seed(seed)
    model = empty_video_model(weights_dir)
    fresh = memory_weights_of(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in model.memory_attention.layers:  # at first, features pass almost unchanged
            layer.self_attn.o_proj.weight.mul_(0.2)
            layer.linear2.weight.mul_(0.2)
        for name in (
            "memory_temporal_positional_encoding",
            "no_object_pointer",
            "occlusion_spatial_embedding_parameter",
        ):
            nn.init.trunc_normal_(getattr(model, name), std=0.02)
    model.load_state_dict({**fresh, **load_model(weights_dir).state_dict()})
    return model.eval()


def load_video_model(weights_dir: Path = WEIGHTS_DIR) -> Sam2VideoModel:
    """The demo model with its trained memory, in FP32."""
    model = empty_video_model(weights_dir)
    state = load_file(weights_dir / "model.safetensors")
    if not transformers_video_keys(state):
        raise ValueError(
            f"{weights_dir}: expected weights of a memory, found the image model alone"
        )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def save_video_model(
    model: Sam2VideoModel, weights_dir: Path, image_dir: Path = WEIGHTS_DIR
) -> None:
    """Write `config.json` as the image model's folder has it, and all weights in FP16."""
    weights_dir.mkdir(parents=True, exist_ok=True)
    config = json.loads((image_dir / "config.json").read_text("utf-8"))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (weights_dir / "config.json").write_text(text, "utf-8")
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, weights_dir / "model.safetensors", metadata={"format": "pt"})


def choose_trained(model: Sam2VideoModel) -> dict[str, nn.Parameter]:
    """Freeze the image model; the parameters that learn, by name."""
    memory = memory_weights_of(model).keys()
    trained = {}
    for name, parameter in model.named_parameters():
        learns = name in memory or name.startswith(SCORE_HEAD)
        parameter.requires_grad_(learns)
        if learns:
            trained[name] = parameter
    return trained


def start_at_image_features(model: Sam2VideoModel, embed: Tensor) -> None:
    """Let what leaves the attention be spread as what the decoder knows.

    `embed` [B, C, h, w]: image features with the no-memory embedding.
    """
    flat = embed.permute(0, 2, 3, 1).flatten(0, 2)
    norm = model.memory_attention.layer_norm
    with torch.no_grad():
        norm.weight.copy_(flat.std(0))
        norm.bias.copy_(flat.mean(0))
