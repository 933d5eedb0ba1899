"""Looking at a model repository before Triton does, for messages that say what to do."""

from pathlib import Path
from typing import Any

from google.protobuf import text_format  # type: ignore[import-untyped,unused-ignore]
from tritonclient.grpc import model_config_pb2

from sam2_server.errors import RepositoryError

ONNX_BACKENDS = ("onnxruntime", "onnxruntime_onnx")
# What goes from preprocessing to the encoder.
PIXELS = "resized_image"
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
    _refuse_other_pixels(directory, configs)
    return configs


def _refuse_other_pixels(directory: Path, configs: dict[str, model_config_pb2.ModelConfig]) -> None:
    """Raise where preprocessing would hand the encoder pixels of another type or size than it takes."""
    if not {"sam2_preprocess", "sam2_encoder"} <= configs.keys():
        return
    made, taken = (
        next((_described(tensor) for tensor in tensors if tensor.name == PIXELS), "nothing")
        for tensors in (configs["sam2_preprocess"].output, configs["sam2_encoder"].input)
    )
    if made != taken:
        raise RepositoryError(
            f"{directory}: {PIXELS}: sam2_preprocess makes {made} and sam2_encoder takes {taken}.",
            "They are of different exports: build the repository anew, or make"
            f" sam2_preprocess/config.pbtxt say {taken}.",
        )


def _described(tensor: Any) -> str:
    return f"{model_config_pb2.DataType.Name(tensor.data_type)} {list(tensor.dims)}"


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
