"""Weights from wherever they are: Meta's `.pt` files, Hugging Face directories and ids, or a seed.

Whatever the source, the result is transformers' `Sam2Model` in FP32 on the CPU, with every key of
the source accounted for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model

from export.checkpoint_files import (
    hub_directory,
    read_directory_config,
    read_directory_weights,
    read_meta_file,
)
from export.checkpoint_keys import (
    GAUSSIAN,
    GAUSSIAN_COPIES,
    POINT_EMBEDDING,
    meta_video_keys,
    transformers_key,
    transformers_video_keys,
)
from export.errors import CheckpointError
from export.file_checks import sha256_of_files
from export.sizes import SIZES, SizeName, config_for, image_size_of, with_image_size

StateDict = dict[str, Tensor]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with its origin, as it goes into the ONNX files' metadata."""

    model: Sam2Model
    model_name: str  # one of SIZES, or the directory's or repository's name
    source_name: str  # file or repository name, without folders
    source_sha256: str  # of the weights file; empty for random weights
    unused_keys: tuple[str, ...]  # the video part, not needed for images


def load_checkpoint(
    source: str, size: SizeName | None = None, image_size: int | None = None
) -> LoadedCheckpoint:
    """Load the image part of a SAM 2.1 checkpoint.

    Args:
        source: a `.pt` file of Meta's, a Hugging Face directory, or a Hugging Face id.
        size: for `.pt` files; None takes the size that the tensors' shapes show.
        image_size: None keeps what the configuration says (1024 for Meta's files).

    Raises:
        CheckpointError: with the file, what was expected, what was found, and the remedy.
        ImageSizeError: the architecture cannot compute that image size.
    """
    path = Path(source)
    if path.is_file():
        return _load_meta(path, size, image_size)
    if path.is_dir():
        directory, name = path, path.resolve().name
    else:
        directory, name = hub_directory(source), source
    if size is not None:
        raise CheckpointError(
            f"{source}: --size and --model-cfg are for Meta's .pt files; a Hugging Face checkpoint "
            "brings its own configuration. Leave them out"
        )
    return _load_directory(directory, name, image_size)


def random_checkpoint(size: SizeName, seed: int, image_size: int | None = None) -> LoadedCheckpoint:
    """An untrained model, the same for the same seed, for tests and benchmarks.

    Its activations keep their variance from layer to layer, so that its planes react to prompts and
    a wrong graph shows: with the usual small initial weights nearly any output would pass.
    """
    config = config_for(size)
    config = with_image_size(config, image_size or image_size_of(config))
    model = Sam2Model(config)
    randomize(model, seed)
    return LoadedCheckpoint(model.eval(), size, f"random-weights-seed-{seed}", "", ())


def randomize(model: nn.Module, seed: int) -> None:
    """Fill all weights from a seed, tensor by tensor in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    scales = {id(tensor): scale for tensor, scale in _random_scales(model)}
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
            noise = torch.randn(tensor.shape, generator=generator)
            # SAM's own spread for the positional basis: clicks a few pixels apart must differ.
            other = 1.0 if name.endswith("positional_embedding") else 0.2
            mean, deviation = scales.get(id(tensor), (0.0, other))
            tensor.copy_(mean + deviation * noise)
        if isinstance(model, Sam2Model):  # which holds one of Meta's tensors twice
            basis = model.prompt_encoder.shared_embedding.positional_embedding
            model.shared_image_embedding.positional_embedding.copy_(basis)


def _random_scales(model: nn.Module) -> Iterator[tuple[Tensor, tuple[float, float]]]:
    """Mean and standard deviation for the weights of each kind of layer."""
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if not isinstance(weight, Tensor):
            continue
        if isinstance(module, nn.LayerNorm):
            yield weight, (1.0, 0.1)
        elif isinstance(module, nn.Embedding):
            yield weight, (0.0, 0.5)
        else:
            # With stride 2 and kernel 2, one pixel of a transposed convolution has its input
            # channels, which stand in front, as its only inputs.
            transposed = isinstance(module, nn.ConvTranspose2d)
            fan_in = weight.shape[0] if transposed else weight[0].numel()
            yield weight, (0.0, fan_in**-0.5)
        if isinstance(bias, Tensor):
            yield bias, (0.0, 0.1)


def _load_meta(path: Path, size: SizeName | None, image_size: int | None) -> LoadedCheckpoint:
    meta = read_meta_file(path)
    found = _size_shown_by(meta)
    if size is not None and found is not None and found != size:
        raise CheckpointError(
            f"{path}: its tensors are those of size {found!r}, not of {size!r}. "
            f"Pass --size {found}, or another checkpoint"
        )
    size = size or found
    if size is None:
        raise CheckpointError(
            f"{path}: its tensors fit none of the sizes {', '.join(SIZES)}. Was it made by SAM 2.1's "
            "own training code, with an unchanged architecture?"
        )
    unused = meta_video_keys(meta)
    state = _renamed(path, {k: v for k, v in meta.items() if k not in unused})
    config = config_for(size)
    model = _model_with(state, with_image_size(config, image_size or image_size_of(config)), path)
    digest = sha256_of_files([path])
    return LoadedCheckpoint(model, size, path.name, digest, tuple(sorted(unused)))


def _load_directory(directory: Path, name: str, image_size: int | None) -> LoadedCheckpoint:
    config = read_directory_config(directory)
    weights, files = read_directory_weights(directory)
    unused = transformers_video_keys(weights)
    state = {k: v for k, v in weights.items() if k not in unused}
    sized = with_image_size(config, image_size or image_size_of(config))
    model = _model_with(state, sized, directory)
    return LoadedCheckpoint(
        model, Path(name).name, name, sha256_of_files(files), tuple(sorted(unused))
    )


def _size_shown_by(meta: StateDict) -> SizeName | None:
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


def _renamed(path: Path, meta: StateDict) -> StateDict:
    """Meta's image weights under transformers' names."""
    state: StateDict = {}
    points: dict[int, Tensor] = {}
    surplus = []
    for key, tensor in meta.items():
        point = POINT_EMBEDDING.fullmatch(key)
        if key == GAUSSIAN:
            state |= dict.fromkeys(GAUSSIAN_COPIES, tensor)
        elif point:
            points[int(point.group(1))] = tensor
        elif (renamed := transformers_key(key)) is not None:
            state[renamed] = tensor
        else:
            surplus.append(key)
    if surplus:
        raise CheckpointError(
            f"{path}: {len(surplus)} keys that SAM 2.1 does not have: {_listed(surplus)}. "
            "A checkpoint of another model, or of a changed SAM 2?"
        )
    if len(points) == 4:
        state["prompt_encoder.point_embed.weight"] = torch.cat([points[i] for i in range(4)])
    return state


def _model_with(state: StateDict, config: Sam2Config, source: Path) -> Sam2Model:
    """The model of `config` holding exactly `state`, upcast to FP32."""
    model = Sam2Model(config)
    expected = model.state_dict()
    missing, surplus = (
        sorted(expected.keys() - state.keys()),
        sorted(state.keys() - expected.keys()),
    )
    if missing or surplus:
        raise CheckpointError(
            f"{source}: keys do not match the architecture. Missing ({len(missing)}): "
            f"{_listed(missing)}. Surplus ({len(surplus)}): {_listed(surplus)}"
        )
    wrong = [
        f"{key} expected {list(tensor.shape)}, found {list(state[key].shape)}"
        for key, tensor in expected.items()
        if tensor.shape != state[key].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{source}: {len(wrong)} tensors have the wrong shape: {_listed(wrong)}"
        )
    model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    not_finite = [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if not_finite:
        raise CheckpointError(f"{source}: weights that are not finite: {_listed(not_finite)}")
    return model.eval()


def _listed(items: list[str]) -> str:
    return ", ".join(items) or "none"
