"""The end of the demo: one call without a prompt, and every coin has a colour."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from triton_sam2 import GeneratedMasks, GeneratorParameters, SAM2TritonClient
from triton_sam2._results.drawing import draw_masks

from export.demo_model.coins import coin_masks

# The small model's planes are 64 x 64: its edges are six pixels of the photograph wide, so the stability
# that Meta's models reach (0.95) is beyond it. Crops bring it nearer; what lies within a coin is no object.
PARAMETERS: GeneratorParameters = {
    "points_per_side": 16,
    "crop_n_layers": 1,
    "crop_n_points_downscale_factor": 2,
    "pred_iou_thresh": 0.7,
    "stability_score_thresh": 0.7,
    "min_mask_area": 200,
    "min_mask_region_area": 600,
    "mask_containment_thresh": 0.7,
}
LEAST_IOU = 0.8


@dataclass(frozen=True)
class Agreement:
    """How many of the traced coins have a mask, and how many of the masks are a coin, at IoU 0.8."""

    coins: int
    coins_found: int
    masks: int
    masks_right: int

    def __str__(self) -> str:
        return (
            f"recall {self.coins_found}/{self.coins}, precision {self.masks_right}/{self.masks}"
            f" at IoU {LEAST_IOU} against outlines traced by hand and eye"
        )


def everything(client: SAM2TritonClient) -> GeneratedMasks:
    """All masks of the client's current image."""
    return client.generate(**PARAMETERS)


def compare(masks: GeneratedMasks) -> Agreement:
    """Masks of the coins' photograph against its outlines."""
    truth = coin_masks(masks.original_hw)
    overlaps = np.array([[_iou(record.mask > 0, coin) for coin in truth] for record in masks])
    right = overlaps.reshape(len(masks), len(truth)) >= LEAST_IOU
    return Agreement(
        len(truth), int(right.any(axis=0).sum()), len(masks), int(right.any(axis=1).sum())
    )


def picture(masks: GeneratedMasks, photograph: Path, enlarged: int) -> Image.Image:
    """The photograph with every mask in a colour of its own."""
    with Image.open(photograph) as file:
        size = (file.width * enlarged, file.height * enlarged)
        pixels = np.asarray(file.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    large = (
        np.asarray(Image.fromarray(record.mask).resize(size, Image.Resampling.NEAREST))
        for record in masks
    )
    return Image.fromarray(draw_masks(pixels, large))


def _iou(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((mask & other).sum() / (mask | other).sum())
