"""A session of `sam2_video` as any client makes it: one request for each step, over gRPC or HTTP."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np

from tests.models.video.answers import Answer
from tests.models.video.local_session import frames_of_run
from tests.raw_client import RawClient, bytes_tensor

Tensors = dict[str, np.ndarray]


class ServerSession:
    """One video on the server, with the calls of scenarios.py; images go along with every step."""

    def __init__(self, client: RawClient, files: list[bytes], **options: Any) -> None:
        self._client, self._files = client, files
        self.session_id = uuid.uuid4().hex
        self.complete: list[bool] = []
        options = {"num_frames": len(files), **options}
        self.step("start", **{name: _option(value) for name, value in options.items()})

    def step(self, command: str, frame: int | None = None, **tensors: np.ndarray) -> Tensors:
        """One request as it is; `frame` sends its index."""
        if frame is not None:
            tensors["frame_index"] = np.array([frame], np.int32)
        return self._client.infer(
            "sam2_video",
            session_id=bytes_tensor(self.session_id.encode()),
            command=bytes_tensor(command.encode()),
            **tensors,
        )

    def points(self, frame, object_id, points=None, labels=None, *, box=None, clear=True) -> Answer:
        prompt: Tensors = {"clear_old_points": np.array([clear])}
        if points is not None:
            prompt["point_coords"] = np.array(points, np.float32)
            prompt["point_labels"] = np.array(labels, np.int32)
        if box is not None:
            prompt["box"] = np.array(box, np.float32)
        return self._shown("prompt", frame, object_id=_id(object_id), **prompt, **self.image(frame))

    def mask(self, frame: int, object_id: int, mask: np.ndarray) -> Answer:
        prompt = {"object_id": _id(object_id), "mask": mask.astype(np.uint8)}
        return self._shown("prompt", frame, **prompt, **self.image(frame))

    def track(self, start=None, most=None, reverse=False) -> list[Answer]:
        objects = self.status()["objects"].values()
        prompted = [frame for one in objects for frame in one["conditioning_frames"]]
        frames = frames_of_run(prompted, len(self._files), start, most, reverse)
        return [
            self._shown("track", f, reverse=np.array([reverse]), **self.image(f)) for f in frames
        ]

    def clear(self, frame: int, object_id: int) -> Answer:
        return self._shown("clear_prompts", frame, object_id=_id(object_id))

    def remove(self, object_id: int) -> None:
        self.step("remove_object", object_id=_id(object_id))

    def reset(self) -> None:
        self.step("reset")

    def close(self) -> None:
        self.step("close")

    def status(self) -> Any:
        return json.loads(self.step("status")["status"][0])

    def image(self, frame: int) -> Tensors:
        return {"image": bytes_tensor(self._files[frame])}

    def _shown(self, command: str, frame: int, **tensors: np.ndarray) -> Answer:
        answer = self.step(command, frame, mask_format=bytes_tensor(b"logits"), **tensors)
        self.complete.append(bool(answer["memory_complete"][0]))
        # An object without an output on the frame has Meta's placeholder for a score.
        scores = [None if s == -1024 else float(s) for s in answer["object_score_logits"]]
        return Answer(
            int(answer["frame_index"][0]),
            answer["object_ids"].tolist(),
            answer["mask_logits"],
            scores,
        )


def _option(value: bool | int) -> np.ndarray:
    return np.array([value], np.bool_ if isinstance(value, bool) else np.int32)


def _id(object_id: int) -> np.ndarray:
    return np.array([object_id], np.int64)
