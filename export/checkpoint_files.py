"""Reading checkpoint files, with errors that say what such a file really is and what to do."""

import json
import pickle
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Sam2Config

from export.errors import CheckpointError
from export.file_checks import describe_wrong_file
from export.video_model import memory_parameters

# Sam2VideoModel's checkpoints (what Meta publishes on Hugging Face) hold the image model too.
_MODEL_TYPES = ("sam2", "sam2_video")


def read_meta_file(path: Path) -> dict[str, Tensor]:
    """The state dict of a `.pt` file of Meta's: `{"model": {name: tensor}}`."""
    with path.open("rb") as file:
        wrong = describe_wrong_file(file.read(512))
    if wrong:
        raise CheckpointError(f"{path}: {wrong}. {_DOWNLOAD_AGAIN}")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a readable PyTorch checkpoint of plain tensors ({first_line}). "
            f"{_DOWNLOAD_AGAIN}"
        ) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(t, Tensor) for t in model.values()):
        found = (
            sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        )
        raise CheckpointError(
            f'{path}: expected {{"model": state dict}} as Meta publishes it; found {found}'
        )
    return model


_DOWNLOAD_AGAIN = "Delete it and download it again: python -m export.download SIZE"


def hub_directory(repo_id: str) -> Path:
    """Download (or find in the local cache) a Hugging Face checkpoint by its id."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only ids need the network
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    nothing = f"{repo_id}: no such file or directory"
    if repo_id.count("/") != 1 or repo_id.startswith((".", "/")) or repo_id.endswith(".pt"):
        raise CheckpointError(f"{nothing}, and no Hugging Face id (OWNER/NAME) either")
    try:
        found = snapshot_download(repo_id, allow_patterns=["config.json", "model*.safetensors*"])
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{nothing}, and it could not be fetched from Hugging Face: {first_line}"
        ) from error
    return Path(found)


def read_directory_config(directory: Path) -> tuple[Sam2Config, dict[str, Any]]:
    """The architecture that a Hugging Face directory's `config.json` describes: the image part, and the
    memory's parameters as they stand there."""
    path = directory / "config.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{directory}: expected a Hugging Face checkpoint; config.json is missing"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if model_type not in _MODEL_TYPES:
        raise CheckpointError(
            f"{path}: expected model_type {' or '.join(_MODEL_TYPES)}; found {model_type!r}"
        )
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    missing = [part for part in parts if not isinstance(content.get(part), dict)]
    if missing:
        raise CheckpointError(f"{path}: {', '.join(missing)} missing")
    return Sam2Config(**{part: content[part] for part in parts}), memory_parameters(content)


def read_directory_weights(directory: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """All tensors of a Hugging Face directory's safetensors, and the files that held them."""
    files = [directory / "model.safetensors"]
    if not files[0].is_file():
        files = sorted(directory.glob("model-*-of-*.safetensors"))
    if not files:
        raise CheckpointError(f"{directory}: model.safetensors is missing")
    weights: dict[str, Tensor] = {}
    for path in files:
        try:
            weights |= load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            with path.open("rb") as file:
                wrong = describe_wrong_file(file.read(512))
            raise CheckpointError(
                f"{path}: {wrong or f'not a readable safetensors file ({error})'}. Fetch it again"
            ) from error
    return weights, files
