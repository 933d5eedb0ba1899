"""What our masks are compared with: transformers' Sam2Model between the reference's own pre- and
post-processing, one object at a time, in float32, with nothing of ours in between.

Source of the semantics: `sam2/sam2_image_predictor.py` and `sam2/utils/transforms.py` of the SAM 2
repository.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from transformers import Sam2Model

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
# By how much pixels and embeddings in FP16 move a stability score and a predicted IoU, at most.
STABILITY_ROUNDING = IOU_ROUNDING = 0.001
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass(frozen=True)
class ReferenceMasks:
    """masks bool [B, M, H, W], iou_predictions [B, M], low_res_masks [B, M, s, s] clamped to ±32."""

    masks: np.ndarray
    iou_predictions: np.ndarray
    low_res_masks: np.ndarray
    """`rivals[b]`: the same three for planes of object b that lost the choice by less than rounding."""
    rivals: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]

    def nearest_to(self, low_res_masks: np.ndarray) -> ReferenceMasks:
        """With each object's answer or rival that is nearest to the given low-res masks."""
        own = zip(self.masks, self.iou_predictions, self.low_res_masks, strict=True)
        chosen = [
            min([answer, *rivals], key=lambda a: float(np.abs(a[2] - given).mean()))
            for answer, rivals, given in zip(own, self.rivals, low_res_masks, strict=True)
        ]
        return ReferenceMasks(
            *(np.stack(parts) for parts in zip(*chosen, strict=True)), self.rivals
        )


class ReferencePredictor:
    """`SAM2ImagePredictor` as its source describes it."""

    def __init__(self, model: Sam2Model) -> None:
        self.model = model.eval()
        self.side = model.config.prompt_encoder_config.image_size

    @torch.no_grad()
    def set_image(self, data: bytes) -> None:
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        self.original_hw = tuple(pixels.shape[1:])
        size = (self.side, self.side)
        resized = F.interpolate(
            pixels[None], size, mode="bilinear", align_corners=False, antialias=True
        )
        maps = self.model.vision_encoder((resized - MEAN) / STD, return_dict=True).fpn_hidden_states
        decoder = self.model.mask_decoder
        self.high_res_feats = [decoder.conv_s0(maps[0]), decoder.conv_s1(maps[1])]
        self.image_embed = maps[2] + self.model.no_memory_embedding.view(1, -1, 1, 1)

    def predict(
        self,
        point_coords=None,
        point_labels=None,
        box=None,
        mask_input=None,
        multimask_output=False,
    ) -> ReferenceMasks:
        """Arrays as on the wire: [B, N, 2], [B, N], [B, 4], [B, 1, s, s]."""
        given = (point_coords, point_labels, box, mask_input)
        objects = next(len(prompt) for prompt in given if prompt is not None)
        each = [
            self._predict_one(
                *(None if p is None else np.asarray(p)[i] for p in given), multimask_output
            )
            for i in range(objects)
        ]
        answers = [answer for answer, _ in each]
        return ReferenceMasks(
            *(np.stack(parts) for parts in zip(*answers, strict=True)),
            [rivals for _, rivals in each],
        )

    @torch.no_grad()
    def _predict_one(self, point_coords, point_labels, box, mask_input, multimask_output):
        coords, labels = [], []
        if box is not None:
            coords.append(torch.tensor(box, dtype=torch.float32).view(2, 2))
            labels.append(torch.tensor([2, 3]))
        if point_coords is not None:
            coords.append(torch.tensor(point_coords, dtype=torch.float32))
            labels.append(torch.tensor(point_labels))
        encoder = self.model.prompt_encoder
        channels = encoder.hidden_size
        masks = None if mask_input is None else torch.tensor(mask_input)[None]
        if coords:
            height, width = self.original_hw
            in_model = torch.cat(coords) / torch.tensor([width, height]) * self.side
            # With input_boxes None the encoder appends the padding point itself.
            sparse, dense = encoder(
                in_model[None, None], torch.cat(labels)[None, None], None, masks
            )
        else:
            sparse = torch.zeros(1, 1, 0, channels)
            _, dense = encoder(None, None, None, masks)
        low_res, iou = self._decode(sparse, dense, multimask_output)
        rivals = [] if multimask_output else self._rivals(sparse, dense, iou)
        return self._upsampled(low_res, iou), [self._upsampled(*rival) for rival in rivals]

    def _rivals(self, sparse, dense, chosen_iou):
        """Planes that rounding could have put in the single mask's place."""
        candidates, candidate_ious = self._decode(sparse, dense, True)
        decoder = self.model.mask_decoder
        decoder.dynamic_multimask_via_stability = False
        try:
            first, first_iou = self._decode(sparse, dense, False)
        finally:
            decoder.dynamic_multimask_via_stability = True
        delta = decoder.dynamic_multimask_stability_delta
        stability = (first > delta).sum() / (first > -delta).sum().clamp(min=1)
        by_a_hair = (
            abs(float(stability) - decoder.dynamic_multimask_stability_thresh) < STABILITY_ROUNDING
        )
        fell_back = float(chosen_iou) != float(first_iou)
        rivals = [(first, first_iou)] if by_a_hair else []
        if by_a_hair or fell_back:
            best = float(candidate_ious.max())
            rivals += [
                (candidates[:, [plane]], candidate_ious[:, [plane]])
                for plane in range(candidates.shape[1])
                if best - float(candidate_ious[0, plane]) < IOU_ROUNDING
            ]
        return rivals

    def _decode(self, sparse, dense, multimask_output):
        low_res, iou, _, _ = self.model.mask_decoder(
            image_embeddings=self.image_embed,
            image_positional_embeddings=self.model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            high_resolution_features=self.high_res_feats,
        )
        return low_res[0], iou[0]

    def _upsampled(self, low_res, iou):
        full = F.interpolate(low_res, self.original_hw, mode="bilinear", align_corners=False)
        return (full[0] > 0).numpy(), iou[0].numpy(), low_res[0].clamp(-32, 32).numpy()
