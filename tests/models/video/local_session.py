"""Our session logic with nothing around it: ONNX Runtime in this process, one step after the other."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import onnxruntime
from PIL import Image
from session_state import SessionState
from session_steps import EncodedFrame, SessionSteps, StepAnswer, StepLimits
from tracking import TrackingOptions
from video_commands import parse_command
from video_graphs import FrameFeatures, Tensors, VideoGraphs

from tests.models.video.answers import Answer

LIMITS = StepLimits(
    max_objects_per_session=8,
    max_prompted_frames=8,
    max_points_per_object=16,
    max_objects_per_call=8,
    frame_bytes_per_session=1 << 26,
    frame_files_per_session=64,
    session_features=2,
)
T = TypeVar("T")


class OnnxGraphs:
    """A folder's ONNX files by the name of the model that they are for (`sam2_` and the file's stem)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    async def run(self, graph: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        if graph not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            path = self._folder / f"{graph.removeprefix('sam2_')}.onnx"
            self._sessions[graph] = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        self.calls.append((graph, {name: values.shape for name, values in inputs.items()}))
        answers = self._sessions[graph].run(list(outputs), inputs)
        return dict(zip(outputs, answers, strict=True))

    async def encode(self, image: bytes, side: int) -> EncodedFrame:
        picture = Image.open(io.BytesIO(image)).convert("RGB")
        pixels = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
        names = ("image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint")
        # As `resized_image` holds whole grey levels; FP16 does so exactly.
        batch = pixels.transpose(2, 0, 1)[None].astype(np.float16) - np.float16(128)
        features = await self.run("sam2_encoder", {"resized_image": batch}, names)
        return EncodedFrame(FrameFeatures(**features), (picture.height, picture.width))


class LocalSession:
    """One video in our session logic, with the calls of scenarios.py. Frames' features are shared among
    sessions through `encoded`, for they do not depend on what a session does."""

    def __init__(
        self,
        graphs: OnnxGraphs,
        image_size: int,
        files: list[bytes],
        encoded: dict[bytes, EncodedFrame],
        limits: StepLimits = LIMITS,
        **options: Any,
    ) -> None:
        self._files = files
        self._options = TrackingOptions(**{"num_frames": len(files), **options})
        self._encoded = encoded
        self._graphs, self._image_size = graphs, image_size
        self._steps = SessionSteps(VideoGraphs(graphs.run), self._encode, self._options, limits)
        self.state = SessionState()
        self.complete: list[bool] = []

    async def _encode(self, image: bytes) -> EncodedFrame:
        if image not in self._encoded:
            self._encoded[image] = await self._graphs.encode(image, self._image_size)
        return self._encoded[image]

    def points(self, frame, object_id, points=None, labels=None, *, box=None, clear=True) -> Answer:
        prompt: dict[str, Any] = {"clear_old_points": np.array([clear])}
        if points is not None:
            prompt["point_coords"] = np.array(points, np.float32)
            prompt["point_labels"] = np.array(labels, np.int32)
        if box is not None:
            prompt["box"] = np.array(box, np.float32)
        return self.step("prompt", frame, object_id, image=True, **prompt)

    def mask(self, frame: int, object_id: int, mask: np.ndarray) -> Answer:
        return self.step("prompt", frame, object_id, image=True, mask=mask.astype(np.uint8))

    def track(self, start=None, most=None, reverse=False) -> list[Answer]:
        news = [f for m in self.state.objects.values() for f in m.cond.keys() | m.new_cond.keys()]
        frames = frames_of_run(news, len(self._files), start, most, reverse)
        return [self.step("track", f, image=True, reverse=np.array([reverse])) for f in frames]

    def clear(self, frame: int, object_id: int) -> Answer:
        return self.step("clear_prompts", frame, object_id)

    def remove(self, object_id: int) -> None:
        self.step("remove_object", None, object_id)

    def reset(self) -> None:
        self.step("reset", None)

    def step(
        self, name: str, frame: int | None, object_id: int | None = None, image=False, **tensors
    ) -> Answer:
        given = {"session_id": _bytes(b"a"), "command": _bytes(name.encode()), **tensors}
        if frame is not None:
            given["frame_index"] = np.array([frame], np.int32)
        if object_id is not None:
            given["object_id"] = np.array([object_id], np.int64)
        if image and frame is not None:
            given["image"] = _bytes(self._files[frame])
        draft = self.state.draft()
        answer = run(self._steps.run(parse_command(given, 256), draft))
        self.state = draft
        self.complete.append(answer.memory_complete)
        return self._shown(answer)

    def _shown(self, answer: StepAnswer) -> Answer:
        height, width = self.state.original_hw or (0, 0)
        ids, scores, shown = list(answer.outputs), [], []
        for output in answer.outputs.values():
            low = None if output is None else output.low_res_logits
            logits = np.full((4, 4), -1024, np.float32) if low is None else low.astype(np.float32)
            shown.append(cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR))
            scores.append(None if output is None else output.object_score_logit)
        logits = np.stack(shown) if shown else np.zeros((0, height, width), np.float32)
        if self._options.non_overlap_masks and len(logits) > 1:
            others = logits.argmax(0)[None] != np.arange(len(logits))[:, None, None]
            logits = np.where(others, np.minimum(logits, -10), logits)
        return Answer(answer.frame_index, ids, logits, scores)


def frames_of_run(
    prompted: list[int], frames: int, start: int | None, most: int | None, reverse: bool
) -> list[int]:
    """The frames that Meta's generator goes through."""
    start = min(prompted) if start is None else start
    most = frames if most is None else most
    if reverse:
        return list(range(start, max(start - most, 0) - 1, -1)) if start > 0 else []
    return list(range(start, min(start + most, frames - 1) + 1))


def run(step: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(step)


def _bytes(value: bytes) -> np.ndarray:
    tensor = np.empty(1, np.object_)
    tensor[0] = value
    return tensor
