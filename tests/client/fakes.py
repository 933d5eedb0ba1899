"""A SAM 2 server without a server: the cache's rules and masks that are cheap to predict."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from triton_sam2._errors import (
    ImageNotFoundError,
    InvalidInputError,
    SessionExistsError,
    SessionNotFoundError,
)
from triton_sam2._transports.rpc import InferRequest, Tensors, bytes_tensor

LOW_RES_SIDE = 16


def png_of(height: int = 40, width: int = 60, shade: int = 0) -> bytes:
    """A small image file."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class FakeSam:
    """Answers requests as the server would, with a rectangle round each object's first point or box."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # by id
    requests: list[InferRequest] = field(default_factory=list)
    encodes: Counter[str] = field(default_factory=Counter)
    failures: list[Exception] = field(default_factory=list)  # raised one per request, first come

    video: "FakeVideo" = field(default_factory=lambda: FakeVideo())  # noqa: PLW0108 - defined below

    def infer(self, request: InferRequest) -> Tensors:
        self.requests.append(request)
        if self.failures:
            raise self.failures.pop(0)
        if request.model == "sam2_video":
            return self.video.answer(request)
        if "forget" in request.inputs:
            image_id = request.inputs["image_id"][0].decode()
            if self.sizes.pop(image_id, None) is None:
                raise ImageNotFoundError(f"image_id {image_id!r} is unknown")
            return {"cached_image_id": bytes_tensor(image_id)}
        if request.model == "sam2" and set(request.outputs) <= {"cached_image_id", "original_hw"}:
            raise InvalidInputError("unexpected deadlock, at least one output is not set")
        image_id = self._cache(request)
        height, width = self.sizes[image_id]
        answer = {
            "cached_image_id": bytes_tensor(image_id),
            "original_hw": np.array([height, width], np.int32),
        }
        if request.model == "sam2":
            answer |= fake_masks(request, height, width)
        if request.model == "sam2_automask":
            answer |= fake_generation(request, height, width)
        return {name: answer[name] for name in request.outputs}

    def _cache(self, request: InferRequest) -> str:
        image = request.inputs.get("image")
        name = request.inputs.get("image_id")
        image_id = name[0].decode() if name is not None else None
        if image is None:
            if image_id not in self.sizes:
                raise ImageNotFoundError(f"image_id {image_id!r} is unknown: send the image again")
            return image_id
        content = image[0]
        image_id = image_id or f"sha256:{hashlib.sha256(content).hexdigest()}"
        try:
            width, height = Image.open(io.BytesIO(content)).size
            if Image.open(io.BytesIO(content)).getexif().get(0x0112, 1) >= 5:  # lies on its side
                width, height = height, width
        except OSError as error:
            raise InvalidInputError("image: not an image file") from error
        self.encodes[image_id] += image_id not in self.sizes
        self.sizes[image_id] = (height, width)
        return image_id

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class FakeVideo:
    """Sessions of `sam2_video`: every object is the left half of every frame."""

    sessions: dict[str, tuple[dict[int, list[int]], list[int]]] = field(default_factory=dict)
    num_frames: dict[str, int] = field(default_factory=dict)
    tracked: list[int] = field(default_factory=list)

    def answer(self, request: InferRequest) -> Tensors:
        """One step."""
        command, session_id = (
            request.inputs[name][0].decode() for name in ("command", "session_id")
        )
        if command == "start":
            if session_id in self.sessions:
                raise SessionExistsError(f"session_id: {session_id!r} lives")
            self.sessions[session_id] = ({}, [0, 0])
            self.num_frames[session_id] = int(request.inputs.get("num_frames", [8])[0])
        if session_id not in self.sessions:
            raise SessionNotFoundError(f"session_id: no session {session_id!r}; start it again")
        objects, size = self.sessions[session_id]
        frame = int(request.inputs.get("frame_index", [-1])[0])
        if "image" in request.inputs:
            with Image.open(io.BytesIO(request.inputs["image"][0])) as image:
                size[:] = image.height, image.width
        if command == "prompt":
            objects.setdefault(int(request.inputs["object_id"][0]), []).append(frame)
        if command == "track":
            self.tracked.append(frame)
        if command == "remove_object":
            objects.pop(int(request.inputs["object_id"][0]), None)
        if command == "reset":
            objects.clear()
        if command == "close":
            del self.sessions[session_id]
        described = {
            str(name): {
                "conditioning_frames": frames,
                "prompted_frames": frames,
                "tracked_forward": [],
                "tracked_backward": [],
            }
            for name, frames in objects.items()
        }
        options = {"num_frames": self.num_frames[session_id]}
        account = {"options": options, "objects": described, "frames_held": []}
        masks = np.zeros((len(objects), 1, *size), np.uint8)
        masks[..., : size[1] // 2] = 1
        answer = {
            **{name: each[:, 0] for name, each in fake_encodings(masks).items()},
            "masks": masks[:, 0],
            "mask_logits": masks[:, 0] * np.float32(2) - 1,
            "low_res_masks": np.zeros((len(objects), 1, LOW_RES_SIDE, LOW_RES_SIDE), np.float32),
            "object_ids": np.array(list(objects), np.int64),
            "object_score_logits": np.ones(len(objects), np.float32),
            "iou_predictions": np.full(len(objects), 0.9, np.float32),
            "frame_index": np.array([frame], np.int32),
            "original_hw": np.array(size, np.int32),
            "memory_complete": np.array([True]),
            "session_bytes": np.array([0]),
            "status": bytes_tensor(json.dumps(account)),
        }
        return {name: answer[name] for name in request.outputs}


class AsyncFakeSam(FakeSam):
    """The same for asyncio; `gate`, where given, is awaited before each answer."""

    gate: Callable[[InferRequest], Any] | None = None

    async def infer(self, request: InferRequest) -> Tensors:  # type: ignore[override]
        if self.gate is not None:
            await self.gate(request)
        return FakeSam.infer(self, request)

    async def close(self) -> None:  # type: ignore[override]
        """Nothing to close."""


def fake_generation(request: InferRequest, height: int, width: int) -> dict[str, Any]:
    """As many masks as max_masks says, 3 by default: the image without ever more of its left columns."""
    parameters = json.loads(request.inputs.get("parameters", [b"{}"])[0])
    count = parameters.get("max_masks", 3)
    masks = np.zeros((count, height, width), np.uint8)
    for index, mask in enumerate(masks):
        mask[:, 5 * index :] = 1
    rles, pngs = np.empty(count, object), np.empty(count, object)
    for index, mask in enumerate(masks):
        rle = coco_mask.encode(np.asfortranarray(mask))
        rles[index] = json.dumps(
            {"size": [height, width], "counts": rle["counts"].decode()}
        ).encode()
        buffer = io.BytesIO()
        Image.fromarray(mask * 255).save(buffer, "PNG")
        pngs[index] = buffer.getvalue()
    left = 5 * np.arange(count)
    zeros = np.zeros(count, np.int32)
    return {
        "masks": masks,
        "masks_rle": rles,
        "masks_png": pngs,
        "area": (height * (width - left)).astype(np.int32),
        "bbox": np.stack([left, zeros, width - 1 - left, zeros + height - 1], 1).astype(np.int32),
        "predicted_iou": np.linspace(0.9, 0.8, count, dtype=np.float32),
        "stability_score": np.linspace(1, 0.95, count, dtype=np.float32),
        "point_coords": np.stack([left + 1, zeros + 2], 1).astype(np.float32),
        "crop_box": np.tile(np.array([0, 0, width, height], np.int32), (count, 1)),
    }


def fake_masks(request: InferRequest, height: int, width: int) -> dict[str, Any]:
    """Every format, for the objects of a request."""
    inputs = request.inputs
    if not {"box", "point_coords", "mask_input"} & set(inputs):
        raise InvalidInputError("expected a prompt")
    if "point_coords" in inputs and 0 in inputs["point_coords"].shape:
        raise InvalidInputError("point_coords: expected 1 to 1024 points per object, got 0")
    planes = 3 if "multimask_output" in inputs else 1
    if "box" in inputs:
        boxes = inputs["box"]
    elif "point_coords" in inputs:
        first = inputs["point_coords"][:, 0]
        boxes = np.concatenate([first - 5, first + 5], axis=1)
    else:
        boxes = np.tile(
            np.array([[0, 0, width, height]], np.float32), (len(inputs["mask_input"]), 1)
        )
    masks = np.zeros((len(boxes), planes, height, width), np.uint8)
    for row, box in zip(masks, boxes, strict=True):
        for index, plane in enumerate(row):
            x0, y0, x1, y1 = (int(max(0, side)) for side in box)
            plane[y0 : y1 + index, x0:x1] = 1
    return {
        "masks": masks,
        "mask_logits": masks * np.float32(2) - 1,
        **fake_encodings(masks),
        "iou_predictions": np.tile(np.array([0.5, 0.9, 0.7], np.float32)[:planes], (len(boxes), 1)),
        "low_res_masks": np.zeros((*masks.shape[:2], LOW_RES_SIDE, LOW_RES_SIDE), np.float32),
    }


def fake_encodings(masks: np.ndarray) -> dict[str, Any]:
    """Masks [B, M, H, W] as RLE and PNG, [B, M]."""
    height, width = masks.shape[2:]
    rles, pngs = np.empty(masks.shape[:2], object), np.empty(masks.shape[:2], object)
    for at in np.ndindex(*masks.shape[:2]):
        rle = coco_mask.encode(np.asfortranarray(masks[at]))
        rles[at] = json.dumps({"size": [height, width], "counts": rle["counts"].decode()}).encode()
        buffer = io.BytesIO()
        Image.fromarray(masks[at] * 255).save(buffer, "PNG")
        pngs[at] = buffer.getvalue()
    return {"masks_rle": rles, "masks_png": pngs}
