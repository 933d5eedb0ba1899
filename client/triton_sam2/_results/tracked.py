"""The answer about one frame of a video."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError, NotRequestedError, ServerError
from triton_sam2._inputs.images import ImageSource
from triton_sam2._results.drawing import draw_masks, upright_rgb
from triton_sam2._results.masks import CocoRle, mask_to_rle, rle_to_mask
from triton_sam2._transports.rpc import Tensors

FRAME_FACTS = (
    "object_ids",
    "object_score_logits",
    "iou_predictions",
    "frame_index",
    "original_hw",
    "memory_complete",
)


@dataclass(frozen=True)
class TrackedFrame:
    """Masks of K objects on one frame; unpacks as `frame_idx, object_ids, masks`, as Meta has it."""

    frame_idx: int
    object_ids: list[int]
    """In order of their creation."""
    original_hw: tuple[int, int]
    """Height and width of the upright frame, in pixels."""
    memory_complete: bool
    """False where Meta's predictor would have used a memory that the server had to drop."""
    tensors: Tensors = field(repr=False)
    """The answer's tensors as they came, by name."""

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> "TrackedFrame":
        """From an answer of the model `sam2_video`; raises ServerError when a part of it is missing."""
        try:
            height, width = (int(side) for side in tensors["original_hw"])
            return cls(
                int(tensors["frame_index"][0]),
                tensors["object_ids"].tolist(),
                (height, width),
                bool(tensors["memory_complete"][0]),
                tensors,
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ServerError(
                f"the server's answer lacks {', '.join(n for n in FRAME_FACTS if n not in tensors)}"
            ) from error

    def __iter__(self) -> Iterator[Any]:
        yield self.frame_idx
        yield self.object_ids
        yield self.masks

    @property
    def object_score_logits(self) -> NDArray[np.float32]:
        """[K]: above 0 where the object is in the frame; -1024 where it has no answer there."""
        return self.tensors["object_score_logits"]

    @property
    def iou_predictions(self) -> NDArray[np.float32]:
        """[K]: the model's own estimate of each mask's quality; 1 for masks that were given."""
        return self.tensors["iou_predictions"]

    @cached_property
    def masks(self) -> NDArray[np.uint8]:
        """UINT8 [K, 1, H, W], 0 or 1, from whichever format was asked for; RLE needs pycocotools."""
        if "masks" in self.tensors:
            return self._planes("masks")
        if "mask_logits" in self.tensors:
            return (self.mask_logits > 0).astype(np.uint8)
        each = [self._decoded(row) for row in range(len(self.object_ids))]
        return np.array(each, np.uint8).reshape(len(each), 1, *self.original_hw)

    @property
    def mask_logits(self) -> NDArray[np.float32]:
        """FP32 [K, 1, H, W], what Meta's predictor hands over. Needs `formats=("logits", ...)`."""
        if "mask_logits" not in self.tensors:
            raise NotRequestedError('mask_logits: not asked for: call with formats=("logits",)')
        return self._planes("mask_logits")

    @property
    def low_res_masks(self) -> NDArray[np.float32]:
        """FP32 [K, 1, s, s] logits. Needs `low_res_masks=True`."""
        if "low_res_masks" not in self.tensors:
            raise NotRequestedError("low_res_masks: not asked for: call with low_res_masks=True")
        return self.tensors["low_res_masks"]

    def mask(self, object_id: int) -> NDArray[np.uint8]:
        """One object's mask, UINT8 [H, W], 0 or 1."""
        mask: NDArray[np.uint8] = self.masks[self._row(object_id), 0]
        return mask

    def rle(self, object_id: int) -> CocoRle:
        """One object's mask as COCO RLE; made here, with pycocotools, unless it was asked for."""
        row = self._row(object_id)
        if "masks_rle" in self.tensors:
            rle: CocoRle = json.loads(self.tensors["masks_rle"][row])
            return rle
        return mask_to_rle(self.masks[row, 0])

    def png(self, object_id: int) -> bytes:
        """One object's mask as a PNG file, 0 and 255; made here unless it was asked for."""
        row = self._row(object_id)
        if "masks_png" in self.tensors:
            return bytes(self.tensors["masks_png"][row])
        buffer = io.BytesIO()
        Image.fromarray(self.masks[row, 0] * np.uint8(255)).save(buffer, "PNG")
        return buffer.getvalue()

    def overlay(self, image: ImageSource, *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """[H, W, 3] RGB: the frame with its masks over it, in colours of their own."""
        return draw_masks(upright_rgb(image), self.masks[:, 0], opacity)

    def _row(self, object_id: int) -> int:
        if object_id not in self.object_ids:
            raise InvalidInputError(
                f"object_id: expected one of {self.object_ids}, got {object_id!r}"
            )
        return self.object_ids.index(object_id)

    def _planes(self, name: str) -> NDArray[Any]:
        """[K, 1, H, W], also for no object, whose tensor is empty altogether."""
        planes: NDArray[Any] = self.tensors[name].reshape(
            len(self.object_ids), 1, *self.original_hw
        )
        return planes

    def _decoded(self, row: int) -> NDArray[np.uint8]:
        if "masks_png" in self.tensors:
            with Image.open(io.BytesIO(self.tensors["masks_png"][row])) as png:
                return (np.asarray(png) > 0).astype(np.uint8)
        if "masks_rle" not in self.tensors:
            raise NotRequestedError('masks: not asked for: call with formats=("bitmap",)')
        return rle_to_mask(json.loads(self.tensors["masks_rle"][row]))
