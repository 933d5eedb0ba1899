"""What a model repository is told about GPUs, on top of its hand-written configurations.

Those load everywhere; these need a GPU. Applied to a finished repository directory:
`python -m deploy.gpu_profile REPOSITORY --provider cuda|tensorrt`.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from google.protobuf import text_format  # type: ignore[import-untyped,unused-ignore]
from tritonclient.grpc import model_config_pb2

Provider = Literal["cuda", "tensorrt"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
ENCODER, DECODER = "sam2_encoder", "sam2_decoder"
ENGINE_DIR = "/var/cache/sam2"
# Dynamic axes of the decoder: objects (B), points of each with a box's corners (N).
DECODER_AXES = {
    "unit_point_coords": ("objects", "points", None),
    "token_labels": ("objects", "points"),
    "dense_mask_input": ("objects", None, None, None),
    "has_mask_input": ("objects",),
}


@dataclass(frozen=True)
class Shapes:
    """One end of TensorRT's range of shapes."""

    images: int
    objects: int
    points: int


# A lone click has a point and a padding point; a few objects with a few clicks are what people send.
# TensorRT's provider neither widens a given range nor turns to CUDA's: a request beyond the maximum fails.
SMALLEST, USUAL, LARGEST = Shapes(1, 1, 1), Shapes(1, 1, 2), Shapes(8, 64, 32)


@dataclass(frozen=True)
class GpuSettings:
    provider: Provider = "cuda"
    # One encoder for each GPU: it fills the device by itself, a second one would only take memory.
    encoders_per_gpu: int = 1
    # Two decoders: each call is many short kernels, and the second one's run in the first one's gaps.
    decoders_per_gpu: int = 2
    # Images encoded together at most. (The plain configuration has 1: a CPU gains nothing by it.)
    images_per_batch: int = 8
    # Images that arrive within this time are encoded together. 0: only those that wait anyway, so that a
    # lone image never waits for company.
    encoder_queue_delay_us: int = 0
    engine_dir: str = ENGINE_DIR


def apply_to_repository(repository: Path, settings: GpuSettings) -> None:
    """Rewrite the encoder's and the decoder's config.pbtxt of an assembled repository."""
    for model in (ENCODER, DECODER):
        path = repository / model / "config.pbtxt"
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        apply(config, settings)
        text = f"# GPU profile: {settings.provider}\n{text_format.MessageToString(config)}"
        # In one step: the server may be reading it.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as partial:
            partial.write(text)
        Path(partial.name).chmod(0o644)
        Path(partial.name).replace(path)


def apply(config: Any, settings: GpuSettings) -> None:
    """Change one model's configuration (a ModelConfig message) in place."""
    if settings.provider not in PROVIDERS:
        raise ValueError(f"provider: expected {' or '.join(PROVIDERS)}; got {settings.provider!r}")
    is_encoder = config.name == ENCODER
    del config.instance_group[:]
    # Without a list of devices, Triton makes that many on every GPU it sees.
    config.instance_group.add(
        kind=model_config_pb2.ModelInstanceGroup.KIND_GPU,
        count=settings.encoders_per_gpu if is_encoder else settings.decoders_per_gpu,
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
    if is_encoder:
        for images in (USUAL.images, LARGEST.images):
            _add_warmup(config, f"{images} images", Shapes(images, 1, 1))
    else:
        for shapes in (USUAL, LARGEST):
            _add_warmup(config, f"{shapes.objects} objects", shapes)


def tensorrt_parameters(config: Any, settings: GpuSettings) -> dict[str, str]:
    """The accelerator's options, by the names that Triton's backend takes; others it refuses."""
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
        "trt_profile_min_shapes": _profile(config, SMALLEST),
        "trt_profile_opt_shapes": _profile(config, USUAL),
        "trt_profile_max_shapes": _profile(config, LARGEST),
    }


def input_shapes(config: Any, shapes: Shapes) -> dict[str, list[int]]:
    """Full shape, batch included, of every input that has a dynamic axis."""
    if config.name == ENCODER:
        images = min(shapes.images, config.max_batch_size)
        return {tensor.name: [images, *tensor.dims] for tensor in config.input}
    found = {}
    for tensor in config.input:
        if -1 not in tensor.dims:
            continue
        axes = DECODER_AXES[tensor.name]
        found[tensor.name] = [
            getattr(shapes, axis) if axis is not None else int(size)
            for axis, size in zip(axes, tensor.dims, strict=True)
        ]
    return found


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
