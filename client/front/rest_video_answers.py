"""The answers of a video's session, as JSON or as a picture."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from starlette.responses import Response
from triton_sam2._transports.rpc import Tensors

from front.rest_answers import json_answer, outlines, png_answer


def video_facts(started: Tensors) -> dict[str, int]:
    """What is known of a video before its first frame: of a file, all; else what the caller said of it."""
    num_frames, (height, width) = int(started["num_frames"][0]), started["original_hw"].tolist()
    facts = {} if num_frames < 0 else {"num_frames": num_frames}
    return facts | ({"width": width, "height": height} if height else {})


def rendered(result: Tensors, wanted: str, frame_index: int) -> Response:
    """The masks of all objects on a frame."""
    ids = result["object_ids"].tolist()
    height, width = result["original_hw"].tolist()
    if wanted == "png":
        # Each pixel has its object's place in the order of their creation; later ones lie above.
        labels = np.zeros((height, width), np.uint8 if len(ids) < 256 else np.uint16)
        for number, png in enumerate(result["masks_png"], 1):
            labels[_mask(png) > 0] = number if len(ids) > 1 else 255
        return png_answer(Image.fromarray(labels))
    shapes: list[Any]
    if wanted == "polygons":
        shapes = [outlines(_mask(png)) for png in result["masks_png"]]
    else:
        shapes = [json.loads(rle) for rle in result["masks_rle"]]
    objects = [
        {"object": number, "score": float(score), "iou": float(iou), wanted: shape}
        for number, score, iou, shape in zip(
            ids, result["object_score_logits"], result["iou_predictions"], shapes, strict=True
        )
    ]
    return json_answer(
        {
            "frame": frame_index,
            "width": width,
            "height": height,
            "memory_complete": bool(result["memory_complete"][0]),
            "objects": objects,
        }
    )


def _mask(png: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as picture:
        return (np.asarray(picture) > 0).astype(np.uint8)
