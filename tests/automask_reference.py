"""Meta's own SAM2AutomaticMaskGenerator, from rf-sam-2, around an encoder and a decoder that are handed in.

It imports torchvision for two small functions; torchvision cannot be imported beside this PyTorch, so
stand-ins of our own take its place while Meta's module is being imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime
import torch
import transformers  # noqa: F401 - looks for torchvision when imported: before the stand-in is there
from image_decoding import squash
from PIL import Image
from pixel_types import PIXEL_TYPES
from plane_selection import select_planes
from stored_picture import StoredPicture
from torch.nn import functional as F

from tests.photographs import encoded
from tests.reference import ReferencePredictor

LOW_RES_LIMIT = 32.0


def box_area(boxes):
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(boxes, scores, idxs, iou_threshold):
    """torchvision's greedy suppression for boxes of one category."""
    assert not idxs.any()
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    areas = box_area(boxes)
    kept = []
    for index in order:
        if kept:
            others = boxes[kept]
            corners = torch.maximum(boxes[index, :2], others[:, :2])
            sides = (torch.minimum(boxes[index, 2:], others[:, 2:]) - corners).clamp(min=0)
            shared = sides[:, 0] * sides[:, 1]
            if (shared / (areas[index] + areas[kept] - shared) > iou_threshold).any():
                continue
        kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def _import_generator():
    names = ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms")
    stand_ins = {name: ModuleType(name) for name in names}
    stand_ins["torchvision.ops.boxes"].batched_nms = batched_nms
    stand_ins["torchvision.ops.boxes"].box_area = box_area
    for name in ("Normalize", "Resize", "ToTensor"):  # of a predictor that is not used here
        setattr(stand_ins["torchvision.transforms"], name, None)
    sys.modules |= stand_ins
    try:
        from sam2 import automatic_mask_generator
    finally:
        for name in names:
            del sys.modules[name]
    automatic_mask_generator.SAM2ImagePredictor = lambda predictor, **options: predictor
    return automatic_mask_generator


GENERATOR = _import_generator()


def generate(predictor, pixels: np.ndarray, **parameters) -> list[dict]:
    """Meta's records for an image [H, W, 3], `segmentation` as an array."""
    return GENERATOR.SAM2AutomaticMaskGenerator(predictor, **parameters).generate(pixels)


class _Predictor:
    """What the generator uses of a SAM2ImagePredictor; `_decode` gives logits [B, M, s, s] and IoU [B, M]."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self._transforms = SimpleNamespace(transform_coords=self._transform_coords)

    def reset_predictor(self) -> None:
        pass

    @staticmethod
    def _transform_coords(coords, normalize, orig_hw):
        assert normalize
        height, width = orig_hw
        return coords / torch.tensor([width, height])

    @torch.no_grad()
    def _predict(
        self, point_coords, point_labels, mask_input=None, multimask_output=True, return_logits=True
    ):
        assert return_logits
        low_res, ious = self._decode(point_coords, point_labels, mask_input, multimask_output)
        full = F.interpolate(low_res, self._hw, mode="bilinear", align_corners=False)
        return full, ious, low_res.clamp(-LOW_RES_LIMIT, LOW_RES_LIMIT)


class GraphPredictor(_Predictor):
    """The exported graphs themselves, as the server runs them: whatever differs then is not the networks."""

    def __init__(self, encoder: Path, decoder: Path) -> None:
        super().__init__()
        self._encoder = onnxruntime.InferenceSession(str(encoder))
        self._decoder = onnxruntime.InferenceSession(str(decoder))
        self._side = self._encoder.get_inputs()[0].shape[-1]

    def set_image(self, pixels: np.ndarray) -> None:
        self._hw = pixels.shape[:2]
        stored, pixel_type = StoredPicture(Image.fromarray(pixels), 1), PIXEL_TYPES["TYPE_FP16"]
        resized = squash(stored, self._side, pixel_type=pixel_type)[None]
        names = [output.name for output in self._encoder.get_outputs()]
        self._embedding = dict(
            zip(names, self._encoder.run(names, {"resized_image": resized}), strict=True)
        )

    def _decode(self, coords, labels, mask_input, multimask_output):
        rows = len(coords)
        side = self._side // 4
        mask = np.zeros((rows, 1, side, side), np.float32)
        ending = torch.zeros(rows, 1, 2)
        feeds = self._embedding | {
            "unit_point_coords": torch.cat([coords, ending], 1).numpy(),
            "token_labels": np.concatenate(
                [labels.numpy(), np.full((rows, 1), -1)], axis=1, dtype=np.int32
            ),
            "dense_mask_input": mask if mask_input is None else mask_input.numpy(),
            "has_mask_input": np.full(rows, mask_input is not None, np.float32),
        }
        planes, ious = self._decoder.run(["plane_logits", "plane_ious"], feeds)
        logits, ious = select_planes(planes, ious, multimask_output)
        return torch.from_numpy(logits.copy()), torch.from_numpy(ious.copy())


class TorchPredictor(_Predictor):
    """PyTorch in float32 between the reference's own pre- and post-processing: rounding counts here, too."""

    def __init__(self, model) -> None:
        super().__init__()
        self._reference = ReferencePredictor(model)

    def set_image(self, pixels: np.ndarray) -> None:
        self._reference.set_image(encoded(Image.fromarray(pixels), "PNG"))
        self._hw = pixels.shape[:2]

    def _decode(self, coords, labels, mask_input, multimask_output):
        # Object by object: the padding point is the prompt encoder's own.
        reference = self._reference
        parts = []
        for row in range(len(coords)):
            mask = None if mask_input is None else mask_input[row : row + 1]
            sparse, dense = reference.model.prompt_encoder(
                (coords[row] * reference.side)[None, None], labels[row][None, None], None, mask
            )
            parts.append(reference._decode(sparse, dense, multimask_output))
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
