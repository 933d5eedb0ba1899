"""Weights from wherever they are: Meta's `.pt` files, Hugging Face directories and ids, or a seed.

Whatever the source, the result is transformers' `Sam2Model`, and where the video graphs are wanted a
`Sam2VideoModel` with the same weights and a memory, in FP32 on the CPU, with every key of the source
accounted for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from transformers import Sam2Config, Sam2Model, Sam2VideoModel

from export.checkpoint_files import (
    hub_directory,
    read_directory_config,
    read_directory_weights,
    read_meta_file,
)
from export.checkpoint_keys import meta_video_keys, transformers_video_keys
from export.errors import CheckpointError
from export.file_checks import sha256_of_files
from export.meta_weights import StateDict, renamed, size_shown_by
from export.random_weights import randomize
from export.sizes import SIZES, SizeName, config_for, image_size_of, with_image_size
from export.video_model import memory_weights_of, video_config, video_model

AnyModel = TypeVar("AnyModel", Sam2Model, Sam2VideoModel)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with its origin, as it goes into the ONNX files' metadata."""

    model: Sam2Model
    model_name: str  # one of SIZES, or the directory's or repository's name
    source_name: str  # file or repository name, without folders
    source_sha256: str  # of the weights file; empty for random weights
    unused_keys: tuple[str, ...]  # the memory's, where it is not wanted
    video: Sam2VideoModel | None = None  # the same weights, and the memory's
    memory_name: str = ""  # where the memory comes from, if not from the source: it is untrained


@dataclass(frozen=True)
class Memory:
    """Whether the memory's weights are wanted, and what to do where a checkpoint has none."""

    wanted: bool = True
    untrained_seed: int | None = None  # None: a checkpoint without them is refused


IMAGES_ONLY = Memory(wanted=False)


def load_checkpoint(
    source: str,
    size: SizeName | None = None,
    image_size: int | None = None,
    memory: Memory = IMAGES_ONLY,
) -> LoadedCheckpoint:
    """Load a SAM 2.1 checkpoint.

    Args:
        source: a `.pt` file of Meta's, a Hugging Face directory, or a Hugging Face id.
        size: for `.pt` files; None takes the size that the tensors' shapes show.
        image_size: None keeps what the configuration says (1024 for Meta's files).
        memory: what is wanted besides the image part.

    Raises:
        CheckpointError: with the file, what was expected, what was found, and the remedy.
        ImageSizeError: the architecture cannot compute that image size.
    """
    path = Path(source)
    if path.is_file():
        return _load_meta(path, size, image_size, memory)
    if path.is_dir():
        directory, name = path, path.resolve().name
    else:
        directory, name = hub_directory(source), source
    if size is not None:
        raise CheckpointError(
            f"{source}: --size and --model-cfg are for Meta's .pt files; a Hugging Face checkpoint "
            "brings its own configuration. Leave them out"
        )
    return _load_directory(directory, name, image_size, memory)


def random_checkpoint(
    size: SizeName, seed: int, image_size: int | None = None, memory: Memory = IMAGES_ONLY
) -> LoadedCheckpoint:
    """An untrained model, the same for the same seed, for tests and benchmarks.

    Its activations keep their variance from layer to layer, so that its planes react to prompts and
    a wrong graph shows: with the usual small initial weights nearly any output would pass.
    """
    config = config_for(size)
    config = with_image_size(config, image_size or image_size_of(config))
    model = Sam2Model(config)
    randomize(model, seed)
    name = untrained_name(seed)
    model.eval()
    video = _with_untrained_memory(model, {}, seed, name) if memory.wanted else None
    return LoadedCheckpoint(model, size, name, "", (), video, name if video else "")


def _load_meta(
    path: Path, size: SizeName | None, image_size: int | None, memory: Memory
) -> LoadedCheckpoint:
    meta = read_meta_file(path)
    found = size_shown_by(meta)
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
    config = config_for(size)
    config = with_image_size(config, image_size or image_size_of(config))
    parts = _parts(renamed(path, meta), config, {}, memory, path)
    unused = () if memory.wanted else tuple(sorted(meta_video_keys(meta)))
    return LoadedCheckpoint(
        parts.model,
        size,
        path.name,
        sha256_of_files([path]),
        unused,
        parts.video,
        parts.memory_name,
    )


def _load_directory(
    directory: Path, name: str, image_size: int | None, memory: Memory
) -> LoadedCheckpoint:
    config, parameters = read_directory_config(directory)
    weights, files = read_directory_weights(directory)
    config = with_image_size(config, image_size or image_size_of(config))
    parts = _parts(weights, config, parameters, memory, directory)
    unused = () if memory.wanted else tuple(sorted(transformers_video_keys(weights)))
    digest = sha256_of_files(files)
    return LoadedCheckpoint(
        parts.model, Path(name).name, name, digest, unused, parts.video, parts.memory_name
    )


class _Parts(NamedTuple):
    model: Sam2Model
    video: Sam2VideoModel | None
    memory_name: str


def _parts(
    state: StateDict,
    config: Sam2Config,
    parameters: Mapping[str, Any],
    memory: Memory,
    source: Path,
) -> _Parts:
    """The image model, and the one with memory if it is wanted, from all weights of a source."""
    video_keys = transformers_video_keys(state)
    image_state = {key: tensor for key, tensor in state.items() if key not in video_keys}
    model = _filled(Sam2Model(config), image_state, source)
    if not memory.wanted:
        return _Parts(model, None, "")
    if not video_keys and memory.untrained_seed is None:
        raise CheckpointError(
            f"{source}: it holds no memory, which tracking through video needs. Export the image model "
            "alone with --no-video, or an untrained memory, for trials, with --untrained-memory 0"
        )
    if not video_keys and memory.untrained_seed is not None:
        seed = memory.untrained_seed
        video = _with_untrained_memory(model, parameters, seed, str(source))
        return _Parts(model, video, untrained_name(seed))
    if memory.untrained_seed is not None:
        raise CheckpointError(f"{source}: it holds a memory; leave --untrained-memory out")
    empty = video_model(video_config(config, parameters, str(source)))
    # The image model's tensors are shared, not copied.
    return _Parts(model, _filled(empty, {**state, **model.state_dict()}, source), "")


def _with_untrained_memory(
    model: Sam2Model, parameters: Mapping[str, Any], seed: int, source: str
) -> Sam2VideoModel:
    """A model that shares the image model's weights; its memory's are made from a seed."""
    video = video_model(video_config(model.config, parameters, source))
    randomize(video, seed)
    return _filled(video, {**memory_weights_of(video), **model.state_dict()}, Path(source))


def untrained_name(seed: int) -> str:
    """What a file says of weights that nobody trained."""
    return f"random-weights-seed-{seed}"


def _filled(model: AnyModel, state: StateDict, source: Path) -> AnyModel:
    """`model` holding exactly `state`, upcast to FP32; FP32 tensors are taken as they are, not copied."""
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
    model.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
    not_finite = [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if not_finite:
        raise CheckpointError(f"{source}: weights that are not finite: {_listed(not_finite)}")
    return model.eval()


def _listed(items: list[str]) -> str:
    return ", ".join(items) or "none"
