"""A graph under ONNX Runtime on the CPU, held against its configuration, and its errors in plain words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnxruntime
from accelerators import cpu_accelerator
from input_limits import InvalidSettingError
from openvino_session import OpenVinoSession

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


def open_session(path: str, config: Mapping[str, Any], parameters: Mapping[str, str]) -> Any:
    """The graph under the engine that its configuration asks for.

    Raises:
        InvalidSettingError: the configuration asks for what does not exist or is not installed.
    """
    threads = thread_count(parameters)
    accelerator = cpu_accelerator(config)
    if accelerator is not None:
        return OpenVinoSession(path, threads, accelerator.precision)
    return onnxruntime.InferenceSession(
        path, session_options(threads), providers=["CPUExecutionProvider"]
    )


def thread_count(parameters: Mapping[str, str]) -> int:
    """As the configuration says, else one for each processor this process may use.

    Never an engine's own default: it counts processors that this process may not use, and pins its threads
    to them.
    """
    text = parameters.get(THREADS_PARAMETER, "0")
    if not text.isdecimal():
        raise InvalidSettingError(
            f"parameter {THREADS_PARAMETER}: expected a number >= 0, got {text!r}"
        )
    return int(text) or len(os.sched_getaffinity(0))


def session_options(threads: int) -> Any:
    """ONNX Runtime's options for a graph of the local server."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads that spin take the processors from the other models of the same request. On two busy
    # cores a decoder call took 245 ms of processor time with spinning and 174 ms without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def shrinking_run() -> Any:
    """Options of a run after which the arena gives back what it does not use.

    (The C++ backend has it for every run or none: its parameter memory.enable_memory_arena_shrinkage.)
    """
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def mismatches(
    kind: str, declared: Sequence[Mapping[str, Any]], nodes: Sequence[Any], batched: bool
) -> Iterator[str]:
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


def is_invalid_argument(error: Exception) -> bool:
    """Whether ONNX Runtime says that the inputs are wrong; its errors share no base class, only names."""
    return type(error).__name__ == "InvalidArgument"


def in_plain_words(error: Exception) -> str:
    """What ONNX Runtime says of inputs, without its own source files, nodes and line breaks."""
    text = re.sub(r"\s+", " ", str(error))
    text = re.sub(r"^.*(Status Message: |INVALID_ARGUMENT : )", "", text)
    text = re.sub(r"\S*/\S+\.\w+:\d+ .*?\) ", "", text)
    return text.removesuffix(" Please fix either the inputs/outputs or the model.").strip()
