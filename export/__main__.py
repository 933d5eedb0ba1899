"""`python -m export`: a SAM 2.1 checkpoint ► a complete Triton model repository."""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Annotated, cast

import torch
import typer
from rich.console import Console

# transformers reports on weights and speed; here every key is checked anyway.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from export.checkpoint import LoadedCheckpoint, Memory, load_checkpoint, random_checkpoint
from export.client_graphs import write_client_features, write_client_pixels
from export.client_models import FEATURES_FILE, PIXELS_FILE, why_left_out
from export.download import checkpoint_path
from export.errors import CheckpointError, ExportError
from export.graphs import build_graphs, build_video_graphs
from export.onnx_export import GraphFiles, metadata_of, write_decoder, write_encoder
from export.onnx_files import DECODER_FILE, ENCODER_FILE
from export.pixels import PIXELS, Pixels
from export.precision import PRECISIONS, Precision, with_precision
from export.repository import assemble_repository, refuse_other_directories
from export.sizes import SIZES, SizeName, image_size_of, size_of, size_of_model_cfg
from export.verify import table_of, verify
from export.verify_video import verify_video
from export.video_export import VideoFiles, video_metadata, write_video_graphs

DEFAULT_OUTPUT_DIR = Path("model_repository")


def export_graphs(
    checkpoint: LoadedCheckpoint,
    onnx_dir: Path,
    precision: Precision,
    device: str,
    console: Console,
    *,
    pixels: Pixels = "fp16",
) -> list[Path]:
    """Write the ONNX files into `onnx_dir` and check them against PyTorch.

    Raises:
        VerificationError: the files do not compute what PyTorch computes.
    """
    files = GraphFiles(onnx_dir / ENCODER_FILE, onnx_dir / DECODER_FILE)

    def say_written(file: Path) -> None:
        size_mb = file.stat().st_size / 1e6
        console.print(f"{file.stem}: {size_mb:.1f} MB, {precision}", highlight=False)

    with console.status("building the graphs") as status:
        graphs = with_precision(build_graphs(checkpoint.model), precision)
        metadata = metadata_of(checkpoint, graphs, precision)
        fingerprint = int(metadata["fingerprint"])
        status.update("encoder: tracing and writing")
        write_encoder(graphs, files.encoder, metadata, device, pixels)
        say_written(files.encoder)
        status.update("decoder: tracing and writing")
        write_decoder(graphs, files.decoder, metadata, device)
        say_written(files.decoder)
        del graphs
        measured = verify(files, checkpoint.model, precision, status.update)
        written = [*files, *_client_files(checkpoint, onnx_dir, metadata, console, pixels)]
        if checkpoint.video is not None:
            video_files = VideoFiles.in_folder(onnx_dir)
            status.update("video graphs: tracing and writing")
            video = with_precision(build_video_graphs(checkpoint.video, fingerprint), precision)
            metadata = video_metadata(metadata, video, checkpoint.memory_name)
            write_video_graphs(video, video_files, metadata, device)
            del video
            for file in video_files:
                say_written(file)
            measured += verify_video(
                video_files, checkpoint.video, fingerprint, precision, status.update
            )
            written += video_files
    console.print(table_of(measured, f"{checkpoint.model_name}, {precision}: ONNX against PyTorch"))
    return written


def _client_files(
    checkpoint: LoadedCheckpoint,
    onnx_dir: Path,
    metadata: dict[str, str],
    console: Console,
    pixels: Pixels,
) -> list[Path]:
    """The graphs for decoders in clients, where this is the model that those were made for."""
    image_size, size = int(metadata["image_size"]), size_of(checkpoint.model.config) or ""
    if (reason := why_left_out(size, image_size)) is not None:
        console.print(f"sam2.1_large_encoder (Paintera) left out: {reason}", highlight=False)
        return []
    metadata = {**metadata, "size": size}
    files = onnx_dir / PIXELS_FILE, onnx_dir / FEATURES_FILE
    no_memory_embedding = checkpoint.model.no_memory_embedding.detach().cpu().numpy()
    write_client_pixels(files[0], image_size, metadata, pixels)
    write_client_features(files[1], image_size, no_memory_embedding, metadata)
    console.print("sam2.1_large_encoder (Paintera): its graphs written", highlight=False)
    return list(files)


def check_device(device: str) -> None:
    """Raise unless PyTorch can compute on `device`."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(f"--device {device}: PyTorch cannot use it ({first_line})") from error


def export(
    *,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="Meta's .pt file, a Hugging Face directory, or a Hugging Face id. "
            "Default: checkpoints/sam2.1_hiera_SIZE.pt.",
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help=f"One of {', '.join(SIZES)}.")] = None,
    model_cfg: Annotated[
        str | None, typer.Option(help="Meta's name for a size: configs/sam2.1/sam2.1_hiera_t.yaml.")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help=f"The model repository to write. Default: {DEFAULT_OUTPUT_DIR}."),
    ] = None,
    onnx_only: Annotated[
        Path | None, typer.Option(help="Write just the ONNX files, into this folder.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Edge length of the square the model sees, in pixels; a multiple of 32. "
            "Default: the checkpoint's own (1024 for Meta's).",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, or fp16 for GPUs: types inside the graphs; inputs and outputs stay."
        ),
    ] = "fp32",
    pixels: Annotated[
        str,
        typer.Option(
            help="What the encoder takes: fp16, as exact as Meta's predictor, or uint8, half of the bytes "
            "between preprocessing and encoder for whole grey levels."
        ),
    ] = "fp16",
    device: Annotated[str, typer.Option(help="Where PyTorch traces: cpu, cuda.")] = "cpu",
    random_weights: Annotated[
        int | None,
        typer.Option(
            metavar="SEED", help="An untrained model of --size, for tests and benchmarks."
        ),
    ] = None,
    no_video: Annotated[
        bool,
        typer.Option(
            "--no-video", help="Images alone: no graphs and no models for tracking through video."
        ),
    ] = False,
    untrained_memory: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="For a checkpoint without memory: an untrained one, for trials. It tracks nothing.",
        ),
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="Name in the files' metadata. Default: size or folder.")
    ] = None,
) -> None:
    """Turn a SAM 2.1 checkpoint into a Triton model repository, and check it against PyTorch."""
    console = Console()
    try:
        _refuse_contradictions(
            checkpoint=checkpoint,
            size=size,
            model_cfg=model_cfg,
            output_dir=output_dir,
            onnx_only=onnx_only,
            random_weights=random_weights,
            no_video=no_video,
            untrained_memory=untrained_memory,
        )
        if precision not in PRECISIONS:
            raise ExportError(f"--precision: expected {' or '.join(PRECISIONS)}; got {precision!r}")
        if pixels not in PIXELS:
            raise ExportError(f"--pixels: expected {' or '.join(PIXELS)}; got {pixels!r}")
        target = onnx_only or output_dir or DEFAULT_OUTPUT_DIR
        if onnx_only is None:
            refuse_other_directories(target)  # before the long part, not after it
        check_device(device)
        with console.status("loading the checkpoint"):
            memory = Memory(not no_video, untrained_memory)
            loaded = _load(checkpoint, _size(size, model_cfg), image_size, random_weights, memory)
        _say_loaded(console, loaded)
        if model_name is not None:
            loaded = dataclasses.replace(loaded, model_name=model_name)
        # Beside the target, so that the finished files are renamed within one file system.
        target.resolve().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.resolve().parent) as scratch:
            files = export_graphs(loaded, Path(scratch), precision, device, console, pixels=pixels)
            if onnx_only is None:
                assemble_repository(Path(scratch), target)
            else:
                target.mkdir(exist_ok=True)
                for file in files:
                    file.replace(target / file.name)
        console.print(f"written to {target}", highlight=False)
    except (ExportError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _refuse_contradictions(
    *,
    checkpoint: str | None,
    size: str | None,
    model_cfg: str | None,
    output_dir: Path | None,
    onnx_only: Path | None,
    random_weights: int | None,
    no_video: bool,
    untrained_memory: int | None,
) -> None:
    if no_video and untrained_memory is not None:
        raise ExportError("--no-video and --untrained-memory: choose one")
    if random_weights is not None and untrained_memory is not None:
        raise ExportError("--random-weights makes the memory too; leave --untrained-memory out")
    if onnx_only is not None and output_dir is not None:
        raise ExportError("--onnx-only and --output-dir: choose one; each says where to write")
    if random_weights is not None and checkpoint is not None:
        raise ExportError("--random-weights and --checkpoint: choose one; each says which weights")
    if size is None and model_cfg is None:
        if random_weights is not None:
            raise ExportError(f"--random-weights: needs --size, one of {', '.join(SIZES)}")
        if checkpoint is None:
            raise ExportError("expected --checkpoint or --size; see python -m export --help")
    if size is not None and size not in SIZES:
        raise ExportError(f"--size: expected one of {', '.join(SIZES)}; got {size!r}")
    if size is not None and model_cfg is not None and size_of_model_cfg(model_cfg) != size:
        raise ExportError(
            f"--size {size} and --model-cfg {model_cfg} are different sizes; leave one out"
        )


def _size(size: str | None, model_cfg: str | None) -> SizeName | None:
    if model_cfg is not None:
        return size_of_model_cfg(model_cfg)
    return cast(SizeName, size) if size is not None else None


def _load(
    checkpoint: str | None,
    size: SizeName | None,
    image_size: int | None,
    random_weights: int | None,
    memory: Memory,
) -> LoadedCheckpoint:
    if random_weights is not None and size is not None:
        return random_checkpoint(size, random_weights, image_size, memory)
    if checkpoint is None and size is not None:
        downloaded = checkpoint_path(size)
        if not downloaded.is_file():
            raise CheckpointError(
                f"{downloaded}: no such file. Download it first (python -m export.download {size}), "
                "name another with --checkpoint, or try an untrained model with --random-weights 0"
            )
        checkpoint = str(downloaded)
    return load_checkpoint(str(checkpoint), size, image_size, memory)


def _say_loaded(console: Console, loaded: LoadedCheckpoint) -> None:
    model = loaded.video or loaded.model
    parameters = sum(tensor.numel() for tensor in model.parameters()) / 1e6
    text = (
        f"{loaded.source_name}: {loaded.model_name}, {parameters:.1f} M parameters, "
        f"{image_size_of(loaded.model.config)} px"
    )
    if loaded.unused_keys:
        text += f"; {len(loaded.unused_keys)} tensors for video tracking left out on purpose"
    if loaded.memory_name:
        text += f"; the memory is untrained ({loaded.memory_name}): it tracks nothing"
    console.print(text, highlight=False)


if __name__ == "__main__":
    typer.run(export)
