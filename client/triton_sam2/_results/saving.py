"""Results as files."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError
from triton_sam2._results.masks import CocoAnnotation

Files: TypeAlias = dict[Path, bytes]


class _Savable(Protocol):
    """What a result must have to be written; a Segmentation has it."""

    @property
    def masks(self) -> NDArray[np.uint8]: ...
    @property
    def iou_predictions(self) -> NDArray[np.float32]: ...
    @property
    def low_res_masks(self) -> NDArray[np.float32]: ...
    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]: ...
    def best(self) -> "_Savable": ...
    def to_coco(self) -> list[CocoAnnotation]: ...


def save_result(result: _Savable, path: Path) -> list[Path]:
    """Write a result in the format that the path's ending names."""
    check_ending(path, "path")
    files = _WRITERS[path.suffix.lower()](result, path)
    for target, content in files.items():
        try:
            target.write_bytes(content)
        except OSError as error:
            raise InvalidInputError(f"path: cannot write {target}: {error.strerror}") from error
    return list(files)


def check_ending(path: Path, name: str) -> None:
    """Raise InvalidInputError, naming the argument, for a path whose ending names no format."""
    if path.suffix.lower() not in _WRITERS:
        raise InvalidInputError(
            f"{name}: expected an ending of {', '.join(_WRITERS)}, got {path.name!r}"
        )


def result_paths(path: Path, objects: int) -> list[Path]:
    """The files that a result of so many objects becomes."""
    if path.suffix.lower() != ".png" or objects == 1:
        return [path]
    return [path.with_stem(f"{path.stem}-{index + 1}") for index in range(objects)]


def _png_files(result: _Savable, path: Path) -> Files:
    masks = result.best().masks[:, 0]
    return dict(zip(result_paths(path, len(masks)), map(_png, masks), strict=True))


def _png(mask: np.ndarray) -> bytes:  # type: ignore[type-arg]
    buffer = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def _npy_file(result: _Savable, path: Path) -> Files:
    buffer = io.BytesIO()
    np.save(buffer, result.masks)
    return {path: buffer.getvalue()}


def _npz_file(result: _Savable, path: Path) -> Files:
    arrays = {"masks": result.masks, "iou_predictions": result.iou_predictions}
    if "low_res_masks" in result.tensors:
        arrays["low_res_masks"] = result.low_res_masks
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return {path: buffer.getvalue()}


def _json_file(result: _Savable, path: Path) -> Files:
    return {path: json.dumps(result.to_coco(), indent=1).encode()}


_WRITERS: dict[str, Callable[[_Savable, Path], Files]] = {
    ".png": _png_files,
    ".npy": _npy_file,
    ".npz": _npz_file,
    ".json": _json_file,
}
