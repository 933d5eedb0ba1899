"""Other weights into a running server, without a moment in which nobody answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped,unused-ignore]
from sam2_server.probe import GRPC_CHANNEL_ARGUMENTS
from sam2_server.process import ADMIN_KEY_HEADER
from tritonclient import grpc
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from deploy.errors import DeployError

# The encoder first, then the decoder that fits it, then the cache, which starts anew: old ids get NOT_FOUND
# and clients send the image again, which is better than a mask from other weights.
# The video graphs, where there are any, follow: until the last one is in, they refuse one another's features
# by their fingerprints, and sessions of the old weights end.
VIDEO_ORDER = (
    "sam2_mask_prompt",
    "sam2_video_decoder",
    "sam2_memory_encoder",
    "sam2_memory_attention",
)
ORDER = ("sam2_encoder", "sam2_decoder", "sam2_embedding", *VIDEO_ORDER)
LOAD_SECONDS = 3600.0  # TensorRT builds engines while the old ones serve


def check_interchangeable(old_repository: Path, new_repository: Path) -> None:
    """Raise where the models or their tensors differ from the old ones': that takes a new deployment."""
    for old in sorted(old_repository.glob("*/config.pbtxt")):
        if not (new_repository / old.parent.name / "config.pbtxt").is_file():
            raise DeployError(f"{old.parent.name} is gone; just deploy again")
    for path in sorted(new_repository.glob("*/config.pbtxt")):
        old_path = old_repository / path.parent.name / "config.pbtxt"
        if not old_path.is_file():
            raise DeployError(f"{path.parent.name} is new; just deploy again")
        new, old = _read(path), _read(old_path)
        if (list(new.input), list(new.output)) != (list(old.input), list(old.output)):
            raise DeployError(
                f"{path.parent.name}: the new models' tensors have other shapes (another image size?), so "
                "they cannot replace the old ones one by one under traffic; use just deploy, which restarts"
            )


def reload_models(url: str, admin_key: str, report: Callable[[str], None]) -> None:
    """Load each model anew through the closed administrative call; the old one serves meanwhile.

    Raises:
        DeployError: a model did not load. Triton goes on serving the old one of it.
    """
    headers = {f"triton-grpc-protocol-{ADMIN_KEY_HEADER}": admin_key}
    with grpc.InferenceServerClient(url, channel_args=GRPC_CHANNEL_ARGUMENTS) as client:
        found = {model.name for model in client.get_model_repository_index(headers=headers).models}
        for model in ORDER:
            if model in VIDEO_ORDER and model not in found:
                continue  # a repository for images alone
            report(f"loading {model}")
            try:
                client.load_model(model, headers=headers, client_timeout=LOAD_SECONDS)
            except InferenceServerException as error:
                raise DeployError(f"{model} was not loaded: {error.message()}") from error


def _read(path: Path) -> Any:
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
