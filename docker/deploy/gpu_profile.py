"""What a model repository is told about GPUs, on top of its hand-written configurations.

Those load everywhere; these need a GPU. Applied to a finished repository directory:
`python -m deploy.gpu_profile REPOSITORY --provider cuda|tensorrt`.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from google.protobuf import text_format  # type: ignore[import-untyped,unused-ignore]
from tritonclient.grpc import model_config_pb2

from deploy.gpu_shapes import (
    ATTENTION,
    DECODER,
    ENCODER,
    VIDEO_GRAPHS,
    Shapes,
    input_shapes,
    range_of,
)

Provider = Literal["cuda", "tensorrt"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
ENGINE_DIR = "/var/cache/sam2"
# Beside a TensorRT engine of the attention, the same graph on CUDA, for what is outside the engine's range:
# more memories (many prompted frames), more pointers, or none (frames before an object's first prompt).
WIDE_ATTENTION = f"{ATTENTION}_wide"
SESSIONS = "sam2_video"


@dataclass(frozen=True)
class GpuSettings:
    provider: Provider = "cuda"
    # One encoder for each GPU: it fills the device by itself, a second one would only take memory.
    encoders_per_gpu: int = 1
    # Two decoders: each call is many short kernels, and the second one's run in the first one's gaps.
    decoders_per_gpu: int = 2
    # One of each video graph: attention fills the device, and a session's steps come one after another.
    video_graphs_per_gpu: int = 1
    # Images encoded together at most. (The plain configuration has 1: a CPU gains nothing by it.)
    images_per_batch: int = 8
    # Images that arrive within this time are encoded together. 0: only those that wait anyway, so that a
    # lone image never waits for company.
    encoder_queue_delay_us: int = 0
    engine_dir: str = ENGINE_DIR


def apply_to_repository(repository: Path, settings: GpuSettings) -> None:
    """Rewrite the config.pbtxt of every graph of an assembled repository, with or without video."""
    graphs = [name for name in (ENCODER, DECODER, *VIDEO_GRAPHS) if (repository / name).is_dir()]
    for model in graphs:
        config = _read(repository / model)
        apply(config, settings)
        _write(repository / model, config, settings.provider)
    if ATTENTION in graphs:
        _apply_to_sessions(repository, settings)


def _apply_to_sessions(repository: Path, settings: GpuSettings) -> None:
    """What of the attention goes to TensorRT, and where the rest goes."""
    wide, attention = repository / WIDE_ATTENTION, repository / ATTENTION
    sessions = _read(repository / SESSIONS)
    engine_range = range_of(ATTENTION).largest
    is_bounded = settings.provider == "tensorrt"
    for name, largest in (
        ("attention_memories", engine_range.memories),
        ("attention_pointers", engine_range.pointers),
    ):
        sessions.parameters[name].string_value = str(largest if is_bounded else 0)
    if wide.exists():
        shutil.rmtree(wide)
    if is_bounded:
        shutil.copytree(attention, wide)
        config = _read(attention)
        apply(config, replace(settings, provider="cuda"))
        config.name = WIDE_ATTENTION
        _write(wide, config, "cuda")
    _write(repository / SESSIONS, sessions, settings.provider)


def _read(model_dir: Path) -> Any:
    text = (model_dir / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def _write(model_dir: Path, config: Any, provider: str) -> None:
    text = f"# GPU profile: {provider}\n{text_format.MessageToString(config)}"
    # In one step: the server may be reading it.
    with tempfile.NamedTemporaryFile("w", dir=model_dir, delete=False) as partial:
        partial.write(text)
    Path(partial.name).chmod(0o644)
    Path(partial.name).replace(model_dir / "config.pbtxt")


def apply(config: Any, settings: GpuSettings) -> None:
    """Change one model's configuration (a ModelConfig message) in place."""
    if settings.provider not in PROVIDERS:
        raise ValueError(f"provider: expected {' or '.join(PROVIDERS)}; got {settings.provider!r}")
    is_encoder, shapes = config.name == ENCODER, range_of(config.name)
    counts = {ENCODER: settings.encoders_per_gpu, DECODER: settings.decoders_per_gpu}
    del config.instance_group[:]
    # Without a list of devices, Triton makes that many on every GPU it sees.
    config.instance_group.add(
        kind=model_config_pb2.ModelInstanceGroup.KIND_GPU,
        count=counts.get(config.name, settings.video_graphs_per_gpu),
    )
    if is_encoder:
        config.max_batch_size = settings.images_per_batch
        config.dynamic_batching.max_queue_delay_microseconds = settings.encoder_queue_delay_us
    # CUDA is the provider by default and what TensorRT leaves over falls back to.
    for key, value in {
        # HEURISTIC (1): an exhaustive search (0, the default) for each new shape stalls its first request.
        "cudnn_conv_algo_search": "1",
        # kSameAsRequested (1): doubling (0) keeps up to twice what is needed.
        "arena_extend_strategy": "1",
    }.items():
        config.parameters[key].string_value = value
    config.optimization.ClearField("execution_accelerators")
    if settings.provider == "tensorrt":
        accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(
            name="tensorrt"
        )
        for key, value in tensorrt_parameters(config, settings).items():
            accelerator.parameters[key] = value
    del config.model_warmup[:]
    # Warm-up is over before the server reports ready: it builds the engines, loads the kernels and sizes the
    # memory arenas for the usual shapes and the largest ones.
    for warm in (shapes.usual, shapes.largest):
        count = warm.images if is_encoder else warm.objects
        _add_warmup(config, f"{count} {'images' if is_encoder else 'objects'}", warm)


def tensorrt_parameters(config: Any, settings: GpuSettings) -> dict[str, str]:
    """The accelerator's options, by the names that Triton's backend takes; others it refuses."""
    shapes = range_of(config.name)
    return {
        # An engine takes minutes to build and belongs to this GPU, TensorRT and graph. No precision_mode:
        # TensorRT is strongly typed, so the precision is that of the exported graph.
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": f"{settings.engine_dir}/engines",
        "trt_engine_cache_prefix": config.name,
        # What was measured for one engine speeds up the next one, of another size or after an update.
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": f"{settings.engine_dir}/timing",
        # One engine for the whole range: without it TensorRT builds anew whenever a shape leaves the range
        # seen so far, in the middle of somebody's request.
        "trt_profile_min_shapes": _profile(config, shapes.smallest),
        "trt_profile_opt_shapes": _profile(config, shapes.usual),
        "trt_profile_max_shapes": _profile(config, shapes.largest),
    }


def _profile(config: Any, shapes: Shapes) -> str:
    return ",".join(
        f"{name}:{'x'.join(map(str, shape))}"
        for name, shape in input_shapes(config, shapes).items()
    )


def _add_warmup(config: Any, name: str, shapes: Shapes) -> None:
    sample = config.model_warmup.add(name=name)
    batched = config.max_batch_size > 0
    # At least 1, also without batching: Triton skips a sample of 0 without a word. With batching it sends the
    # sample that many times and adds the batch's axis itself.
    sample.batch_size = min(shapes.images, config.max_batch_size) if batched else 1
    dynamic = input_shapes(config, shapes)
    for tensor in config.input:
        shape = list(tensor.dims) if batched else dynamic.get(tensor.name, list(tensor.dims))
        warm = sample.inputs[tensor.name]
        warm.data_type = tensor.data_type
        warm.dims.extend(shape)
        warm.zero_data = True


def main(
    repository: Annotated[Path, typer.Argument(help="A finished model repository.")],
    provider: Annotated[str, typer.Option(help="cuda or tensorrt.")] = "cuda",
    engine_dir: Annotated[str, typer.Option(help="Where TensorRT keeps engines.")] = ENGINE_DIR,
) -> None:
    """Write the GPU profile into a model repository."""
    if provider not in PROVIDERS:
        raise typer.BadParameter(f"expected {' or '.join(PROVIDERS)}; got {provider!r}")
    apply_to_repository(repository, GpuSettings(provider=provider, engine_dir=engine_dir))
    typer.echo(f"{repository}: GPU profile, {provider}")


if __name__ == "__main__":
    typer.run(main)
