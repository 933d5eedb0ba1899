"""What Triton's own C++ `onnxruntime` backend demands at load, held against our repository.

The backend's rules (triton-inference-server/onnxruntime_backend, src/onnxruntime.cc and its README), applied
to the configurations and the graphs as they are assembled: the same repository loads under it unedited.
Locally a Python backend of the same name serves the graphs, and would forgive more.
"""

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from deploy.gpu_profile import ENGINE_DIR, PROVIDERS, GpuSettings, apply_to_repository
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

GRAPHS = ("sam2_encoder", "sam2_decoder")
# ONNX Runtime 1.19, the one in Triton 24.10: the oldest that we serve with.
NEWEST_IR, NEWEST_OPSET = 10, 21
TYPES = {
    model_config_pb2.TYPE_UINT8: TensorProto.UINT8,
    model_config_pb2.TYPE_INT32: TensorProto.INT32,
    model_config_pb2.TYPE_INT64: TensorProto.INT64,
    model_config_pb2.TYPE_FP16: TensorProto.FLOAT16,
    model_config_pb2.TYPE_FP32: TensorProto.FLOAT,
    model_config_pb2.TYPE_BOOL: TensorProto.BOOL,
}


@pytest.fixture(scope="module", params=["as written", *PROVIDERS])
def repository(
    request: pytest.FixtureRequest, demo_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    copy = tmp_path_factory.mktemp("profile") / "repository"
    shutil.copytree(demo_repository, copy)
    if request.param != "as written":
        apply_to_repository(copy, GpuSettings(provider=request.param))
    return copy


def violations(config: Any, graph: onnx.ModelProto) -> list[str]:
    """Every rule of the backend that a model breaks."""
    broken = []
    opsets = {entry.domain: entry.version for entry in graph.opset_import}
    if graph.ir_version > NEWEST_IR or opsets.get("", 0) > NEWEST_OPSET:
        broken.append(f"IR {graph.ir_version}, opset {opsets.get('')} are too new")
    if set(opsets) - {""}:
        broken.append(f"operators of other domains: {set(opsets) - {''}}")
    if config.backend != "onnxruntime" or config.platform:
        broken.append("backend: onnxruntime, without a platform")
    weights = {one.name for one in graph.graph.initializer}
    inputs = {one.name: one for one in graph.graph.input if one.name not in weights}
    outputs = {one.name: one for one in graph.graph.output}
    if {one.name for one in config.input} != set(inputs):
        broken.append(f"inputs: the graph has {sorted(inputs)}")
    for kind, tensors, found in (
        ("input", config.input, inputs),
        ("output", config.output, outputs),
    ):
        for tensor in tensors:
            if tensor.name not in found:
                broken.append(f"{kind} {tensor.name}: not in the graph")
                continue
            broken += _differences(f"{kind} {tensor.name}", tensor, found[tensor.name], config)
    return broken


def _differences(name: str, tensor: Any, value: onnx.ValueInfoProto, config: Any) -> list[str]:
    found = value.type.tensor_type
    shape = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in found.shape.dim]
    broken = []
    if found.elem_type != TYPES[tensor.data_type]:
        broken.append(f"{name}: type {found.elem_type}")
    if config.max_batch_size > 0:
        if shape[:1] != [-1]:
            broken.append(f"{name}: batches need a first axis of any size, got {shape}")
        shape = shape[1:]
    if len(shape) != len(tensor.dims) or any(
        -1 not in (wanted, has) and wanted != has
        for wanted, has in zip(tensor.dims, shape, strict=False)
    ):
        broken.append(f"{name}: dims {list(tensor.dims)}, the graph has {shape}")
    return broken


def read(repository: Path, model: str) -> tuple[Any, onnx.ModelProto]:
    config = text_format.Parse(
        (repository / model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    # The backend's file name, where the configuration gives none.
    file = repository / model / "1" / (config.default_model_filename or "model.onnx")
    return config, onnx.load(file)


@pytest.mark.parametrize("model", GRAPHS)
def test_a_model_keeps_every_rule(repository: Path, model: str) -> None:
    assert violations(*read(repository, model)) == []


def test_a_broken_model_is_noticed(demo_repository: Path) -> None:
    config, graph = read(demo_repository, "sam2_encoder")
    config.input[0].name = "image"
    config.output[0].dims[0] += 1
    config.output[1].data_type = model_config_pb2.TYPE_FP32
    graph.opset_import[0].version = 99
    del graph.graph.output[2].type.tensor_type.shape.dim[0]
    said = "\n".join(violations(config, graph))
    for words in (
        "too new",
        "inputs: the graph has",
        "not in the graph",
        "dims",
        "type",
        "any size",
    ):
        assert words in said, words


# What the backend reads from a model's parameters; it ignores other names in silence.
PARAMETERS = {"cudnn_conv_algo_search": {"0", "1", "2"}, "arena_extend_strategy": {"0", "1"}}

# Of TensorRT's options, those that we use; with a name that it does not know, the backend refuses the model.
TENSORRT_OPTIONS = {
    *("trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix"),
    *("trt_timing_cache_enable", "trt_timing_cache_path"),
    *("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"),
}


@pytest.mark.parametrize("model", GRAPHS)
def test_parameters_are_those_that_are_read(repository: Path, model: str) -> None:
    config, _ = read(repository, model)
    for name, parameter in config.parameters.items():
        assert parameter.string_value in PARAMETERS[name], name
    for accelerator in config.optimization.execution_accelerators.gpu_execution_accelerator:
        assert accelerator.name == "tensorrt"
        assert set(accelerator.parameters) <= TENSORRT_OPTIONS
        assert accelerator.parameters["trt_engine_cache_path"].startswith(ENGINE_DIR)
    assert all(group.kind != group.KIND_MODEL for group in config.instance_group)
