"""Looking at a model repository before Triton does, for messages that say what to do."""

from pathlib import Path

from google.protobuf import text_format  # type: ignore[import-untyped,unused-ignore]
from tritonclient.grpc import model_config_pb2

from sam2_server.errors import RepositoryError

ONNX_BACKENDS = ("onnxruntime", "onnxruntime_onnx")
BUILD_REMEDY = "Build one: `just export SIZE` (from a checkpoint) or `just demo` (a small model)."


def read_repository(directory: Path) -> dict[str, model_config_pb2.ModelConfig]:
    """Every model's configuration by name; raises RepositoryError where it cannot be served."""
    if not directory.is_dir():
        raise RepositoryError(f"There is no model repository at {directory}.", BUILD_REMEDY)
    configs = {
        path.parent.name: _read_config(path) for path in sorted(directory.glob("*/config.pbtxt"))
    }
    if not configs:
        raise RepositoryError(
            f"{directory} holds no models: no */config.pbtxt in it.", BUILD_REMEDY
        )
    missing = [
        f"{name}/1/model.onnx"
        for name, config in configs.items()
        if (config.backend or config.platform) in ONNX_BACKENDS
        and not any((directory / name).glob("[0-9]*/model.onnx"))
    ]
    if missing:
        raise RepositoryError(
            f"{directory} lacks its ONNX files: {', '.join(missing)}.", BUILD_REMEDY
        )
    return configs


def python_instances(
    configs: dict[str, model_config_pb2.ModelConfig], *, onnx_in_python: bool
) -> int:
    """How many processes the Python backend will start, each with a shared-memory region."""
    total = 0
    for config in configs.values():
        backend = config.backend or config.platform
        if backend == "python" or (onnx_in_python and backend in ONNX_BACKENDS):
            total += sum(group.count or 1 for group in config.instance_group) or 1
    return total


def _read_config(path: Path) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(), config)
    except text_format.ParseError as error:
        raise RepositoryError(
            f"{path} is no valid model configuration: {error}", "Correct it, or build it anew."
        ) from error
    return config
