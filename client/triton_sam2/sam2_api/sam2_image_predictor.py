"""`sam2.sam2_image_predictor`: masks of one image, or of several, from prompts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError, NoImageError
from triton_sam2._inputs.images import ImageHandle
from triton_sam2.sam2_api.build_sam import build_sam2_hf
from triton_sam2.sam2_api.server_model import (
    ModelLike,
    for_the_model,
    not_over_server,
    server_model,
)

Arrays: TypeAlias = NDArray[np.float32]
_AT_ONCE = 4  # images of a batch that are under way
_INSIDE = ("_features", "_transforms", "_prep_prompts", "_predict")


class SAM2ImagePredictor:
    """Meta's class of this name, computed by a server.

    Args:
        sam_model: what `build_sam2` gave, a SAM2TritonClient, a server's URL, or None for TRITON_URL.
        mask_threshold: a mask is where its logits exceed this.
        max_hole_area, max_sprinkle_area: 0; the server fills no holes.
        disable_torch_jit: without meaning here.
    """

    def __init__(
        self,
        sam_model: ModelLike = None,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        disable_torch_jit: bool = False,  # noqa: ARG002 - Meta's signature
    ) -> None:
        for name, area in (
            ("max_hole_area", max_hole_area),
            ("max_sprinkle_area", max_sprinkle_area),
        ):
            if area > 0:
                raise not_over_server(f"{name}={area}")
        self.model = server_model(sam_model)
        self.mask_threshold = mask_threshold
        self._handles: list[ImageHandle] = []
        self._is_batch = False

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2ImagePredictor:
        """As the original; the weights are the server's own. `kwargs`: of build_sam2 and of this class."""
        of_the_model, own = for_the_model(kwargs)
        return cls(build_sam2_hf(model_id, **of_the_model), **own)

    @property
    def device(self) -> str:
        """Where results are: "cpu"."""
        return self.model.device

    @property
    def _orig_hw(self) -> list[tuple[int, int]] | None:
        return [handle.original_hw for handle in self._handles] or None

    @property
    def _is_image_set(self) -> bool:
        return bool(self._handles)

    def set_image(self, image: NDArray[np.uint8] | Image.Image) -> None:
        """Have the server encode an image: uint8 [H, W, 3] RGB, or PIL's (its pixels as they lie).

        Raises:
            NotImplementedError: neither of them, as in the original; InvalidInputError: other pixels.
        """
        self.reset_predictor()
        if not isinstance(image, np.ndarray | Image.Image):
            raise NotImplementedError(
                "Image format not supported: expected a numpy array or a PIL image, got "
                f"{type(image).__name__}"
            )
        self._handles = self.model.client.prefetch([image], concurrency=1)

    def set_image_batch(self, image_list: list[NDArray[np.uint8]]) -> None:
        """Have the server encode several images, uint8 [H, W, 3] RGB each, for `predict_batch`."""
        self.reset_predictor()
        if not isinstance(image_list, list) or not all(
            isinstance(each, np.ndarray) for each in image_list
        ):
            raise InvalidInputError(
                "image_list: expected a list of numpy arrays, RGB and [H, W, 3] each"
            )
        self._handles = self.model.client.prefetch(image_list, concurrency=_AT_ONCE)
        self._is_batch = True

    def predict(  # noqa: PLR0917 - Meta's signature
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Masks of the current image.

        Args:
            point_coords: [N, 2] x, y in pixels, or [B, N, 2] for B objects; point_labels: [N] or [B, N].
            box: [4] x0, y0, x1, y1, or [B, 4].
            mask_input: [1, s, s] or [B, 1, s, s]: low-res logits of an earlier call.
            multimask_output: three masks instead of one.
            return_logits: logits at the image's size instead of masks.
            normalize_coords: whether coordinates are in pixels; otherwise from 0 to 1.

        Returns:
            Masks FP32 [C, H, W] of 0 and 1, predicted IoU FP32 [C], low-res logits FP32 [C, s, s]; with a
            leading B where there are several objects.

        Raises:
            NoImageError (a RuntimeError): no image was set. InvalidInputError: a prompt is wrong or missing.
        """
        if not self._handles:
            raise NoImageError("An image must be set with .set_image(...) before mask prediction.")
        prompts = (point_coords, point_labels, box, mask_input)
        # After set_image_batch the original takes the last image, too.
        return self._predicted(
            self._handles[-1], prompts, multimask_output, return_logits, normalize_coords
        )

    def predict_batch(  # noqa: PLR0917 - Meta's signature
        self,
        point_coords_batch: Sequence[ArrayLike | None] | None = None,
        point_labels_batch: Sequence[ArrayLike | None] | None = None,
        box_batch: Sequence[ArrayLike | None] | None = None,
        mask_input_batch: Sequence[ArrayLike | None] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[Arrays], list[Arrays], list[Arrays]]:
        """`predict` for each image of `set_image_batch`, with its own prompts: three lists, by image."""
        if not self._is_batch:
            raise NoImageError(
                "images must be set with .set_image_batch(...): this is for batched mode only"
            )
        batches = (point_coords_batch, point_labels_batch, box_batch, mask_input_batch)

        def one(index: int) -> tuple[Arrays, Arrays, Arrays]:
            prompts = tuple(None if batch is None else batch[index] for batch in batches)
            return self._predicted(
                self._handles[index], prompts, multimask_output, return_logits, normalize_coords
            )

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(one, range(len(self._handles))))
        masks, ious, low_res_masks = (list(part) for part in zip(*answers, strict=True))
        return masks, ious, low_res_masks

    def get_image_embedding(self) -> Any:
        """Raises NotOverServerError: embeddings stay in the server, where they are decoded."""
        raise not_over_server("get_image_embedding")

    def reset_predictor(self) -> None:
        """Forget the images that were set; the server keeps them for a while, for whoever asks next."""
        self._handles = []
        self._is_batch = False

    def __getattr__(self, name: str) -> Any:
        if name in _INSIDE:
            raise not_over_server(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _predicted(
        self,
        image: ImageHandle,
        prompts: tuple[ArrayLike | None, ...],
        multimask_output: bool,
        return_logits: bool,
        normalize_coords: bool,
    ) -> tuple[Arrays, Arrays, Arrays]:
        height, width = image.original_hw
        unit = (1, 1) if normalize_coords else (width, height)
        coords, labels, box, mask = _prompts(np.array(unit, np.float32), *prompts)
        as_logits = return_logits or self.mask_threshold != 0
        result = self.model.client.predict(
            *(coords, labels, box, mask, multimask_output),
            formats=("logits",) if as_logits else ("bitmap",),
            low_res_masks=True,
            image=image,
        )
        masks: NDArray[Any] = result.mask_logits if as_logits else result.masks
        if as_logits and not return_logits:
            masks = masks > self.mask_threshold
        return (
            _of_one_object(masks),
            _of_one_object(result.iou_predictions),
            _of_one_object(result.low_res_masks),
        )


def _prompts(
    unit: NDArray[np.float32],
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
) -> tuple[NDArray[Any] | None, ...]:
    """The same in pixels and as arrays, and as the original reads them: labels alone count for nothing, a
    box may be of any shape with four numbers each, one mask goes with all objects."""
    coords = None if point_coords is None else _numbers(point_coords, "point_coords") * unit
    labels = None if point_coords is None or point_labels is None else np.asarray(point_labels)
    boxes = None if box is None else _numbers(box, "box")
    if boxes is not None:
        if boxes.size == 0 or boxes.size % 4:
            raise InvalidInputError(
                f"box: expected x0, y0, x1, y1 of shape [4] or [B, 4], got {list(boxes.shape)}"
            )
        boxes = boxes.reshape(-1, 4) * np.tile(unit, 2)
    mask = None if mask_input is None else _numbers(mask_input, "mask_input")
    if mask is not None and mask.ndim == 3:
        mask = mask[None]
    objects = max(
        len(boxes) if boxes is not None else 1,
        len(coords) if coords is not None and coords.ndim == 3 else 1,
    )
    if mask is not None and len(mask) == 1 < objects:
        mask = np.repeat(mask, objects, axis=0)
    return coords, labels, boxes, mask


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float32]:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{name}: expected an array of numbers, got {type(values).__name__}: {error}"
        ) from error


def _of_one_object(values: NDArray[Any]) -> Arrays:
    """A copy as FP32, without the objects' axis where there is one object."""
    array = np.array(values, np.float32)
    return array[0] if len(array) == 1 else array
