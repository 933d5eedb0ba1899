"""The GPU profile by Triton's own protobuf; that it runs is shown on a GPU by `just gpu-check`."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from deploy.gpu_profile import (
    LARGEST,
    PROVIDERS,
    SMALLEST,
    USUAL,
    GpuSettings,
    Provider,
    apply_to_repository,
    input_shapes,
)
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.running_server import ROOT

ONNX_MODELS = ("sam2_encoder", "sam2_decoder")
# What src/onnxruntime.cc of Triton's onnxruntime_backend takes; anything else fails the load.
TENSORRT_PARAMETERS = {
    *("precision_mode", "max_workspace_size_bytes", "trt_max_partition_iterations"),
    *("trt_min_subgraph_size", "trt_engine_cache_enable", "trt_engine_cache_path"),
    *("trt_engine_cache_prefix", "trt_timing_cache_enable", "trt_timing_cache_path"),
    *("trt_builder_optimization_level", "trt_layer_norm_fp32_fallback"),
    *("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"),
}


def read(path: Path) -> Any:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    return request.param


@pytest.fixture
def repository(demo_repository: Path, tmp_path: Path, provider: Provider) -> Path:
    copy = tmp_path / "repository"
    shutil.copytree(demo_repository, copy)
    apply_to_repository(copy, GpuSettings(provider=provider))
    return copy


def test_every_configuration_parses_and_keeps_its_tensors(
    repository: Path, demo_repository: Path
) -> None:
    paths = sorted(repository.glob("*/config.pbtxt"))
    assert {path.parent.name for path in paths} >= {"sam2", *ONNX_MODELS}
    for path in paths:
        profiled, plain = read(path), read(demo_repository / path.parent.name / "config.pbtxt")
        assert list(profiled.input) == list(plain.input)
        assert list(profiled.output) == list(plain.output)
        if path.parent.name == "sam2_encoder":
            assert (plain.max_batch_size, profiled.max_batch_size) == (1, 8)
        else:
            assert profiled.max_batch_size == plain.max_batch_size
        assert profiled.backend == plain.backend
        if path.parent.name not in ONNX_MODELS:
            assert profiled == plain


def test_the_plain_configurations_ask_for_no_gpu() -> None:
    for model in ONNX_MODELS:
        config = read(ROOT / "models" / model / "config.pbtxt")
        [group] = config.instance_group
        assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO
        assert not config.HasField("optimization")
        # On a CPU a batch makes every image of it late.
        assert not config.HasField("dynamic_batching")


def test_instances_on_every_gpu(repository: Path) -> None:
    for model, count in zip(ONNX_MODELS, (1, 2), strict=True):
        [group] = read(repository / model / "config.pbtxt").instance_group
        assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        assert group.count == count
        assert not group.gpus


def test_the_encoder_batches_without_making_anybody_wait(repository: Path) -> None:
    config = read(repository / "sam2_encoder/config.pbtxt")
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert not read(repository / "sam2_decoder/config.pbtxt").HasField("dynamic_batching")


def test_provider_options_are_those_of_the_backend(repository: Path, provider: Provider) -> None:
    for model in ONNX_MODELS:
        config = read(repository / model / "config.pbtxt")
        # Numbers, as the backend parses them.
        assert config.parameters["cudnn_conv_algo_search"].string_value in {"0", "1", "2"}
        assert config.parameters["arena_extend_strategy"].string_value in {"0", "1"}
        accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert [a.name for a in accelerators] == (["tensorrt"] if provider == "tensorrt" else [])
        for accelerator in accelerators:
            assert set(accelerator.parameters) <= TENSORRT_PARAMETERS
            # Strongly typed TensorRT refuses or ignores it.
            assert "precision_mode" not in accelerator.parameters


@pytest.mark.parametrize("provider", ["tensorrt"], indirect=True)
def test_profiles_name_every_dynamic_input_within_its_bounds(repository: Path) -> None:
    for model in ONNX_MODELS:
        config = read(repository / model / "config.pbtxt")
        [accelerator] = config.optimization.execution_accelerators.gpu_execution_accelerator
        profiles = [
            {
                name: [int(size) for size in shape.split("x")]
                for name, shape in re.findall(
                    r"(\w+):([\dx]+)", accelerator.parameters[f"trt_profile_{end}_shapes"]
                )
            }
            for end in ("min", "opt", "max")
        ]
        batched = config.max_batch_size > 0
        dynamic = {t.name for t in config.input if batched or -1 in t.dims}
        dims = {t.name: ([-1] if batched else []) + list(t.dims) for t in config.input}
        for profile in profiles:
            assert set(profile) == dynamic
        for name in dynamic:
            smallest, usual, largest = (profile[name] for profile in profiles)
            for low, middle, high, declared in zip(
                smallest, usual, largest, dims[name], strict=True
            ):
                assert 1 <= low <= middle <= high
                if declared != -1:
                    assert low == high == declared


def test_warm_up_covers_the_usual_and_the_largest_shapes(repository: Path) -> None:
    encoder = read(repository / "sam2_encoder/config.pbtxt")
    assert [sample.batch_size for sample in encoder.model_warmup] == [1, encoder.max_batch_size]
    decoder = read(repository / "sam2_decoder/config.pbtxt")
    # 0 would be skipped in silence.
    assert [sample.batch_size for sample in decoder.model_warmup] == [1, 1]
    for sample, shapes in zip(decoder.model_warmup, (USUAL, LARGEST), strict=True):
        assert set(sample.inputs) == {tensor.name for tensor in decoder.input}
        for name, shape in input_shapes(decoder, shapes).items():
            assert list(sample.inputs[name].dims) == shape
        assert all(-1 not in value.dims for value in sample.inputs.values())


def test_applying_it_again_changes_nothing(repository: Path, provider: Provider) -> None:
    path = repository / "sam2_decoder/config.pbtxt"
    before = read(path)
    apply_to_repository(repository, GpuSettings(provider=provider))
    assert read(path) == before


def test_an_unknown_provider_is_refused(demo_repository: Path) -> None:
    with pytest.raises(ValueError, match="expected cuda or tensorrt; got 'rocm'"):
        apply_to_repository(demo_repository, GpuSettings(provider="rocm"))  # type: ignore[arg-type]


def test_shapes_are_ordered() -> None:
    for axis in ("images", "objects", "points"):
        assert 1 <= getattr(SMALLEST, axis) <= getattr(USUAL, axis) <= getattr(LARGEST, axis)


@pytest.mark.server
@pytest.mark.slow
def test_the_warm_up_runs_on_the_local_server(demo_repository: Path, tmp_path: Path) -> None:
    """Triton itself takes the warm-up samples; the kind becomes AUTO, since here is no GPU."""
    from sam2_server.probe import probe
    from tritonclient import grpc

    from tests.running_server import RunningServer

    copy = tmp_path / "repository"
    shutil.copytree(demo_repository, copy)
    apply_to_repository(copy, GpuSettings(provider="tensorrt"))
    for model in ONNX_MODELS:
        path = copy / model / "config.pbtxt"
        path.write_text(path.read_text().replace("KIND_GPU", "KIND_AUTO"))
    with RunningServer(copy, tmp_path / "state", "--no-probe") as running:
        client = grpc.InferenceServerClient(running.grpc_url)
        ran = {
            model: client.get_inference_statistics(model).model_stats[0].execution_count
            for model in ONNX_MODELS
        }
        # Two samples for each instance: one encoder, two decoders.
        assert ran == {"sam2_encoder": 2, "sam2_decoder": 4}
        assert probe(f"grpc://{running.grpc_url}", 60).healthy
        log = Path(running.state["log_file"]).read_text()
    assert "failed to load" not in log
