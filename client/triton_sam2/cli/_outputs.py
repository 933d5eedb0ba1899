"""Where results go: looked at before the work begins, written after it."""

import io
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError


def check_folder(folder: Path, option: str) -> None:
    """Make a folder if need be, and try whether files can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        raise InvalidInputError(f"{option}: cannot write into {folder}: {reason}") from error


def check_files(files: Iterable[tuple[Path, str]], inputs: Mapping[Path, str]) -> None:
    """Try whether files (with the option that names each) can be written without hurting an input."""
    taken = {os.path.realpath(path): what for path, what in inputs.items()}
    for path, option in files:
        real = os.path.realpath(path)
        if real in taken:
            raise InvalidInputError(f"{option}: {path} is {taken[real]} already")
        taken[real] = f"what {option} writes"
        _try_to_write(path, option)


def check_picture_ending(path: Path, option: str) -> None:
    """Whether pictures can be written in the format that a path's ending names."""
    picture_format = Image.registered_extensions().get(path.suffix.lower())
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), picture_format or path.suffix.lstrip("."))
    except (KeyError, OSError, ValueError) as error:
        raise InvalidInputError(
            f"{option}: expected an ending such as .png or .jpg, got {path.name!r}"
        ) from error


def save_picture(pixels: NDArray[np.uint8], path: Path) -> Path:
    """Write an overlay; the path's ending names the format."""
    try:
        Image.fromarray(pixels).save(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot write {path}: {error}") from error
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file, or say why not."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _try_to_write(path: Path, option: str) -> None:
    try:
        if path.is_dir():
            raise InvalidInputError(f"{option}: cannot write {path}: it is a folder")
        if path.exists():
            with path.open("r+b" if path.is_file() else "wb"):
                return
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InvalidInputError(f"{option}: cannot write {path}: {error.strerror}") from error
