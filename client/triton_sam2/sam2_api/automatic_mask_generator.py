"""`sam2.automatic_mask_generator`: everything in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triton_sam2._errors import InvalidInputError
from triton_sam2._extras import require
from triton_sam2._inputs.generator import GeneratorParameters
from triton_sam2._results.generated import MaskRecord
from triton_sam2.sam2_api.build_sam import build_sam2_hf
from triton_sam2.sam2_api.server_model import (
    ModelLike,
    for_the_model,
    server_model,
)

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


class SAM2AutomaticMaskGenerator:
    """Meta's class of this name, computed by a server in one call.

    `model` is what `build_sam2` gave, a SAM2TritonClient, a server's URL, or None for TRITON_URL. The other
    arguments are the original's, with its defaults. min_mask_region_area does what the original says (and
    leaves out where its CUDA kernel is missing). The server bounds points, crops and time, and says so.
    """

    def __init__(  # noqa: PLR0917 - Meta's signature
        self,
        model: ModelLike = None,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: Sequence[ArrayLike] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
        use_m2m: bool = False,
        multimask_output: bool = True,
    ) -> None:
        if (points_per_side is None) == (point_grids is None):
            raise InvalidInputError(
                "points_per_side, point_grids: exactly one must be provided, the other None"
            )
        if output_mode not in OUTPUT_MODES:
            raise InvalidInputError(
                f"output_mode: expected {', '.join(OUTPUT_MODES)}, got {output_mode!r}"
            )
        require("pycocotools.mask", "generating masks")
        self.model = server_model(model)
        self.output_mode = output_mode
        self._parameters: GeneratorParameters = {
            "points_per_side": points_per_side,
            "points_per_batch": points_per_batch,
            "pred_iou_thresh": pred_iou_thresh,
            "stability_score_thresh": stability_score_thresh,
            "stability_score_offset": stability_score_offset,
            "mask_threshold": mask_threshold,
            "box_nms_thresh": box_nms_thresh,
            "crop_n_layers": crop_n_layers,
            "crop_nms_thresh": crop_nms_thresh,
            "crop_overlap_ratio": crop_overlap_ratio,
            "crop_n_points_downscale_factor": crop_n_points_downscale_factor,
            "point_grids": point_grids,
            "min_mask_region_area": min_mask_region_area,
            "use_m2m": use_m2m,
            "multimask_output": multimask_output,
        }

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2AutomaticMaskGenerator:
        """As the original; the weights are the server's own. `kwargs`: of build_sam2 and of this class."""
        of_the_model, own = for_the_model(kwargs)
        return cls(build_sam2_hf(model_id, **of_the_model), **own)

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """All masks of an image, uint8 [H, W, 3] RGB.

        Returns:
            Records in the original's order, with its keys: segmentation (bool [H, W], or RLE as output_mode
            says), area, bbox [x, y, w, h], predicted_iou, point_coords [[x, y]], stability_score, crop_box.
        """
        # By a handle: the client's current image stays what it is.
        (handle,) = self.model.client.prefetch([image], concurrency=1)
        masks = self.model.client.generate(handle, **self._parameters)
        return [self._record(record) for record in masks]

    def _record(self, record: MaskRecord) -> dict[str, Any]:
        """With the original's keys in its order; its boxes are floats, with whole numbers in them."""
        return {
            "segmentation": self._segmentation(record),
            "area": record["area"],
            "bbox": [float(each) for each in record["bbox"]],
            "predicted_iou": record["predicted_iou"],
            "point_coords": record["point_coords"],
            "stability_score": record["stability_score"],
            "crop_box": [float(each) for each in record["crop_box"]],
        }

    def _segmentation(self, record: MaskRecord) -> Any:
        if self.output_mode == "coco_rle":
            return record.rle
        if self.output_mode == "binary_mask":
            return record["segmentation"]
        return uncompressed_rle(record.mask)


def uncompressed_rle(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """`{"size": [H, W], "counts": [...]}`: lengths of runs down the columns, beginning with one of zeros."""
    pixels = mask.ravel(order="F")
    turns = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff([0, *turns.tolist(), pixels.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}
