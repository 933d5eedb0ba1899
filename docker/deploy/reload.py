"""Other weights into a running server, without a moment in which nobody answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from sam2_server.errors import LauncherError
from sam2_server.loading import load_models
from tritonclient.grpc import model_config_pb2

from deploy.errors import DeployError


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
    """Load each model anew over a gRPC port that this machine reaches.

    Raises:
        DeployError: a model did not load. Triton goes on serving the old one of it.
    """
    try:
        load_models(url, admin_key, report)
    except LauncherError as error:
        raise DeployError(error.problem) from error


def _read(path: Path) -> Any:
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
