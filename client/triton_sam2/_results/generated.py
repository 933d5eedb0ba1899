"""The answer to a generation: every mask of an image."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError, NotRequestedError, ServerError
from triton_sam2._inputs.images import ImageSource
from triton_sam2._results.drawing import draw_masks, upright_rgb
from triton_sam2._results.masks import (
    CocoAnnotation,
    CocoRle,
    mask_to_rle,
    rle_box_xywh,
    rle_to_mask,
)
from triton_sam2._results.segmentation import read_image_facts
from triton_sam2._transports.rpc import Tensors

GeneratedFormat: TypeAlias = Literal["rle", "bitmap", "png"]
GENERATED_OUTPUTS: dict[GeneratedFormat, str] = {
    "rle": "masks_rle",
    "bitmap": "masks",
    "png": "masks_png",
}
RECORD_TENSORS = (
    "area",
    "bbox",
    "predicted_iou",
    "stability_score",
    "point_coords",
    "crop_box",
)
RECORD_KEYS = ("segmentation", *RECORD_TENSORS)
LARGEST_LABEL = int(np.iinfo(np.uint16).max)


class MaskRecord(Mapping[str, Any]):
    """One mask with the keys of Meta's generator; `segmentation` is made when it is asked for.

    `segmentation` bool [H, W]; `area` in pixels; `bbox` and `crop_box` x, y, width, height (between the
    outermost pixels' centres, as Meta has it); `predicted_iou`; `stability_score`; `point_coords` [[x, y]].
    """

    def __init__(self, masks: "GeneratedMasks", index: int) -> None:
        self._masks = masks
        self._index = index

    def __getitem__(self, key: str) -> Any:
        if key == "segmentation":
            return self.mask.astype(bool)
        if key not in RECORD_TENSORS:
            raise KeyError(key)
        value = self._masks.tensors[key][self._index].tolist()
        return [value] if key == "point_coords" else value

    def __iter__(self) -> Iterator[str]:
        return iter(RECORD_KEYS)

    def __len__(self) -> int:
        return len(RECORD_KEYS)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """UINT8 [H, W], 0 or 1."""
        return self._masks.mask(self._index)

    @property
    def rle(self) -> CocoRle:
        """The mask as COCO RLE."""
        return self._masks.rle(self._index)

    @property
    def png(self) -> bytes:
        """The mask as a PNG file, 0 and 255."""
        return self._masks.png(self._index)


@dataclass(frozen=True)
class GeneratedMasks(Sequence[MaskRecord]):
    """Every mask of an image, a list of records: `for record in masks: record["area"]`."""

    image_id: str
    original_hw: tuple[int, int]
    """Height and width of the upright original image, in pixels."""
    tensors: Tensors = field(repr=False)
    """The answer's tensors as they came, by name; K masks each."""

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> "GeneratedMasks":
        """From the answer of the model `sam2_automask`; raises ServerError when a part of it is missing."""
        image_id, original_hw = read_image_facts(tensors)
        missing = [name for name in RECORD_TENSORS if name not in tensors]
        if missing:
            raise ServerError(f"the server's answer lacks {', '.join(missing)}")
        return cls(image_id, original_hw, tensors)

    def __len__(self) -> int:
        return len(self.tensors["area"])

    @overload
    def __getitem__(self, index: int) -> MaskRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[MaskRecord]: ...
    def __getitem__(self, index: int | slice) -> MaskRecord | list[MaskRecord]:
        """The record of this index, as in a list."""
        if isinstance(index, slice):
            return [MaskRecord(self, each) for each in range(*index.indices(len(self)))]
        return MaskRecord(self, range(len(self))[index])

    @property
    def predicted_iou(self) -> NDArray[np.float32]:
        """[K]: the model's own estimate of each mask's quality."""
        return self.tensors["predicted_iou"]

    @property
    def stability_score(self) -> NDArray[np.float32]:
        """[K]: how little each mask depends on where its logits are cut."""
        return self.tensors["stability_score"]

    @property
    def area(self) -> NDArray[np.int32]:
        """[K]: pixels of each mask."""
        return self.tensors["area"]

    @cached_property
    def masks(self) -> NDArray[np.uint8]:
        """UINT8 [K, H, W], 0 or 1; all at once, which for many masks of a large image is a lot."""
        if "masks" in self.tensors:
            return self.tensors["masks"]
        each = [self.mask(index) for index in range(len(self))]
        return np.array(each, np.uint8).reshape(len(self), *self.original_hw)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """UINT8 [H, W] of one mask, from whichever format was asked for. RLE needs pycocotools."""
        if "masks" in self.tensors:
            mask: NDArray[np.uint8] = self.tensors["masks"][index]
            return mask
        if "masks_png" in self.tensors:
            with Image.open(io.BytesIO(self.tensors["masks_png"][index])) as png:
                return (np.asarray(png) > 0).astype(np.uint8)
        if "masks_rle" not in self.tensors:
            raise NotRequestedError('masks were not asked for: call with formats=("rle",)')
        return rle_to_mask(json.loads(self.tensors["masks_rle"][index]))

    def rle(self, index: int) -> CocoRle:
        """One mask as COCO RLE."""
        if "masks_rle" in self.tensors:
            rle: CocoRle = json.loads(self.tensors["masks_rle"][index])
            return rle
        return mask_to_rle(self.mask(index))

    def png(self, index: int) -> bytes:
        """One mask as a PNG file."""
        if "masks_png" in self.tensors:
            return bytes(self.tensors["masks_png"][index])
        buffer = io.BytesIO()
        Image.fromarray(self.mask(index) * np.uint8(255)).save(buffer, "PNG")
        return buffer.getvalue()

    def to_coco(
        self, *, image_id: int | str | None = None, category_id: int = 1
    ) -> list[CocoAnnotation]:
        """Every mask as an entry of a COCO results file: RLE, COCO's own box, area, predicted IoU as score.

        Raises MissingExtraError without pycocotools.
        """
        return [
            {
                "image_id": self.image_id if image_id is None else image_id,
                "category_id": category_id,
                "segmentation": record.rle,
                "bbox": rle_box_xywh(record.rle),
                "area": record["area"],
                "score": record["predicted_iou"],
            }
            for record in self
        ]

    def label_image(self) -> NDArray[np.uint16]:
        """One map [H, W]: 0 where no mask is, else 1 + the mask's index, as microscopists want it.

        Where masks overlap the smaller one is seen. Raises InvalidInputError for more than 65535 masks.
        """
        if len(self) > LARGEST_LABEL:
            raise InvalidInputError(
                f"label_image: expected at most {LARGEST_LABEL} masks, got {len(self)}; set max_masks"
            )
        labels = np.zeros(self.original_hw, np.uint16)
        for index in np.argsort(-self.area.astype(np.int64), kind="stable"):
            labels[self.mask(int(index)) > 0] = index + 1
        return labels

    def overlay(self, image: ImageSource, *, opacity: float = 0.5) -> NDArray[np.uint8]:
        """[H, W, 3] RGB: the image with every mask over it, small ones above large ones."""
        order = np.argsort(-self.area.astype(np.int64), kind="stable")
        masks = (self.mask(int(index)) for index in order)
        return draw_masks(upright_rgb(image), masks, opacity)

    def save(self, path: str | Path) -> Path:
        """Write `.json` (`to_coco()`), or the label image as `.png` or `.tif` (16 bits) or `.npy`."""
        target = Path(path)
        writers = {
            ".json": _coco,
            ".npy": _npy,
            ".png": _picture,
            ".tif": _picture,
            ".tiff": _picture,
        }
        writer = writers.get(target.suffix.lower())
        if writer is None:
            raise InvalidInputError(
                f"path: expected an ending of {', '.join(writers)}, got {target.name!r}"
            )
        content = writer(self, target)
        try:
            target.write_bytes(content)
        except OSError as error:
            raise InvalidInputError(f"path: cannot write {target}: {error.strerror}") from error
        return target


def check_generated_formats(
    formats: tuple[str, ...] | list[str] | str,
) -> tuple[GeneratedFormat, ...]:
    """The mask formats asked for; none means figures without masks."""
    names = (formats,) if isinstance(formats, str) else tuple(formats)
    known = get_args(GeneratedFormat)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInputError(f"formats: expected any of {', '.join(known)}, got {unknown}")
    return tuple(name for name in known if name in names)


def _coco(result: GeneratedMasks, path: Path) -> bytes:  # noqa: ARG001 - all writers take a path
    return json.dumps(result.to_coco(), indent=1).encode()


def _npy(result: GeneratedMasks, path: Path) -> bytes:  # noqa: ARG001
    buffer = io.BytesIO()
    np.save(buffer, result.label_image())
    return buffer.getvalue()


def _picture(result: GeneratedMasks, path: Path) -> bytes:
    buffer = io.BytesIO()
    file_format = "PNG" if path.suffix.lower() == ".png" else "TIFF"
    Image.fromarray(result.label_image()).save(buffer, file_format)
    return buffer.getvalue()
