"""What Triton's own C++ `onnxruntime` backend demands of a model at load, in our words.

The rules of the backend (triton-inference-server/onnxruntime_backend, src/onnxruntime.cc), of Triton's core
(src/model_config_utils.cc, src/backend_model_instance.cc) and of ONNX Runtime's provider options.
"""

import re
from pathlib import Path
from typing import Any

import onnx
from deploy.gpu_profile import ENGINE_DIR
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

# ONNX Runtime 1.19, the one in Triton 24.10: the oldest that we serve with. Newer ones read more, none less.
NEWEST_IR, OPSETS = 10, range(7, 22)
# ONNX Runtime's own operators, which every build of it has; TensorRT has none of them.
CONTRIBUTED = {"com.microsoft": {"MultiHeadAttention"}}
TYPES = {
    model_config_pb2.TYPE_UINT8: TensorProto.UINT8,
    model_config_pb2.TYPE_INT32: TensorProto.INT32,
    model_config_pb2.TYPE_INT64: TensorProto.INT64,
    model_config_pb2.TYPE_FP16: TensorProto.FLOAT16,
    model_config_pb2.TYPE_FP32: TensorProto.FLOAT,
    model_config_pb2.TYPE_BOOL: TensorProto.BOOL,
}
# What the backend reads from a model's parameters, as numbers; it ignores other names in silence.
PARAMETERS = {"cudnn_conv_algo_search": {"0", "1", "2"}, "arena_extend_strategy": {"0", "1"}}
# What the local Python-based backend reads beside it (docker/backends/onnxruntime/input_limits.py).
OF_THE_LOCAL_BACKEND = re.compile(
    r"rows_at_once|max_(heavy|waiting)_(requests|bytes)|(elements_at_once|max_elements|values):\w+"
)
# Of TensorRT's options, those that we use, and what their values may be; an unknown name fails the load.
# The backend takes a flag in any case of letters, ONNX Runtime after it does not.
FLAG, FOLDER, NAME, SHAPES = r"0|1|true|false", r"/.+", r"\w+", r"\w+:\d+(x\d+)*(,\w+:\d+(x\d+)*)*"
TENSORRT_OPTIONS = {
    "trt_engine_cache_enable": FLAG,
    "trt_engine_cache_path": FOLDER,
    "trt_engine_cache_prefix": NAME,
    "trt_timing_cache_enable": FLAG,
    "trt_timing_cache_path": FOLDER,
    "trt_profile_min_shapes": SHAPES,
    "trt_profile_opt_shapes": SHAPES,
    "trt_profile_max_shapes": SHAPES,
}


def violations(config: Any, graph: onnx.ModelProto) -> list[str]:
    """Every rule that a model breaks."""
    return [
        *_of_the_graph(graph),
        *_of_the_tensors(config, graph),
        *_of_the_instances(config),
        *_of_the_warm_up(config),
        *_of_the_providers(config, graph),
    ]


def _of_the_graph(graph: onnx.ModelProto) -> list[str]:
    broken = []
    opsets = {entry.domain: entry.version for entry in graph.opset_import}
    if graph.ir_version > NEWEST_IR or opsets.get("") not in OPSETS:
        broken.append(f"IR {graph.ir_version} or opset {opsets.get('')} is out of reach")
    if graph.functions or set(opsets) - {"", *CONTRIBUTED}:
        broken.append(f"operators of other domains: {set(opsets) - {'', *CONTRIBUTED}}")
    broken += [
        f"operator {node.op_type} of {node.domain}"
        for node in graph.graph.node
        if node.op_type not in CONTRIBUTED.get(node.domain, {node.op_type})
    ]
    if any(one.data_location == TensorProto.EXTERNAL for one in graph.graph.initializer):
        broken.append("weights in another file")
    return broken


def _of_the_tensors(config: Any, graph: onnx.ModelProto) -> list[str]:
    broken = []
    if config.backend != "onnxruntime" or config.platform not in ("", "onnxruntime_onnx"):
        broken.append(f"backend {config.backend!r}, platform {config.platform!r}")
    weights = {one.name for one in graph.graph.initializer}
    inputs = {one.name: one for one in graph.graph.input if one.name not in weights}
    outputs = {one.name: one for one in graph.graph.output}
    # Every input of the graph has to be configured, while an output may be left out.
    if sorted(one.name for one in config.input) != sorted(inputs):
        broken.append(f"inputs: the graph has {sorted(inputs)}")
    if any(one.optional for one in config.input):
        broken.append("an optional input, which only a weight that can be overridden may be")
    for tensors, found, exact in ((config.input, inputs, False), (config.output, outputs, True)):
        for tensor in tensors:
            if tensor.name in found:
                broken += _differences(tensor, found[tensor.name], config, exact)
            else:
                broken.append(f"{tensor.name}: not in the graph")
    return broken


def _differences(tensor: Any, value: onnx.ValueInfoProto, config: Any, exact: bool) -> list[str]:
    """An input may be narrower in the configuration than in the graph; an output has to be the same."""
    broken = []
    if value.type.tensor_type.elem_type != TYPES[tensor.data_type]:
        broken.append(f"{tensor.name}: type {value.type.tensor_type.elem_type} in the graph")
    shape = shape_of(value)
    if config.max_batch_size > 0 and shape[:1] != [-1]:
        broken.append(f"{tensor.name}: batches need a first axis of any size, got {shape}")
    wanted = ([-1] if config.max_batch_size > 0 else []) + list(tensor.dims)
    if len(wanted) != len(shape) or any(
        ours != theirs and (exact or theirs != -1)
        for ours, theirs in zip(wanted, shape, strict=True)
    ):
        broken.append(f"{tensor.name}: dims {wanted}, the graph has {shape}")
    if not tensor.dims or any(size == 0 or size < -1 for size in tensor.dims):
        broken.append(f"{tensor.name}: a size is -1 or at least 1, got {list(tensor.dims)}")
    return broken


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    dims = value.type.tensor_type.shape.dim
    return [axis.dim_value if axis.HasField("dim_value") else -1 for axis in dims]


def _of_the_instances(config: Any) -> list[str]:
    broken = []
    accelerated = config.optimization.execution_accelerators.gpu_execution_accelerator
    for group in config.instance_group:
        # KIND_AUTO is resolved before the backend sees it; with a list of devices it would depend on them.
        if group.kind not in (group.KIND_AUTO, group.KIND_GPU, group.KIND_CPU) or group.gpus:
            broken.append("instances: a kind that computes on the CPU, or a list of devices")
        if accelerated and group.kind != group.KIND_GPU:
            broken.append("instances: an accelerator of GPUs without a GPU")
        if group.count < 1 or group.profile:
            broken.append("instances: expected a count, and no profile")
    preferred = config.dynamic_batching.preferred_batch_size
    if any(not 1 <= size <= config.max_batch_size for size in preferred):
        broken.append(f"preferred batch sizes {list(preferred)}")
    return broken


def _of_the_warm_up(config: Any) -> list[str]:
    broken = []
    dims = {tensor.name: list(tensor.dims) for tensor in config.input}
    types = {tensor.name: tensor.data_type for tensor in config.input}
    for sample in config.model_warmup:
        # A sample of 0 is skipped without a word.
        if not 1 <= sample.batch_size <= max(config.max_batch_size, 1):
            broken.append(f"{sample.name}: batch_size {sample.batch_size}")
        if set(sample.inputs) != set(dims):
            broken.append(f"{sample.name}: inputs {sorted(sample.inputs)}")
            continue
        for name, value in sample.inputs.items():
            if value.data_type != types[name] or value.WhichOneof("input_data_type") is None:
                broken.append(f"{sample.name}: type or data of {name}")
            if not _fits(list(value.dims), dims[name]):
                broken.append(f"{sample.name}: shape of {name}, {list(value.dims)}")
    return broken


def _fits(shape: list[int], dims: list[int]) -> bool:
    return len(shape) == len(dims) and all(
        size >= 1 and declared in (-1, size) for size, declared in zip(shape, dims, strict=True)
    )


def _of_the_providers(config: Any, graph: onnx.ModelProto) -> list[str]:
    broken = [
        f"parameter {name}: {parameter.string_value!r}"
        for name, parameter in config.parameters.items()
        if parameter.string_value not in PARAMETERS.get(name, ())
        and not OF_THE_LOCAL_BACKEND.fullmatch(name)
    ]
    accelerators = config.optimization.execution_accelerators
    if accelerators.cpu_execution_accelerator:
        broken.append("an accelerator of CPUs")
    if accelerators.gpu_execution_accelerator and any(n.domain for n in graph.graph.node):
        broken.append("operators that TensorRT does not have")
    for accelerator in accelerators.gpu_execution_accelerator:
        if accelerator.name != "tensorrt":
            broken.append(f"accelerator {accelerator.name}")
        for name, value in accelerator.parameters.items():
            if not re.fullmatch(TENSORRT_OPTIONS.get(name, ""), value):
                broken.append(f"TensorRT's option {name}: {value!r}")
        for name in ("trt_engine_cache_path", "trt_timing_cache_path"):
            # ONNX Runtime makes the last folder of a path and no other; the volume is there.
            if str(Path(accelerator.parameters[name]).parent) != ENGINE_DIR:
                broken.append(f"{name}: not in {ENGINE_DIR}")
        broken += _of_the_profiles(accelerator.parameters, graph)
    return broken


def _of_the_profiles(parameters: Any, graph: onnx.ModelProto) -> list[str]:
    """All three ends, for every dynamic input of the graph, batch included; one left out fails the load."""
    broken = []
    dynamic = {value.name: shape_of(value) for value in graph.graph.input if -1 in shape_of(value)}
    for end in ("min", "opt", "max"):
        found = {
            name: [int(size) for size in shape.split("x")]
            for name, shape in re.findall(
                r"(\w+):([\dx]+)", parameters[f"trt_profile_{end}_shapes"]
            )
        }
        if set(found) != set(dynamic) or not all(
            _fits(found[name], dynamic[name]) for name in found
        ):
            broken.append(f"{end} shapes {found}, the graph has {dynamic}")
    return broken
