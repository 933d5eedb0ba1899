"""A graph under OpenVINO, with the face of ONNX Runtime's InferenceSession.

The package `openvino` itself: ONNX Runtime's own OpenVINO provider comes as another build of the package
`onnxruntime`, which cannot be installed beside it.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from input_limits import InvalidInputError, InvalidSettingError

MISSING = (
    "config.pbtxt asks for the accelerator openvino, which is not installed here. Install it (pip install"
    " -e '.[openvino]'), or export without --openvino"
)


def load_openvino() -> Any:
    """The module; InvalidSettingError where it is not installed.

    Its tools report each import to their maker through this package, which it works without.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise InvalidSettingError(MISSING) from error


class OpenVinoSession:
    """One graph, for as many threads as like to run it."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        """Compile the graph for this processor.

        Raises:
            InvalidSettingError: OpenVINO is missing, or the processor has no BF16.
        """
        openvino = load_openvino()
        core = openvino.Core()
        if precision == "BF16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise InvalidSettingError(
                "accelerator openvino, precision BF16: this processor has no instructions for it. Export with"
                " --openvino fp32"
            )
        self._inputs, self._outputs = _tensors_of(path)
        self._indices = {node.name: index for index, node in enumerate(self._outputs)}
        self._model = core.compile_model(
            path,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": {"FP32": "f32", "BF16": "bf16"}[precision],
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                # Its threads would be bound to the first processors, beside those of the other models.
                "ENABLE_CPU_PINNING": False,
            },
        )
        # One for each thread that runs the graph: a request of OpenVINO's holds the tensors of one run.
        self._requests = threading.local()

    def get_inputs(self) -> Sequence[Any]:
        return self._inputs

    def get_outputs(self) -> Sequence[Any]:
        return self._outputs

    def run(
        self, output_names: Sequence[str], feeds: Mapping[str, Any], _: object = None
    ) -> list[Any]:
        """The outputs' arrays, copies.

        Raises:
            InvalidInputError: an input whose shape is not the graph's.
        """
        for node in self._inputs:
            _check_shape(node, feeds[node.name])
        request = getattr(self._requests, "own", None)
        if request is None:
            request = self._requests.own = self._model.create_infer_request()
        request.infer(dict(feeds))
        return [
            np.array(request.get_output_tensor(self._indices[name]).data) for name in output_names
        ]


def _tensors_of(path: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """As ONNX Runtime describes them: OpenVINO forgets what dynamic dimensions are called."""
    options = onnxruntime.SessionOptions()
    # Nothing is computed with it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.get_inputs(), session.get_outputs()


def _check_shape(node: Any, array: Any) -> None:
    fits = len(node.shape) == array.ndim and all(
        not isinstance(expected, int) or expected == size
        for expected, size in zip(node.shape, array.shape, strict=True)
    )
    if not fits:
        raise InvalidInputError(
            f"{node.name}: expected {list(node.shape)}, got {list(array.shape)}"
        )
