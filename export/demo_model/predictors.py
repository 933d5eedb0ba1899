"""Whatever answers prompts, and the torch model as one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Sam2Model

from export.demo_model.fields import ByteImage
from export.demo_model.model import IMAGE_SIZE, Features, decode, encode
from export.demo_model.prompts import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT

Floats = NDArray[np.float32]
_LOGIT_LIMIT = 32.0


class PredictionLike(Protocol):
    """For B objects with M masks each."""

    @property
    def masks(self) -> NDArray[np.uint8]: ...  # [B, M, H, W]

    @property
    def iou_predictions(self) -> Floats: ...  # [B, M]

    @property
    def low_res_masks(self) -> Floats: ...  # [B, M, s, s]


class Predictor(Protocol):
    """Coordinates are pixels of the image that was set.

    `point_coords` [B, N, 2], `point_labels` [B, N], `box` [B, 4], `mask_input` [B, 1, s, s].
    """

    def set_image(self, image: ByteImage, /) -> object: ...

    def predict(
        self,
        point_coords: Floats | None = None,
        point_labels: NDArray[np.int32] | None = None,
        *,
        box: Floats | None = None,
        mask_input: Floats | None = None,
        multimask_output: bool = False,
    ) -> PredictionLike: ...


@dataclass(frozen=True)
class Prediction:
    masks: NDArray[np.uint8]
    iou_predictions: Floats
    low_res_masks: Floats


def select_single_plane(planes: Tensor, delta: float, threshold: float, iou: Tensor) -> Tensor:
    """Indices [N] of the plane to return for one mask: 0, or where that one is unstable the plane
    of 1..3 with the highest IoU prediction (SAM 2.1's dynamic multimask)."""
    single = planes[:, 0].flatten(1)
    inner = (single > delta).sum(-1).float()
    outer = (single > -delta).sum(-1).float()
    stability = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
    return torch.where(stability >= threshold, 0, 1 + iou[:, 1:].argmax(1))


class TorchPredictor:
    """The torch model with the server's semantics."""

    def __init__(self, model: Sam2Model) -> None:
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._features: Features | None = None
        self._original_hw = (0, 0)

    @torch.no_grad()
    def set_image(self, image: ByteImage, /) -> None:
        squashed = Image.fromarray(image).resize(
            (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR
        )
        pixels = torch.from_numpy(np.asarray(squashed).transpose(2, 0, 1).copy())
        self._features = encode(self._model, pixels[None].to(self._device))
        self._original_hw = (image.shape[0], image.shape[1])

    def _prompt_tensors(
        self,
        point_coords: Floats | None,
        point_labels: NDArray[np.int32] | None,
        box: Floats | None,
    ) -> tuple[Tensor, Tensor]:
        """Coordinates in pixels of the model's input [B, P, 2] and labels [B, P], box first."""
        coords, labels = [], []
        if box is not None:
            corners = torch.as_tensor(box, dtype=torch.float32).reshape(-1, 2, 2)
            coords.append(corners)
            labels.append(torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]] * len(corners)))
        if point_coords is not None and point_labels is not None:
            coords.append(torch.as_tensor(point_coords, dtype=torch.float32))
            labels.append(torch.as_tensor(point_labels, dtype=torch.int64))
        if not coords:
            raise ValueError("point_coords with point_labels, or box: expected one, got neither")
        height, width = self._original_hw
        unit_square = torch.cat(coords, 1) / torch.tensor([width, height])
        return (unit_square * IMAGE_SIZE).to(self._device), torch.cat(labels, 1).to(self._device)

    @torch.no_grad()
    def predict(
        self,
        point_coords: Floats | None = None,
        point_labels: NDArray[np.int32] | None = None,
        *,
        box: Floats | None = None,
        mask_input: Floats | None = None,
        multimask_output: bool = False,
    ) -> Prediction:
        if self._features is None:
            raise RuntimeError("set_image has not been called")
        coords, labels = self._prompt_tensors(point_coords, point_labels, box)
        earlier = None if mask_input is None else torch.as_tensor(mask_input).to(self._device)
        answer = decode(self._model, self._features, coords, labels, earlier)
        planes, iou = answer.planes, answer.iou_predictions
        if multimask_output:
            planes, iou = planes[:, 1:], iou[:, 1:]
        else:
            config = self._model.config.mask_decoder_config
            chosen = select_single_plane(
                planes,
                config.dynamic_multimask_stability_delta,
                config.dynamic_multimask_stability_thresh,
                iou,
            )
            rows = torch.arange(len(planes), device=self._device)
            planes, iou = planes[rows, chosen][:, None], iou[rows, chosen][:, None]
        logits = F.interpolate(planes, self._original_hw, mode="bilinear", align_corners=False)
        return Prediction(
            masks=(logits > 0).to(torch.uint8).cpu().numpy(),
            iou_predictions=iou.cpu().numpy(),
            low_res_masks=planes.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT).cpu().numpy(),
        )
