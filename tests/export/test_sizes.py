import pytest
from transformers import Sam2Model

from export.errors import CheckpointError, ImageSizeError
from export.sizes import (
    SIZES,
    SizeName,
    config_for,
    image_size_of,
    size_of,
    size_of_model_cfg,
    with_image_size,
)


@pytest.mark.parametrize(
    ("model_cfg", "size"),
    [
        ("configs/sam2.1/sam2.1_hiera_t.yaml", "tiny"),
        ("sam2.1_hiera_s.yaml", "small"),
        ("configs/sam2.1/sam2.1_hiera_b+", "base_plus"),
        ("sam2.1_hiera_l", "large"),
    ],
)
def test_metas_names(model_cfg: str, size: str) -> None:
    assert size_of_model_cfg(model_cfg) == size


@pytest.mark.parametrize(
    "model_cfg", ["configs/sam2/sam2_hiera_t.yaml", "tiny", "sam2.1_hiera_x.yaml", ""]
)
def test_other_names_are_refused(model_cfg: str) -> None:
    with pytest.raises(CheckpointError, match=r"--model-cfg: expected one of .*hiera_t\.yaml"):
        size_of_model_cfg(model_cfg)


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_told_by_its_architecture_whatever_a_file_calls_it(size: SizeName) -> None:
    config = config_for(size, 512)
    config.vision_config.backbone_config._name_or_path = "somebody/fine-tuned"
    config.vision_config.dtype = "float16"
    assert size_of(config) == size
    config.vision_config.backbone_config.global_attention_blocks = [1, 2, 3]
    assert size_of(config) is None


@pytest.mark.parametrize("size", SIZES)
def test_widths_and_heads_double_from_stage_to_stage(size: SizeName) -> None:
    backbone = config_for(size).vision_config.backbone_config
    for values in (backbone.embed_dim_per_stage, backbone.num_attention_heads_per_stage):
        assert values == [values[0] * factor for factor in (1, 2, 4, 8)]
    # A head is 56 wide in base_plus, 72 in large, 96 in the small ones.
    widths = {"tiny": 96, "small": 96, "base_plus": 56, "large": 72}
    assert backbone.hidden_size // backbone.num_attention_heads == widths[size]
    assert max(backbone.global_attention_blocks) < sum(backbone.blocks_per_stage)


def test_image_size_reaches_every_place_that_depends_on_it() -> None:
    model = Sam2Model(config_for("tiny", 256))
    assert image_size_of(model.config) == 256
    assert model.backbone_feature_sizes == [[64, 64], [32, 32], [16, 16]]
    assert model.prompt_encoder.image_embedding_size == (16, 16)
    assert model.prompt_encoder.mask_input_size == (64, 64)
    assert model.prompt_encoder.input_image_size == 256
    assert model.get_image_wide_positional_embeddings().shape == (1, 256, 16, 16)


@pytest.mark.parametrize(
    ("image_size", "nearest"),
    [(1000, "992 or 1024"), (0, "32 or 64"), (-32, "32"), (31, "32 or 64")],
)
def test_other_image_sizes_are_refused(image_size: int, nearest: str) -> None:
    with pytest.raises(ImageSizeError, match=rf"multiple of 32 .*got {image_size}\..*{nearest}"):
        config_for("large", image_size)


def test_a_resized_copy_leaves_the_original_alone() -> None:
    config = config_for("tiny")
    assert image_size_of(with_image_size(config, 512)) == 512
    assert image_size_of(config) == 1024
    assert config.vision_config.backbone_config.image_size == [1024, 1024]
