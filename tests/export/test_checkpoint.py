"""Loading: Hugging Face directories, and files that are none. Meta's format: test_meta_checkpoint.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Sam2Model, Sam2VideoModel

from export.checkpoint import Memory, load_checkpoint, random_checkpoint
from export.errors import CheckpointError, ImageSizeError
from export.random_weights import randomize
from export.sizes import image_size_of
from tests.export.conftest import IMAGE_SIZE, MEMORY, micro_model

DEMO_WEIGHTS = Path(__file__).resolve().parents[2] / "export/demo_model/weights"


def save_directory(model: Sam2Model, directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "sam2", **model.config.to_dict()}
    (directory / "config.json").write_text(json.dumps(config))
    save_weights({k: v.to(dtype).clone() for k, v in model.state_dict().items()}, directory)
    return directory


def save_weights(state: dict[str, torch.Tensor], directory: Path) -> None:
    save_file(state, directory / "model.safetensors")


@pytest.fixture
def directory(model: Sam2Model, tmp_path: Path) -> Path:
    return save_directory(model, tmp_path / "my-sam2")


def assert_same_weights(got: nn.Module, expected: nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name


def test_a_directory(directory: Path, model: Sam2Model) -> None:
    loaded = load_checkpoint(str(directory))
    assert_same_weights(loaded.model, model)
    assert (loaded.model_name, loaded.source_name) == ("my-sam2", "my-sam2")
    assert len(loaded.source_sha256) == 64
    assert image_size_of(loaded.model.config) == IMAGE_SIZE
    assert not loaded.model.training


def test_half_precision_weights_are_upcast(model: Sam2Model, tmp_path: Path) -> None:
    loaded = load_checkpoint(str(save_directory(model, tmp_path / "half", torch.float16)))
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} == {torch.float32}


def test_another_image_size(directory: Path) -> None:
    loaded = load_checkpoint(str(directory), image_size=160)
    assert image_size_of(loaded.model.config) == 160
    assert loaded.model.prompt_encoder.mask_input_size == (40, 40)
    with pytest.raises(ImageSizeError, match="multiple of 32"):
        load_checkpoint(str(directory), image_size=100)


def test_the_demo_weights() -> None:
    assert image_size_of(load_checkpoint(str(DEMO_WEIGHTS)).model.config) == 256


def test_a_video_checkpoint_gives_its_image_part(directory: Path, model: Sam2Model) -> None:
    """What Meta publishes on Hugging Face is a Sam2VideoModel."""
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "sam2_video", "memory_attention_num_layers": 4}
    (directory / "config.json").write_text(json.dumps(config))
    video = {
        "memory_attention.layers.0.linear1.weight",
        "memory_encoder.fuser.layers.0.scale",
        "memory_temporal_positional_encoding",
        "no_memory_positional_encoding",
        "no_object_pointer",
        "occlusion_spatial_embedding_parameter",
        "mask_downsample.weight",
        "object_pointer_proj.proj_in.weight",
        "temporal_positional_encoding_projection_layer.bias",
    }
    state = {k: v.clone() for k, v in model.state_dict().items()}
    save_weights(state | {key: torch.zeros(1) for key in video}, directory)
    loaded = load_checkpoint(str(directory))
    assert_same_weights(loaded.model, model)
    assert set(loaded.unused_keys) == video


def save_video_directory(tracker: Sam2VideoModel, directory: Path) -> Path:
    directory.mkdir(parents=True)
    config = {**tracker.config.to_dict(), "model_type": "sam2_video"}
    (directory / "config.json").write_text(json.dumps(config))
    save_weights({k: v.clone() for k, v in tracker.state_dict().items()}, directory)
    return directory


def test_a_video_checkpoint_with_its_memory(tracker: Sam2VideoModel, tmp_path: Path) -> None:
    directory = save_video_directory(tracker, tmp_path / "my-tracker")
    loaded = load_checkpoint(str(directory), image_size=64, memory=Memory())
    assert loaded.video is not None
    assert_same_weights(loaded.video, tracker)
    assert (loaded.unused_keys, loaded.memory_name) == ((), "")
    assert loaded.video.image_size == 64
    assert loaded.video.config.memory_attention_rope_feat_sizes == [4, 4]
    # Shared with the image model, not copied.
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.data_ptr() == loaded.video.state_dict()[name].data_ptr(), name


def test_a_checkpoint_without_memory(directory: Path, model: Sam2Model) -> None:
    """Nothing is made up unless that is asked for, and then it is said."""
    with pytest.raises(CheckpointError, match="holds no memory.*--no-video.*--untrained-memory"):
        load_checkpoint(str(directory), memory=Memory())
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | MEMORY))
    first, again, other = (
        load_checkpoint(str(directory), memory=Memory(untrained_seed=seed)) for seed in (3, 3, 4)
    )
    assert first.memory_name == "random-weights-seed-3"
    assert first.video is not None
    assert again.video is not None
    assert other.video is not None
    assert_same_weights(first.video, again.video)
    assert not torch.equal(first.video.no_object_pointer, other.video.no_object_pointer)
    assert_same_weights(first.model, model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(first.video.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"memory_attention_hidden_size": 64},
            "memory_attention_hidden_size expected 32, found 64",
        ),
        ({"memory_encoder_output_channels": 12}, "divisor of the image embeddings' 32 channels"),
        ({"num_maskmem": 5}, "num_maskmem expected 7, found 5"),
        ({"memory_attention_num_attention_heads": 2}, "attention_heads expected 1, found 2"),
        ({"enable_occlusion_spatial_embedding": False}, "expected True, found False"),
    ],
)
def test_other_memories_are_refused(
    directory: Path, changes: dict[str, object], message: str
) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | MEMORY | changes))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(directory), memory=Memory(untrained_seed=0))


@pytest.mark.slow
def test_transformers_own_video_model(tmp_path: Path) -> None:
    """The keys of the real class, at a real size."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    model = Sam2VideoModel(Sam2VideoConfig())
    model.save_pretrained(tmp_path)
    loaded = load_checkpoint(str(tmp_path))
    expected = model.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert set(loaded.unused_keys) == expected.keys() - loaded.model.state_dict().keys()
    tracker = load_checkpoint(str(tmp_path), memory=Memory()).video
    assert tracker is not None
    assert_same_weights(tracker, model)


def test_missing_and_surplus_keys_are_listed(directory: Path, model: Sam2Model) -> None:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    del state["no_memory_embedding"]
    save_weights(state | {"lora.weight": torch.zeros(1)}, directory)
    with pytest.raises(
        CheckpointError,
        match=r"Missing \(1\): no_memory_embedding\. Surplus \(1\): lora\.weight",
    ):
        load_checkpoint(str(directory))


def test_wrong_shapes_are_listed(directory: Path, model: Sam2Model) -> None:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    save_weights(state | {"no_memory_embedding": torch.zeros(1, 1, 8)}, directory)
    with pytest.raises(
        CheckpointError, match=r"no_memory_embedding expected \[1, 1, 32\], found \[1, 1, 8\]"
    ):
        load_checkpoint(str(directory))


def test_weights_that_are_no_numbers(directory: Path, model: Sam2Model) -> None:
    state = {k: v.clone() for k, v in model.state_dict().items()}
    save_weights(state | {"no_memory_embedding": torch.full((1, 1, 32), torch.nan)}, directory)
    with pytest.raises(CheckpointError, match="not finite: no_memory_embedding"):
        load_checkpoint(str(directory))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, r"config\.json is missing"),
        ("config.json", "{", "not valid JSON"),
        (
            "config.json",
            '{"model_type": "sam"}',
            "expected model_type sam2 or sam2_video; found 'sam'",
        ),
        ("config.json", '{"model_type": "sam2"}', "vision_config, .* missing"),
        ("model.safetensors", None, r"model\.safetensors is missing"),
        ("model.safetensors", "<!DOCTYPE html>", "is a web page"),
        ("model.safetensors", "version https://git-lfs", "Git LFS pointer"),
        ("model.safetensors", "x" * 100, "not a readable safetensors file"),
    ],
)
def test_spoilt_directories(directory: Path, name: str, content: str | None, message: str) -> None:
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(directory))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"  <html><body>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04 and then nothing", "not a readable PyTorch checkpoint"),
        (b"\x80\x02garbage", "not a readable PyTorch checkpoint"),
    ],
)
def test_spoilt_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"sam2.1_hiera_tiny.pt: .*{message}.*download it again"
    ):
        load_checkpoint(str(path))


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], {"model": {"epoch": 3}}])
def test_other_contents(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match='expected {"model": state dict}'):
        load_checkpoint(str(tmp_path / "other.pt"))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="plain tensors"):
        load_checkpoint(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("source", ["nowhere.pt", "checkpoints/sam2.1_hiera_tiny.pt", "/no/where"])
def test_no_such_file(source: str) -> None:
    with pytest.raises(CheckpointError, match="no such file or directory"):
        load_checkpoint(source)


def test_a_size_for_a_directory_is_a_contradiction(directory: Path) -> None:
    with pytest.raises(CheckpointError, match="brings its own configuration"):
        load_checkpoint(str(directory), size="tiny")


def test_random_weights_are_the_seeds() -> None:
    first, again, other = (micro_model(seed) for seed in (0, 0, 1))
    assert_same_weights(first, again)
    assert not torch.equal(first.no_memory_embedding, other.no_memory_embedding)


def test_random_weights_leave_the_global_generator_alone() -> None:
    model = micro_model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    randomize(model, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_random_checkpoint_of_a_real_size() -> None:
    loaded = random_checkpoint("tiny", 3, 256)
    assert (loaded.model_name, loaded.source_name) == ("tiny", "random-weights-seed-3")
    assert image_size_of(loaded.model.config) == 256
    assert loaded.video is None
    with_video = random_checkpoint("tiny", 3, 256, Memory())
    assert with_video.video is not None
    assert with_video.memory_name == "random-weights-seed-3"
    assert_same_weights(with_video.model, loaded.model)
