"""The weights of Meta's `.pt` files: whose they are, and under transformers' names."""

from pathlib import Path

import torch
from torch import Tensor

from export.checkpoint_keys import GAUSSIAN, GAUSSIAN_COPIES, POINT_EMBEDDING, transformers_key
from export.errors import CheckpointError
from export.sizes import SIZES, SizeName, config_for

StateDict = dict[str, Tensor]


def size_shown_by(meta: StateDict) -> SizeName | None:
    """The size whose backbone has this checkpoint's width and number of blocks."""
    patch = meta.get("image_encoder.trunk.patch_embed.proj.weight")
    if patch is None:
        return None
    norms = {k for k in meta if k.startswith("image_encoder.trunk.blocks.") and "norm1.weight" in k}
    for size in SIZES:
        backbone = config_for(size).vision_config.backbone_config
        if (patch.shape[0], len(norms)) == (backbone.hidden_size, sum(backbone.blocks_per_stage)):
            return size
    return None


def renamed(path: Path, meta: StateDict) -> StateDict:
    """Meta's weights under transformers' names; `path` is for errors."""
    state: StateDict = {}
    points: dict[int, Tensor] = {}
    surplus = []
    for key, tensor in meta.items():
        point = POINT_EMBEDDING.fullmatch(key)
        if key == GAUSSIAN:
            state |= dict.fromkeys(GAUSSIAN_COPIES, tensor)
        elif point:
            points[int(point.group(1))] = tensor
        elif (new := transformers_key(key)) is not None:
            state[new] = tensor
        else:
            surplus.append(key)
    if surplus:
        raise CheckpointError(
            f"{path}: {len(surplus)} keys that SAM 2.1 does not have: {', '.join(surplus)}. "
            "A checkpoint of another model, or of a changed SAM 2?"
        )
    if len(points) == 4:
        state["prompt_encoder.point_embed.weight"] = torch.cat([points[i] for i in range(4)])
    return state
