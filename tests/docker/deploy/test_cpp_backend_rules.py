"""The assembled repository, as written and with either GPU profile, under the C++ backend's load rules.

Locally a Python backend of the same name serves the graphs, and would forgive more.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from deploy.gpu_profile import ENGINE_DIR, PROVIDERS, GpuSettings, apply_to_repository
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc import model_config_pb2

from tests.docker.deploy.cpp_backend_rules import violations

GRAPHS = (
    "sam2_encoder",
    "sam2_decoder",
    "sam2_memory_attention",
    "sam2_video_decoder",
    "sam2_memory_encoder",
    "sam2_mask_prompt",
)
# protobuf's limit, beyond which weights need a file of their own, which the repository has no place for.
LARGEST_FILE_BYTES = 2**31


@pytest.fixture(scope="module", params=["as written", *PROVIDERS])
def repository(
    request: pytest.FixtureRequest, demo_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    copy = tmp_path_factory.mktemp("profile") / "repository"
    shutil.copytree(demo_repository, copy)
    if request.param != "as written":
        apply_to_repository(copy, GpuSettings(provider=request.param))
    return copy


def read(repository: Path, model: str) -> tuple[Any, onnx.ModelProto]:
    text = (repository / model / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    # The backend's file name, where the configuration gives none.
    file = repository / model / "1" / (config.default_model_filename or "model.onnx")
    return config, onnx.load(file, load_external_data=False)


@pytest.mark.parametrize("model", GRAPHS)
def test_a_model_keeps_every_rule(repository: Path, model: str) -> None:
    config, graph = read(repository, model)
    assert config.name == model
    assert violations(config, graph) == []
    # Nothing beside the graph: neither weights nor another version.
    [file] = (
        path
        for path in (repository / model).rglob("*")
        if path.suffix != ".pbtxt" and path.is_file()
    )
    assert file == repository / model / "1/model.onnx"
    assert file.stat().st_size < LARGEST_FILE_BYTES


def _output_of(config: Any, graph: Any) -> None:
    config.output[0].dims[0] = -1  # what an input may do in the other direction


def _accelerator(config: Any) -> Any:
    [accelerator] = config.optimization.execution_accelerators.gpu_execution_accelerator
    return accelerator


BREAKS: dict[str, Callable[[Any, Any], Any]] = {
    "is out of reach": lambda _, graph: setattr(graph.opset_import[0], "version", 22),
    "operators of other domains": lambda _, graph: graph.opset_import.add(
        domain="org.example", version=1
    ),
    "operator Gelu of com.microsoft": lambda _, graph: graph.graph.node.add(
        op_type="Gelu", domain="com.microsoft"
    ),
    "operators that TensorRT does not have": lambda _, graph: graph.graph.node.add(
        op_type="MultiHeadAttention", domain="com.microsoft"
    ),
    "weights in another file": lambda _, graph: setattr(
        graph.graph.initializer[0], "data_location", TensorProto.EXTERNAL
    ),
    "platform": lambda config, _: setattr(config, "platform", "pytorch_libtorch"),
    "inputs: the graph has": lambda config, _: config.input.pop(),
    "an optional input": lambda config, _: setattr(config.input[0], "optional", True),
    "not in the graph": lambda config, _: setattr(config.output[0], "name", "image_embedding"),
    "type 10 in the graph": lambda config, _: setattr(
        config.output[0], "data_type", model_config_pb2.TYPE_FP32
    ),
    "first axis of any size": lambda _, graph: setattr(
        graph.graph.output[0].type.tensor_type.shape.dim[0], "dim_value", 1
    ),
    "image_embed: dims": _output_of,
    "resized_image: dims": lambda config, _: config.input[0].dims.append(3),
    "a size is -1 or at least 1": lambda config, _: config.input[0].dims.append(0),
    "a list of devices": lambda config, _: config.instance_group[0].gpus.append(0),
    "without a GPU": lambda config, _: setattr(config.instance_group[0], "kind", 2),
    "expected a count": lambda config, _: setattr(config.instance_group[0], "count", 0),
    "preferred batch sizes": lambda config, _: config.dynamic_batching.preferred_batch_size.append(
        9
    ),
    "batch_size 0": lambda config, _: setattr(config.model_warmup[0], "batch_size", 0),
    "images: inputs": lambda config, _: config.model_warmup[0].inputs.pop("resized_image"),
    "type or data of resized_image": lambda config, _: (
        config.model_warmup[0].inputs["resized_image"].ClearField("zero_data")
    ),
    "shape of resized_image": lambda config, _: (
        config.model_warmup[0].inputs["resized_image"].dims.insert(0, 1)
    ),
    "parameter cudnn_conv_algo_search": lambda config, _: setattr(
        config.parameters["cudnn_conv_algo_search"], "string_value", "HEURISTIC"
    ),
    "an accelerator of CPUs": lambda config, _: (
        config.optimization.execution_accelerators.cpu_execution_accelerator.add(name="openvino")
    ),
    "accelerator TensorRT": lambda config, _: setattr(_accelerator(config), "name", "TensorRT"),
    "option trt_fp16_enable": lambda config, _: _accelerator(config).parameters.update(
        trt_fp16_enable="1"
    ),
    "option trt_engine_cache_enable": lambda config, _: _accelerator(config).parameters.update(
        trt_engine_cache_enable="TRUE"
    ),
    "trt_timing_cache_path: not in": lambda config, _: _accelerator(config).parameters.update(
        trt_timing_cache_path=f"{ENGINE_DIR}/caches/timing"
    ),
    "opt shapes": lambda config, _: _accelerator(config).parameters.update(
        trt_profile_opt_shapes="resized_image:3x1024x1024"
    ),
}


@pytest.fixture(scope="module")
def tensorrt(demo_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("broken") / "repository"
    shutil.copytree(demo_repository, copy)
    apply_to_repository(copy, GpuSettings(provider="tensorrt"))
    return copy


@pytest.mark.parametrize("words", BREAKS)
def test_each_broken_rule_is_noticed(tensorrt: Path, words: str) -> None:
    config, graph = read(tensorrt, "sam2_encoder")
    BREAKS[words](config, graph)
    assert words in "\n".join(violations(config, graph))
