"""`models/` and an export's ONNX files ► a complete Triton model repository. Needs no PyTorch.

The configurations under `models/` are written for one image size; the comment behind a dims line is
its formula, and here the numbers are computed anew for the size that the ONNX files say they have.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.client_models import CLIENT_FILES, CLIENT_MODELS, check_fit
from export.errors import ExportError, RepositoryError
from export.onnx_files import DECODER_FILE, ENCODER_FILE, VIDEO_FILES, OnnxFile, read_onnx_file
from export.pixels import PIXEL_BYTES, PIXEL_TENSOR, TRITON_TYPES
from export.shared_modules import SHARED_DIR, put_shared_modules_beside

MODELS_DIR = Path(__file__).resolve().parent.parent / "models"
# Each ONNX file's model is called like the file.
ENCODER_MODEL, DECODER_MODEL = "sam2_encoder", "sam2_decoder"
VIDEO_GRAPHS = tuple(f"sam2_{Path(name).stem}" for name in VIDEO_FILES)
VERSION = "1"

# dims: [ 32, 256, 256 ] … # [C/8, S/4, S/4]
_DIMS_LINE = re.compile(
    r"^(?P<head>[^#]*\bdims:\s*\[)(?P<dims>[^\]]*)(?P<tail>\][^#]*#\s*)\[(?P<formula>[^\]]*)\](?P<rest>.*)$"
)
_TERM = re.compile(r"(?P<symbol>[SCD])(?:/(?P<divisor>\d+))?")
# { name: "resized_image" data_type: TYPE_FP16 …
_PIXEL_TYPE = re.compile(rf'(name:\s*"(?:{PIXEL_TENSOR}|decoded_image)"\s+data_type:\s*TYPE_)\w+')
# { key: "pixel_bytes" value: { string_value: "2" } }
_PIXEL_BYTES = re.compile(r'(key:\s*"pixel_bytes"\s+value:\s*\{\s*string_value:\s*")\d+')
_FREE = ("B", "M", "N", "P")


def assemble_repository(
    onnx_dir: Path, output_dir: Path, models_dir: Path = MODELS_DIR, *, video: bool = True
) -> None:
    """Write the repository to `output_dir`, replacing an earlier one as a whole.

    Args:
        onnx_dir: holds `encoder.onnx` and `decoder.onnx` of one export, and the video graphs' files if it
            was one with video.
        output_dir: a new or empty directory, or a model repository.
        models_dir: the configurations and Python models to copy.
        video: False leaves out what tracks through video, even where the files are there.

    Models for decoders in clients come along where the export wrote their files (export/client_models.py).

    Raises:
        RepositoryError: the files do not belong together or do not fit the configurations, or
            `output_dir` holds something else than a model repository.
    """
    files = _read_files(onnx_dir, video)
    refuse_other_directories(output_dir)
    sizes = sizes_of(list(files.values()))
    with replaced_directory(output_dir) as building:
        pixel_type = _pixel_type_of(files[ENCODER_MODEL])
        _copy_models(models_dir, building, sizes, pixel_type, client=CLIENT_MODELS[0] in files)
        for model, file in files.items():
            check_against_config(building / model / "config.pbtxt", file)
            (building / model / VERSION).mkdir(exist_ok=True)
            shutil.copyfile(file.path, building / model / VERSION / "model.onnx")


def is_of_video(model: str) -> bool:
    """Whether a model tracks through video, and an image-only repository goes without."""
    return model in VIDEO_GRAPHS or model.startswith("sam2_video")


def sizes_of(files: list[OnnxFile]) -> dict[str, int]:
    """What the symbols in the configurations' formulas stand for: S, C, and D where there is a memory."""
    sizes = {"S": files[0].image_size, "C": files[0].embed_channels}
    depths = [file.memory_channels for file in files if file.path.name in VIDEO_FILES]
    return {**sizes, "D": depths[0]} if depths else sizes


def _read_files(onnx_dir: Path, video: bool) -> dict[str, OnnxFile]:
    """The ONNX file of each model, all of one export."""
    names = [ENCODER_FILE, DECODER_FILE]
    found = [name for name in VIDEO_FILES if (onnx_dir / name).is_file()]
    if video and found:
        names += VIDEO_FILES
    files = {f"sam2_{Path(name).stem}": read_onnx_file(onnx_dir / name) for name in names}
    encoder, decoder, *of_video = files.values()
    _check_pair(encoder, decoder)
    for name in CLIENT_FILES if (onnx_dir / CLIENT_FILES[0]).is_file() else ():
        file = read_onnx_file(onnx_dir / name)
        check_fit(file.path, file.metadata)
        _check_pair(encoder, file)
        files[f"sam2_{Path(name).stem}"] = file
    for file in of_video:
        _check_pair(encoder, file)
        _check_pair(of_video[0], file, ("memory_fingerprint", "memory_channels"))
    return files


def resized_config(text: str, sizes: dict[str, int], name: str = "config.pbtxt") -> str:
    """A configuration with the dims of every line that has a formula computed anew.

    `dims: [ 1, 256, 64, 64 ]   # [1, C, S/16, S/16]`: `sizes` says what S, the image size, C, the
    embeddings' width, and D, the memories' width, are; B, M, N and P are -1.
    """
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        found = _DIMS_LINE.match(line)
        if found is None:
            lines.append(line)
            continue
        where = f"{name}, line {number}"
        terms = [term.strip() for term in found["formula"].split(",")]
        if len(terms) != len(found["dims"].split(",")):
            raise RepositoryError(f"{where}: dims and formula differ in length: {line.strip()}")
        dims = ", ".join(str(_value(term, sizes, where)) for term in terms)
        lines.append(f"{found['head']} {dims} {found['tail']}[{found['formula']}]{found['rest']}")
    return "\n".join(lines)


def _value(term: str, sizes: dict[str, int], where: str) -> int:
    if term in _FREE:
        return -1
    if re.fullmatch(r"\d+", term):
        return int(term)
    found = _TERM.fullmatch(term)
    if found is None:
        raise RepositoryError(
            f"{where}: expected a number, S, C, D, S/n, C/n, D/n or one of {', '.join(_FREE)}; "
            f"got {term!r}"
        )
    if found["symbol"] not in sizes:
        raise RepositoryError(
            f"{where}: {term} is of the video graphs, which this repository has not"
        )
    value, divisor = sizes[found["symbol"]], int(found["divisor"] or 1)
    if value % divisor:
        raise RepositoryError(f"{where}: {term} is no whole number for {found['symbol']} = {value}")
    return value // divisor


def refuse_other_directories(output_dir: Path) -> None:
    """Raise unless `output_dir` is missing, empty, or holds nothing but Triton models."""
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise RepositoryError(f"{output_dir}: expected a directory; it is a file")
    strangers = sorted(
        child.name for child in output_dir.iterdir() if not (child / "config.pbtxt").is_file()
    )
    if strangers:
        raise RepositoryError(
            f"{output_dir}: not a model repository, so it is left alone; it holds "
            f"{', '.join(strangers[:5])}. Choose another --output-dir, or empty it yourself"
        )


@contextlib.contextmanager
def replaced_directory(target: Path) -> Iterator[Path]:
    """A fresh directory to fill, which takes the place of `target` once the block has succeeded.

    Renamed within one folder: others see the old directory, for an instant none, then the new one,
    and never a half-written one. Whatever ends the block early leaves `target` as it was.
    """
    # A link stays a link: what it points to is replaced.
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True
    ) as scratch:
        building, old = Path(scratch) / "new", Path(scratch) / "old"
        building.mkdir()
        yield building
        if target.exists():
            target.rename(old)
        try:
            building.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise


def check_against_config(config: Path, file: OnnxFile) -> None:
    """Compare an ONNX file's tensors with a configuration, as Triton's C++ backend will."""
    text = config.read_text("utf-8")
    batched = int((re.search(r"^max_batch_size:\s*(\d+)", text, re.MULTILINE) or ["", "0"])[1]) > 0
    declared = {}
    for name, data_type, dims in re.findall(
        r'name:\s*"(\w+)"\s+data_type:\s*TYPE_(\w+)\s+dims:\s*\[([^\]]*)\]', text
    ):
        numbers = tuple(int(dim) for dim in dims.split(","))
        declared[name] = (data_type, ((-1,) if batched else ()) + numbers)
    if declared != file.tensors:
        differing = sorted(
            f"{name}: configured {declared.get(name)}, found {file.tensors.get(name)}"
            for name in declared.keys() | file.tensors.keys()
            if declared.get(name) != file.tensors.get(name)
        )
        raise RepositoryError(
            f"{file.path} does not fit {config.parent.name}: {'; '.join(differing)}"
        )


def _check_pair(
    first: OnnxFile,
    second: OnnxFile,
    facts: tuple[str, ...] = ("fingerprint", "image_size", "embed_channels"),
) -> None:
    for what in facts:
        ours, theirs = first.metadata[what], second.metadata[what]
        if ours != theirs:
            raise RepositoryError(
                f"{first.path} and {second.path} are of different exports: {what} is {ours} in "
                f"{first.path.name} and {theirs} in {second.path.name}. Export all again from one checkpoint"
            )


def _pixel_type_of(encoder: OnnxFile) -> str:
    """What the encoder takes for pixels, in Triton's words."""
    data_type, _ = encoder.tensors.get(PIXEL_TENSOR, ("nothing of that name", ()))
    if data_type not in TRITON_TYPES.values():
        expected = " or ".join(TRITON_TYPES.values())
        raise RepositoryError(
            f"{encoder.path}: {PIXEL_TENSOR}: expected {expected}, got {data_type}"
        )
    return data_type


def with_pixel_type(text: str, data_type: str) -> str:
    """A configuration in which what becomes `resized_image` is what the encoder takes."""
    text = _PIXEL_TYPE.sub(rf"\g<1>{data_type}", text)
    return _PIXEL_BYTES.sub(rf"\g<1>{PIXEL_BYTES[data_type]}", text)


def _copy_models(
    models_dir: Path, building: Path, sizes: dict[str, int], pixel_type: str, *, client: bool
) -> None:
    configs = sorted(models_dir.glob("*/config.pbtxt"))
    if not configs:
        raise RepositoryError(f"{models_dir}: no */config.pbtxt; is this the folder models/?")
    for config in configs:
        if "D" not in sizes and is_of_video(config.parent.name):
            continue
        if not client and config.parent.name in CLIENT_MODELS:
            continue
        source, copy = config.parent, building / config.parent.name
        shutil.copytree(
            source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.onnx")
        )
        (copy / VERSION).mkdir(exist_ok=True)
        put_shared_modules_beside(copy / VERSION, models_dir / SHARED_DIR)
        text = config.read_bytes().decode("utf-8")
        resized = resized_config(text, sizes, f"{source.name}/config.pbtxt")
        text = with_pixel_type(resized, pixel_type)
        (copy / "config.pbtxt").write_bytes(text.encode("utf-8"))


def main(
    onnx_dir: Annotated[Path, typer.Option(help="Folder with an export's ONNX files.")],
    output_dir: Annotated[Path, typer.Option(help="The model repository to write.")] = Path(
        "model_repository"
    ),
    no_video: Annotated[
        bool, typer.Option("--no-video", help="Images alone, even if the video graphs are there.")
    ] = False,
) -> None:
    """Assemble a Triton model repository from an export's ONNX files. Needs no PyTorch."""
    try:
        assemble_repository(onnx_dir, output_dir, video=not no_video)
    except (ExportError, OSError) as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    Console().print(f"model repository written to {os.fspath(output_dir)}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
