"""The answer to a prediction."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError, NotRequestedError, ServerError
from triton_sam2._inputs.images import ImageSource
from triton_sam2._results.drawing import draw_masks, upright_rgb
from triton_sam2._results.masks import (
    CocoAnnotation,
    CocoRle,
    mask_to_polygons,
    mask_to_rle,
    rle_area,
    rle_box_xywh,
    rle_to_mask,
    take_candidates,
)
from triton_sam2._results.saving import save_result
from triton_sam2._transports.rpc import Tensors

MaskFormat: TypeAlias = Literal["bitmap", "logits", "rle", "png"]
FORMAT_OUTPUTS: dict[MaskFormat, str] = {
    "bitmap": "masks",
    "logits": "mask_logits",
    "rle": "masks_rle",
    "png": "masks_png",
}


# Ensemble tensors share one namespace, hence the output's other name for an image id.
IMAGE_FACTS = ("cached_image_id", "original_hw")


@dataclass(frozen=True)
class Segmentation:
    """Masks for B objects with M candidates each (M is 1, or 3 with `multimask_output`).

    Unpacks as `masks, iou = result`.
    """

    image_id: str
    original_hw: tuple[int, int]
    """Height and width of the upright original image, in pixels."""
    iou_predictions: NDArray[np.float32]
    """[B, M]: the model's own estimate of each mask's quality, about 0 to 1."""
    tensors: Tensors = field(repr=False)
    """The answer's tensors as they came, by name; read-only, so copy what you want to change."""

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> "Segmentation":
        """From the answer of the model `sam2`; raises ServerError when a part of it is missing."""
        image_id, original_hw = read_image_facts(tensors)
        if "iou_predictions" not in tensors:
            raise ServerError("the server's answer lacks iou_predictions")
        return cls(image_id, original_hw, tensors["iou_predictions"], tensors)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        yield self.masks
        yield self.iou_predictions

    @cached_property
    def masks(self) -> NDArray[np.uint8]:
        """UINT8 [B, M, H, W], 0 or 1, at the image's own size, from whichever format was asked for."""
        if "masks" in self.tensors:
            return self.tensors["masks"]
        if "mask_logits" in self.tensors:
            return (self.mask_logits > 0).astype(np.uint8)
        if "masks_png" in self.tensors:
            return self._stack([[_decode_png(png) for png in row] for row in self.pngs])
        if "masks_rle" not in self.tensors:
            raise NotRequestedError('masks were not asked for: call with formats=("bitmap",)')
        return self._stack([[rle_to_mask(rle) for rle in row] for row in self.rles])

    @property
    def mask_logits(self) -> NDArray[np.float32]:
        """FP32 [B, M, H, W]; a mask is where they exceed 0. Needs `formats=("logits", ...)`."""
        return self._tensor("mask_logits", 'formats=("logits",)')

    @property
    def low_res_masks(self) -> NDArray[np.float32]:
        """FP32 [B, M, s, s] logits, the `mask_input` of a refinement. Needs `low_res_masks=True`."""
        return self._tensor("low_res_masks", "low_res_masks=True")

    @property
    def rles(self) -> list[list[CocoRle]]:
        """[B][M] masks as COCO RLE. Needs `formats=("rle", ...)`."""
        rows = self._tensor("masks_rle", 'formats=("rle",)')
        return [[json.loads(text) for text in row] for row in rows]

    @property
    def pngs(self) -> list[list[bytes]]:
        """[B][M] masks as PNG files. Needs `formats=("png", ...)`."""
        rows = self._tensor("masks_png", 'formats=("png",)')
        return [[bytes(content) for content in row] for row in rows]

    def best(self) -> "Segmentation":
        """The candidate with the highest predicted IoU of each object: a result with M = 1."""
        indices = self.iou_predictions.argmax(axis=1)
        tensors = {
            name: tensor if name in IMAGE_FACTS else take_candidates(tensor, indices)
            for name, tensor in self.tensors.items()
        }
        return Segmentation.from_tensors(tensors)

    def polygons(self, *, tolerance_px: float = 0.0) -> list[list[NDArray[np.float32]]]:
        """Outer outlines of each object's best mask: B lists of [K, 2] arrays, x, y in pixels.

        Holes are left out (RLE keeps them), and so are specks without an outline of 3 points. Outlines may
        leave the border by `tolerance_px` to be shorter.
        Raises MissingExtraError without OpenCV.
        """
        return [mask_to_polygons(mask, tolerance_px) for mask in self.best().masks[:, 0]]

    def to_coco(
        self, *, image_id: int | str | None = None, category_id: int = 1
    ) -> list[CocoAnnotation]:
        """Each object's best mask as an entry of a COCO results file: RLE, box [x, y, w, h], area, score.

        Raises MissingExtraError without pycocotools.
        """
        best = self.best()
        rles = (
            best.rles
            if "masks_rle" in self.tensors
            else [[mask_to_rle(row[0])] for row in best.masks]
        )
        return [
            {
                "image_id": self.image_id if image_id is None else image_id,
                "category_id": category_id,
                "segmentation": rle,
                "bbox": rle_box_xywh(rle),
                "area": rle_area(rle),
                "score": float(score),
            }
            for (rle,), (score,) in zip(rles, best.iou_predictions, strict=True)
        ]

    def overlay(self, image: ImageSource, *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """[H, W, 3] RGB: the image with each object's best mask over it, in colours of their own."""
        return draw_masks(upright_rgb(image), self.best().masks[:, 0], opacity)

    def save(self, path: str | Path) -> list[Path]:
        """Write a file in the format that its ending names, and return the paths written.

        `.png`: each object's best mask, 0 and 255; with several objects `name-1.png`, `name-2.png`, …
        `.npy`: all masks [B, M, H, W]. `.npz`: those, IoU predictions and, if asked for, low_res_masks.
        `.json`: `to_coco()`. Raises InvalidInputError for another ending or where it cannot write.
        """
        return save_result(self, Path(path))

    def _tensor(self, name: str, option: str) -> NDArray[Any]:
        if name not in self.tensors:
            raise NotRequestedError(f"{name} was not asked for: call with {option}")
        return self.tensors[name]

    def _stack(self, rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
        return np.array(rows, np.uint8).reshape(*self.iou_predictions.shape, *self.original_hw)


def check_formats(formats: tuple[str, ...] | list[str] | str) -> tuple[MaskFormat, ...]:
    """The mask formats asked for; none means no masks at the image's own size."""
    names = (formats,) if isinstance(formats, str) else tuple(formats)
    known = get_args(MaskFormat)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInputError(f"formats: expected any of {', '.join(known)}, got {unknown}")
    return tuple(name for name in known if name in names)


def read_image_facts(tensors: Tensors) -> tuple[str, tuple[int, int]]:
    """The image's id and its height and width, out of an answer."""
    try:
        image_id = tensors["cached_image_id"].reshape(-1)[0]
        height, width = (int(side) for side in tensors["original_hw"])
    except (KeyError, IndexError, ValueError) as error:
        raise ServerError(
            "the server's answer lacks cached_image_id or original_hw: is it a SAM 2 server of this version?"
        ) from error
    return image_id.decode() if isinstance(image_id, bytes) else str(image_id), (height, width)


def _decode_png(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as png:
        return (np.asarray(png) > 0).astype(np.uint8)
