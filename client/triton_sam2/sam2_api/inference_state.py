"""What `SAM2VideoPredictor.init_state` returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from triton_sam2._calls.video_state import PromptStep, VideoState


class InferenceState(Mapping[str, Any]):
    """What `init_state` returns. Of the original's dict: num_frames, video_height, video_width, obj_ids.

    The two sizes are None until the first answer about a frame. The rest stays in the server.
    """

    def __init__(self, video: VideoState) -> None:
        self.video = video

    def __getitem__(self, key: str) -> Any:
        return self._facts()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts())

    def __len__(self) -> int:
        return len(self._facts())

    def prompted_frames(self, obj_id: int) -> list[int]:
        """Frames on which an object has prompts, by what was done."""
        frames = {
            step.frame_idx
            for step in self.video.journal
            if isinstance(step, PromptStep) and int(step.tensors["object_id"][0]) == obj_id
        }
        return sorted(frames)

    def _facts(self) -> dict[str, Any]:
        height, width = self.video.original_hw or (None, None)
        return {
            "num_frames": self.video.num_frames,
            "video_height": height,
            "video_width": width,
            "obj_ids": list(self.video.object_ids),
        }
