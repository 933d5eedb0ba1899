"""Meta's own predictors and generator, from rf-sam-2, with the weights of the small model in the box.

The small model has Meta's architecture in other sizes, so that Meta's classes can be built in them and given
its weights. torchvision, which their transforms import for three small functions, cannot be imported beside
this PyTorch: stand-ins of our own take their place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from export.checkpoint import load_checkpoint
from export.checkpoint_keys import GAUSSIAN, GAUSSIAN_COPIES, POINT_EMBEDDING, transformers_key
from tests.automask_reference import GENERATOR
from tests.running_server import ROOT

S = 256
_OVERRIDES = [
    f"++model.image_size={S}",
    "++model.image_encoder.trunk.embed_dim=32",
    "++model.image_encoder.trunk.stages=[1,2,3,1]",
    "++model.image_encoder.trunk.global_att_blocks=[4,5]",
    "++model.image_encoder.trunk.window_spec=[8,4,8,8]",
    "++model.image_encoder.neck.d_model=96",
    "++model.image_encoder.neck.position_encoding.num_pos_feats=96",
    "++model.image_encoder.neck.backbone_channel_list=[256,128,64,32]",
    "++model.image_encoder.neck.fpn_top_down_levels=[0,1,2,3]",
]


class _ToTensor:
    def __call__(self, image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


class _Resize(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return F.interpolate(
            image[None], self.size, mode="bilinear", align_corners=False, antialias=True
        )[0]


class _Normalize(nn.Module):
    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image - self.mean) / self.std


def meta_model() -> Any:
    """Meta's SAM2Base with the small model's image weights; its memory is untrained."""
    from sam2.build_sam import build_sam2
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    model = build_sam2(
        "configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", hydra_overrides_extra=_OVERRIDES
    )
    # SAM2Base has these sizes written into its code.
    model.sam_mask_decoder = MaskDecoder(
        transformer_dim=96,
        transformer=TwoWayTransformer(depth=2, embedding_dim=96, mlp_dim=256, num_heads=4),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=96,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        **model.sam_mask_decoder_extra_args,
    )
    weights = load_checkpoint(str(ROOT / "export/demo_model/weights")).model.state_dict()
    return with_image_weights(model, weights)


def with_image_weights(model: Any, weights: dict[str, torch.Tensor]) -> Any:
    """Meta's model holding the image weights of transformers' one, each of them."""
    mine = {
        key: found for key in model.state_dict() if (found := _weight(key, weights)) is not None
    }
    missing, surplus = model.load_state_dict(mine, strict=False)
    image_parts = ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed")
    assert not surplus
    assert not [key for key in missing if key.startswith(image_parts)]
    return model.eval()


def _weight(key: str, weights: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """The tensor of a Meta name among transformers' weights."""
    if key == GAUSSIAN:
        return weights[GAUSSIAN_COPIES[0]]
    if point := POINT_EMBEDDING.fullmatch(key):
        return weights["prompt_encoder.point_embed.weight"][int(point[1])][None]
    return weights.get(transformers_key(key) or "")


def meta_predictor(model: Any) -> Any:
    """Meta's own SAM2ImagePredictor."""
    from sam2 import sam2_image_predictor
    from sam2.utils import transforms

    transforms.ToTensor, transforms.Resize, transforms.Normalize = _ToTensor, _Resize, _Normalize
    predictor = sam2_image_predictor.SAM2ImagePredictor(model, disable_torch_jit=True)
    # Written for 1024 px.
    predictor._bb_feat_sizes = [(S // 4, S // 4), (S // 8, S // 8), (S // 16, S // 16)]
    return predictor


def meta_generator(model: Any, **parameters: Any) -> Any:
    """Meta's own SAM2AutomaticMaskGenerator around its own predictor."""
    # That module has been told to take the predictor that it is given (tests/automask_reference.py).
    return GENERATOR.SAM2AutomaticMaskGenerator(meta_predictor(model), **parameters)


@torch.no_grad()
def encoded_features(model: Any, image: np.ndarray) -> list[torch.Tensor]:
    """By Meta's own encoder, FP32 [1, 3, S, S] from 0 to 1 ► what its image predictor decodes: the
    embedding with the no-memory embedding added, and the two high-resolution maps."""
    normalize = _Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    maps = model.forward_image(normalize(torch.from_numpy(image)))["backbone_fpn"]
    return [maps[2] + model.no_mem_embed.view(1, -1, 1, 1), maps[0], maps[1]]


@torch.no_grad()
def decoded(
    model: Any, features: list[torch.Tensor], points: list[list[float]], labels: list[int]
) -> np.ndarray:
    """Bool [3, S, S] by Meta's own decoder on such features; x, y in the model's pixels."""
    coords = torch.tensor([points], dtype=torch.float32)
    sparse, dense = model.sam_prompt_encoder(
        points=(coords, torch.tensor([labels], dtype=torch.int32)), boxes=None, masks=None
    )
    low_res, *_ = model.sam_mask_decoder(
        image_embeddings=features[0],
        image_pe=model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=False,
        high_res_features=features[1:],
    )
    sides = (model.image_size, model.image_size)
    return (F.interpolate(low_res, sides, mode="bilinear", align_corners=False)[0] > 0).numpy()
