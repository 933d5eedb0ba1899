"""Meta's own modules, with weights saved in Meta's format, against the converted model.

They come from the PyPI package rf-sam-2 (installed without its dependencies: it is used for its
modules alone, and would bring torchvision).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from export.checkpoint import load_checkpoint
from export.errors import CheckpointError
from export.graphs import build_graphs
from export.random_weights import randomize
from export.reference import reference_encode

build_sam = pytest.importorskip("sam2.build_sam", reason="needs rf-sam-2, hydra-core and iopath")

S = 256
CONFIGS = {
    "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}


def meta_model(size: str) -> Any:
    model = build_sam.build_sam2(
        CONFIGS[size], device="cpu", hydra_overrides_extra=[f"++model.image_size={S}"]
    )
    randomize(model, seed=0)
    return model.eval()


def save(model: Any, path: Path) -> str:
    torch.save({"model": model.state_dict()}, path)
    return str(path)


def normalized(image: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (image.float() / 255 - mean) / std


def an_image() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, 3, S, S), dtype=torch.uint8, generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("size", CONFIGS)
def test_encoder_features_are_metas(size: str, tmp_path: Path) -> None:
    """Every size: windows, global blocks and background sizes do not show in tensors' shapes."""
    meta = meta_model(size)
    loaded = load_checkpoint(save(meta, tmp_path / f"sam2.1_hiera_{size}.pt"), image_size=S)
    assert loaded.model_name == size
    with torch.no_grad():
        features = meta.forward_image(normalized(an_image()))["backbone_fpn"]
    got = reference_encode(loaded.model, an_image())
    for tensor, expected in zip(got, (features[2], features[0], features[1]), strict=True):
        # The same operations, in another order here and there.
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Meta's tiny model and the converted one."""
    meta = meta_model("tiny")
    path = tmp_path_factory.mktemp("meta") / "sam2.1_hiera_tiny.pt"
    return meta, load_checkpoint(save(meta, path), image_size=S)


def meta_decode(
    meta: Any,
    features: list[Tensor],
    points: Tensor | None,
    labels: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """All four planes by Meta's prompt encoder and mask decoder, as its image predictor calls them."""
    sparse, dense = meta.sam_prompt_encoder(
        points=None if points is None else (points, labels), boxes=None, masks=mask
    )
    embed = features[2] + meta.no_mem_embed.view(1, -1, 1, 1)
    masks, ious, _, _ = meta.sam_mask_decoder.predict_masks(
        image_embeddings=embed,
        image_pe=meta.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[features[0], features[1]],
    )
    return masks, ious


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["clicks", "box", "mask", "mask and click"])
def test_planes_are_metas(tiny: tuple[Any, Any], prompt: str) -> None:
    """Meta's predictor from pixels to planes, against our two graphs."""
    meta, loaded = tiny
    graphs = build_graphs(loaded.model)
    # In pixels of the S × S image; Meta adds the padding point itself where there is no box.
    coords, labels = {
        "clicks": ([[70.0, 90.0], [200.0, 33.0]], [1, 0]),
        "box": ([[20.0, 30.0], [180.0, 222.0]], [2, 3]),
        "mask": ([], []),
        "mask and click": ([[70.0, 90.0]], [1]),
    }[prompt]
    mask = 4 * torch.randn(1, 1, S // 4, S // 4) if "mask" in prompt else None
    with torch.no_grad():
        features = graphs.encoder(an_image())
        # Both decoders get the same FP16 embeddings.
        meta_features = [features[1].float(), features[2].float(), features[0].float()]
        points = torch.tensor([coords]) if coords else None
        meta_labels = torch.tensor([labels]) if coords else None
        expected, expected_ious = meta_decode(meta, meta_features, points, meta_labels, mask)
        # Our callers send Meta's padding point, or "no token" for a mask alone.
        ours = torch.tensor([[*coords, [0.0, 0.0]]]) / S
        planes, ious, matches = graphs.decoder(
            *features,
            ours,
            torch.tensor([[*labels, -1 if coords else -2]], dtype=torch.int32),
            torch.zeros(1, 1, S // 4, S // 4) if mask is None else mask,
            torch.tensor([0.0 if mask is None else 1.0]),
        )
    assert matches.all()
    torch.testing.assert_close(planes, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    torch.testing.assert_close(ious, expected_ious, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_video_part_is_left_out_and_said(tiny: tuple[Any, Any]) -> None:
    meta, loaded = tiny
    assert "maskmem_tpos_enc" in loaded.unused_keys
    assert set(loaded.unused_keys) <= meta.state_dict().keys()
    prefixes = {key.split(".")[0] for key in loaded.unused_keys}
    assert not prefixes & {
        "image_encoder",
        "sam_prompt_encoder",
        "sam_mask_decoder",
        "no_mem_embed",
    }


@pytest.mark.slow
def test_changed_checkpoints_are_refused(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    state = tiny[0].state_dict()
    path = tmp_path / "changed.pt"

    torch.save({"model": {**state, "adapter.weight": torch.zeros(1)}}, path)
    with pytest.raises(
        CheckpointError, match=r"1 keys that SAM 2\.1 does not have: adapter\.weight"
    ):
        load_checkpoint(str(path))

    torch.save({"model": {k: v for k, v in state.items() if k != "no_mem_embed"}}, path)
    with pytest.raises(CheckpointError, match=r"Missing \(1\): no_memory_embedding"):
        load_checkpoint(str(path))

    torch.save({"model": state}, path)
    with pytest.raises(CheckpointError, match="those of size 'tiny', not of 'large'"):
        load_checkpoint(str(path), size="large")

    torch.save({"model": {k: v for k, v in state.items() if "trunk" not in k}}, path)
    with pytest.raises(CheckpointError, match="fit none of the sizes tiny, small"):
        load_checkpoint(str(path))
