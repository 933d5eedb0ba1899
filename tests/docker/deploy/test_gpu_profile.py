"""The GPU profile by Triton's own protobuf; that it runs is shown on a GPU by `just gpu-check`."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from deploy.gpu_profile import (
    PROVIDERS,
    WIDE_ATTENTION,
    GpuSettings,
    Provider,
    apply_to_repository,
)
from deploy.gpu_shapes import AXES, IMAGES, VIDEO, VIDEO_GRAPHS, input_shapes, range_of
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.repository import assemble_repository
from tests.running_server import ROOT

ONNX_MODELS = ("sam2_encoder", "sam2_decoder", *VIDEO_GRAPHS)
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
        if path.parent.name == WIDE_ATTENTION:
            continue
        profiled, plain = read(path), read(demo_repository / path.parent.name / "config.pbtxt")
        assert list(profiled.input) == list(plain.input)
        assert list(profiled.output) == list(plain.output)
        if path.parent.name == "sam2_encoder":
            assert (plain.max_batch_size, profiled.max_batch_size) == (1, 8)
        else:
            assert profiled.max_batch_size == plain.max_batch_size
        assert profiled.backend == plain.backend
        if path.parent.name == "sam2_video":
            # Its test is test_what_no_engine_takes_goes_to_cuda.
            for config in (profiled, plain):
                for name in ("attention_memories", "attention_pointers"):
                    del config.parameters[name]
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
    for model in ONNX_MODELS:
        count = 2 if model == "sam2_decoder" else 1
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
    for model in ONNX_MODELS[1:]:
        config, shapes = read(repository / model / "config.pbtxt"), range_of(model)
        # 0 would be skipped in silence.
        assert [sample.batch_size for sample in config.model_warmup] == [1, 1]
        for sample, shape in zip(config.model_warmup, (shapes.usual, shapes.largest), strict=True):
            assert set(sample.inputs) == {tensor.name for tensor in config.input}
            for name, sides in input_shapes(config, shape).items():
                assert list(sample.inputs[name].dims) == sides
            assert all(-1 not in value.dims for value in sample.inputs.values())


def test_video_engines_take_what_sam2_video_sends(repository: Path, provider: Provider) -> None:
    """B 1 to 8, M 1, 7, 16, P 1, 16, 31: one object with one prompted frame is the usual case."""
    limits = read(repository / "sam2_video/config.pbtxt").parameters
    assert int(limits["max_objects_per_call"].string_value) == VIDEO.largest.objects
    ends = (VIDEO.smallest, VIDEO.usual, VIDEO.largest)
    assert [(e.objects, e.memories, e.pointers) for e in ends] == [
        (1, 1, 1),
        (1, 7, 16),
        (8, 16, 31),
    ]
    if provider == "tensorrt":
        attention = read(repository / "sam2_memory_attention/config.pbtxt")
        [accelerator] = attention.optimization.execution_accelerators.gpu_execution_accelerator
        largest = accelerator.parameters["trt_profile_max_shapes"]
        assert "maskmem_tpos:8x16" in largest
        assert "obj_ptr_offsets:8x31" in largest


def test_what_no_engine_takes_goes_to_cuda(repository: Path, provider: Provider) -> None:
    sessions = read(repository / "sam2_video/config.pbtxt")
    names = ("attention_memories", "attention_pointers")
    bounds = [int(sessions.parameters[name].string_value) for name in names]
    if provider == "cuda":
        assert bounds == [0, 0]
        assert not (repository / WIDE_ATTENTION).exists()
        return
    assert bounds == [VIDEO.largest.memories, VIDEO.largest.pointers]
    wide = read(repository / WIDE_ATTENTION / "config.pbtxt")
    engine = read(repository / "sam2_memory_attention/config.pbtxt")
    assert wide.name == WIDE_ATTENTION
    assert (list(wide.input), list(wide.output)) == (list(engine.input), list(engine.output))
    assert not wide.optimization.execution_accelerators.gpu_execution_accelerator
    files = [repository / model / "1/model.onnx" for model in (wide.name, engine.name)]
    assert files[0].read_bytes() == files[1].read_bytes()
    # Going back to CUDA takes it away again.
    apply_to_repository(repository, GpuSettings(provider="cuda"))
    assert not (repository / WIDE_ATTENTION).exists()
    sessions = read(repository / "sam2_video/config.pbtxt")
    assert [sessions.parameters[name].string_value for name in names] == ["0", "0"]


def test_a_repository_for_images_alone_gets_its_profile(tmp_path: Path, provider: Provider) -> None:
    assemble_repository(ROOT / "export/demo_model/onnx", tmp_path / "images", video=False)
    apply_to_repository(tmp_path / "images", GpuSettings(provider=provider))
    assert not (tmp_path / "images" / WIDE_ATTENTION).exists()
    encoder = read(tmp_path / "images/sam2_encoder/config.pbtxt")
    assert encoder.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


def test_every_dynamic_tensor_of_every_graph_has_its_axes() -> None:
    for model in ONNX_MODELS[1:]:
        config = read(ROOT / "models" / model / "config.pbtxt")
        dynamic = {tensor.name: len(tensor.dims) for tensor in config.input if -1 in tensor.dims}
        assert {name: len(axes) for name, axes in AXES[model].items()} == dynamic


def test_applying_it_again_changes_nothing(repository: Path, provider: Provider) -> None:
    path = repository / "sam2_decoder/config.pbtxt"
    before = read(path)
    apply_to_repository(repository, GpuSettings(provider=provider))
    assert read(path) == before


def test_an_unknown_provider_is_refused(demo_repository: Path) -> None:
    with pytest.raises(ValueError, match="expected cuda or tensorrt; got 'rocm'"):
        apply_to_repository(demo_repository, GpuSettings(provider="rocm"))  # type: ignore[arg-type]


def test_shapes_are_ordered() -> None:
    for shapes in (IMAGES, VIDEO):
        for axis in ("images", "objects", "points", "memories", "pointers"):
            ends = [getattr(end, axis) for end in (shapes.smallest, shapes.usual, shapes.largest)]
            assert 1 <= ends[0] <= ends[1] <= ends[2]


def statistics_of(client: Any, model: str) -> int:
    """How often a model has been executed."""
    return int(client.get_inference_statistics(model).model_stats[0].execution_count)


@pytest.mark.server
@pytest.mark.slow
def test_the_warm_up_runs_on_the_local_server(demo_repository: Path, tmp_path: Path) -> None:
    """Triton itself takes the warm-up samples; the kind becomes AUTO, since here is no GPU."""
    from sam2_server.probe import probe
    from tritonclient import grpc

    from tests.models.video.clips import clip
    from tests.raw_client import RawClient
    from tests.running_server import RunningServer
    from tests.server.video_session import ServerSession

    copy = tmp_path / "repository"
    shutil.copytree(demo_repository, copy)
    apply_to_repository(copy, GpuSettings(provider="tensorrt"))
    for model in (*ONNX_MODELS, WIDE_ATTENTION):
        path = copy / model / "config.pbtxt"
        path.write_text(path.read_text().replace("KIND_GPU", "KIND_AUTO"))
    with RunningServer(copy, tmp_path / "state", "--no-probe") as running:
        client = grpc.InferenceServerClient(running.grpc_url)
        ran = {model: statistics_of(client, model) for model in ONNX_MODELS}
        # Two samples for each instance: one of each graph, two decoders.
        assert ran == {model: 4 if model == "sam2_decoder" else 2 for model in ONNX_MODELS}
        assert probe(f"grpc://{running.grpc_url}", 60).healthy
        # A frame before the first prompt has no pointer, which no engine takes.
        files = clip(3)
        session = ServerSession(RawClient(running, "grpc"), files)
        session.points(2, 1, [[150, 110]], [1])
        wide = statistics_of(client, WIDE_ATTENTION)
        session.track(0, most=0)
        assert statistics_of(client, WIDE_ATTENTION) == wide + 1
        log = Path(running.state["log_file"]).read_text()
    assert "failed to load" not in log
