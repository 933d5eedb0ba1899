"""OpenVINO as the engine of a repository's graphs: what its configurations say, and its BF16 to be compared.

The words are those that Triton's C++ ONNX Runtime backend reads as well (it does not look at `precision`).
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.errors import ExportError

PRECISIONS = ("fp32", "bf16")
# Models whose masks are compared. Video's graphs are not, and stay with ONNX Runtime.
ACCELERATED_MODELS = ("sam2_encoder", "sam2_decoder")
Progress = Callable[[str], None]


class OpenVinoSession:
    """A graph in BF16 with the face of ONNX Runtime's InferenceSession."""

    def __init__(self, path: Path) -> None:
        from export.verify import open_session  # noqa: PLC0415 - PyTorch, which assembling does without

        self.get_inputs = open_session(path).get_inputs
        model = _core().compile_model(os.fspath(path), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        self._names = [output.any_name for output in model.outputs]
        self._request = model.create_infer_request()

    def run(self, output_names: list[str] | None, feeds: dict[str, Any]) -> list[Any]:
        """The outputs of one run, copies."""
        self._request.infer(feeds)
        return [self._request.get_tensor(name).data.copy() for name in output_names or self._names]


def has_bf16() -> bool:
    """Whether this processor computes in BF16; ExportError where OpenVINO is not installed."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def accelerator_stanza(precision: str) -> str:
    """What a configuration says for OpenVINO in a precision of PRECISIONS."""
    return (
        f"\n# just export --openvino {precision}\n"
        "optimization { execution_accelerators { cpu_execution_accelerator : [ {\n"
        '  name: "openvino"\n'
        f'  parameters {{ key: "precision" value: "{precision.upper()}" }}\n'
        "} ] } }\n"
    )


def choose_openvino(repository: Path, precision: str) -> None:
    """Write the choice into the configurations of an assembled repository."""
    for model in ACCELERATED_MODELS:
        with (repository / model / "config.pbtxt").open("a", encoding="utf-8") as config:
            config.write(accelerator_stanza(precision))


def _core() -> Any:
    # Its tools report each import to their maker through this package, which they work without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino").Core()
    except ImportError as error:
        raise ExportError(
            "--openvino: OpenVINO is not installed here; pip install -e '.[openvino]'"
        ) from error
