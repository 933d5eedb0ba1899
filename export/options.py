"""Options that contradict each other or mean nothing, refused before the long part."""

from pathlib import Path

from export.errors import ExportError
from export.sizes import SIZES, size_of_model_cfg


def refuse_contradictions(
    *,
    checkpoint: str | None,
    size: str | None,
    model_cfg: str | None,
    output_dir: Path | None,
    onnx_only: Path | None,
    random_weights: int | None,
    no_video: bool,
    untrained_memory: int | None,
) -> None:
    """Raise unless the options say one thing together."""
    if no_video and untrained_memory is not None:
        raise ExportError("--no-video and --untrained-memory: choose one")
    if random_weights is not None and untrained_memory is not None:
        raise ExportError("--random-weights makes the memory too; leave --untrained-memory out")
    if onnx_only is not None and output_dir is not None:
        raise ExportError("--onnx-only and --output-dir: choose one; each says where to write")
    if random_weights is not None and checkpoint is not None:
        raise ExportError("--random-weights and --checkpoint: choose one; each says which weights")
    if size is None and model_cfg is None:
        if random_weights is not None:
            raise ExportError(f"--random-weights: needs --size, one of {', '.join(SIZES)}")
        if checkpoint is None:
            raise ExportError("expected --checkpoint or --size; see python -m export --help")
    if size is not None and size not in SIZES:
        raise ExportError(f"--size: expected one of {', '.join(SIZES)}; got {size!r}")
    if size is not None and model_cfg is not None and size_of_model_cfg(model_cfg) != size:
        raise ExportError(
            f"--size {size} and --model-cfg {model_cfg} are different sizes; leave one out"
        )


def refuse_wrong_engine(precision: str, onnx_only: Path | None) -> None:
    """Raise where OpenVINO is chosen for graphs that are not for it."""
    if onnx_only is not None:
        raise ExportError("--openvino is written into a repository; --onnx-only writes none")
    if precision != "fp32":
        raise ExportError(
            f"--openvino and --precision {precision}: expected fp32 graphs, of which OpenVINO makes its own"
            " (INT8 ones of ONNX Runtime are slower there than FP32)"
        )
