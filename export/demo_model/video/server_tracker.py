"""A running server's `sam2_video` as a tracker: what users get."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import tritonclient.grpc as grpc_client
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from export.demo_model.fields import ByteImage
from export.demo_model.video.trackers import Click, Tracked

_MODEL = "sam2_video"
_OUTPUTS = ("object_ids", "masks", "object_score_logits")


class ServerTracker:
    """Sessions of their own, frame by frame, each picture as a PNG file."""

    def __init__(self, url: str) -> None:
        self._client = grpc_client.InferenceServerClient(url)

    def track(self, pictures: ByteImage, clicks: NDArray[np.float32]) -> Tracked:
        return self.track_files(png_files(pictures), clicks)

    def track_files(self, files: Sequence[bytes], clicks: NDArray[np.float32]) -> Tracked:
        """As `track`, with pictures as they come from a disk."""
        session = _Session(self._client, files)
        try:
            for number, (x, y) in enumerate(clicks):
                session.click(number, Click(0, float(x), float(y)))
            return session.follow()
        finally:
            session.close()

    def correct(self, pictures: ByteImage, first: Click, correction: Click) -> Tracked:
        session = _Session(self._client, png_files(pictures))
        try:
            session.click(0, first)
            session.follow()
            session.click(0, correction)
            return session.follow()
        finally:
            session.close()


class _Session:
    def __init__(self, client: grpc_client.InferenceServerClient, files: Sequence[bytes]) -> None:
        self._client, self._id, self._files = client, uuid.uuid4().hex, files
        self._step(
            "start"
        )  # without a length, pointers are dated as in training, also in short clips

    def click(self, number: int, click: Click) -> None:
        """A first or further click on an object."""
        self._step(
            "prompt",
            frame_index=np.array([click.frame], np.int32),
            image=_bytes(self._files[click.frame]),
            object_id=np.array([number], np.int64),
            point_coords=np.array([[click.x, click.y]], np.float32),
            point_labels=np.array([click.label], np.int32),
            mask_format=np.array([], np.object_),
        )

    def follow(self) -> Tracked:
        """All frames from the first one on."""
        masks, present = [], []
        for index, file in enumerate(self._files):
            answer = self._step(
                "track",
                frame_index=np.array([index], np.int32),
                image=_bytes(file),
                mask_format=_bytes(b"bitmap"),
            )
            masks.append(answer["masks"].astype(bool))
            present.append(answer["object_score_logits"] > 0)
        return Tracked(np.stack(masks), np.stack(present))

    def close(self) -> None:
        self._step("close")

    def _step(self, command: str, **tensors: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        tensors = {
            "session_id": _bytes(self._id.encode()),
            "command": _bytes(command.encode()),
        } | tensors
        inputs = []
        for name, values in tensors.items():
            tensor = grpc_client.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
            tensor.set_data_from_numpy(values)
            inputs.append(tensor)
        result = self._client.infer(
            _MODEL, inputs, outputs=[grpc_client.InferRequestedOutput(name) for name in _OUTPUTS]
        )
        return {name: result.as_numpy(name) for name in _OUTPUTS}


def png_files(pictures: ByteImage) -> list[bytes]:
    return [cv2.imencode(".png", picture[..., ::-1])[1].tobytes() for picture in pictures]


def _bytes(content: bytes) -> NDArray[np.object_]:
    return np.array([content], np.object_)
