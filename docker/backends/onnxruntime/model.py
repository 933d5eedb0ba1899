"""ONNX Runtime on the CPU as a Python-based Triton backend, under the name of Triton's own.

For the local server, whose wheel lacks the C++ backend `onnxruntime`. A repository written for that one
loads here byte for byte; where the C++ library exists it wins and this file is not used.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

ONNX_TO_TRITON_DTYPE = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}
# Parameters of the C++ backend that mean something here; its others are for GPUs and are left alone.
THREADS_PARAMETER = "intra_op_thread_count"


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        model_file = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / model_file
        if not path.is_file():
            raise pb_utils.TritonModelException(f"model {self.name}: there is no file {path}")
        self.session = onnxruntime.InferenceSession(
            str(path), session_options(config), providers=["CPUExecutionProvider"]
        )
        batched = config["max_batch_size"] > 0
        problems = [
            *mismatches("input", config["input"], self.session.get_inputs(), batched),
            *mismatches("output", config["output"], self.session.get_outputs(), batched),
        ]
        if problems:
            raise pb_utils.TritonModelException(
                f"model {self.name}: {path} does not fit its config.pbtxt: {'; '.join(problems)}"
            )
        self.input_names = [node.name for node in self.session.get_inputs()]

    def execute(self, requests):
        """Answer the requests one by one, each as soon as it is computed.

        Not concatenated: four images in one run save 6 % of a CPU's time (measured with the tiny
        encoder), and the first would wait for the last.
        """
        for request in requests:
            request.get_response_sender().send(
                self._answer(request), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            )

    def _answer(self, request):
        if request.is_cancelled():
            return error_response(f"{self.name}: cancelled", pb_utils.TritonError.CANCELLED)
        output_names = list(request.requested_output_names())
        try:
            feeds = {
                name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()
                for name in self.input_names
            }
            arrays = self.session.run(output_names, feeds)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            return error_response(f"{self.name}: {error}", pb_utils.TritonError.INTERNAL)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.ascontiguousarray(array))
                for name, array in zip(output_names, arrays, strict=True)
            ]
        )


def error_response(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def session_options(config):
    """Threads as the configuration says, else one for each processor this process may use."""
    options = onnxruntime.SessionOptions()
    parameters = config.get("parameters", {})
    if THREADS_PARAMETER in parameters:
        text = parameters[THREADS_PARAMETER]["string_value"]
        if not text.isdecimal():
            raise pb_utils.TritonModelException(
                f"parameter {THREADS_PARAMETER}: expected a number >= 0, got {text!r}"
            )
        threads = int(text)
    else:
        threads = 0
    # Never ONNX Runtime's own default: it counts processors that this process may not use, and pins
    # its threads to them.
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Idle threads that spin take the processors from the other models of the same request. On two busy
    # cores a decoder call took 245 ms of processor time with spinning and 174 ms without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def mismatches(kind, declared, nodes, batched):
    """Where the configuration's tensors and the graph's differ, in words."""
    graph = {node.name: node for node in nodes}
    names = {tensor["name"] for tensor in declared}
    for tensor in declared:
        name = tensor["name"]
        if name not in graph:
            yield f"{kind} {name!r} is not in the graph, which has {sorted(graph)}"
            continue
        node = graph[name]
        dtype = ONNX_TO_TRITON_DTYPE.get(node.type, f"unsupported {node.type}")
        if dtype != tensor["data_type"]:
            yield f"{kind} {name!r}: declared {tensor['data_type']}, the graph has {dtype}"
        dims = ([-1] if batched else []) + [int(size) for size in tensor["dims"]]
        shape = [size if isinstance(size, int) else -1 for size in node.shape]
        # A dynamic dimension of the graph takes any size; a fixed one wants the same size declared.
        if len(dims) != len(shape) or any(
            fixed not in (-1, size) for size, fixed in zip(dims, shape, strict=True)
        ):
            yield f"{kind} {name!r}: declared {dims}, the graph has {node.shape}"
    # Outputs may be left out of a configuration; every input of the graph needs a value.
    if kind == "input" and (undeclared := sorted(set(graph) - names)):
        yield f"the graph's inputs {undeclared} are not declared"
