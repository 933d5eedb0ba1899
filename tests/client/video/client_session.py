"""The calls of scenarios.py through the public client, as people write them."""

from __future__ import annotations

from typing import Any

import numpy as np
from triton_sam2 import SAM2VideoClient, TrackedFrame

from tests.models.video.answers import Answer

LOGITS = "logits"


class ClientSession:
    """One video; images are sent once."""

    def __init__(self, client: SAM2VideoClient, video: Any, **options: Any) -> None:
        self.client = client
        self.state = client.init_state(video, **options)

    def points(self, frame, object_id, points=None, labels=None, *, box=None, clear=True) -> Answer:
        return answer_of(
            self.client.add_new_points_or_box(
                self.state, frame, object_id, points, labels, clear, box=box, formats=LOGITS
            )
        )

    def mask(self, frame: int, object_id: int, mask: np.ndarray) -> Answer:
        return answer_of(
            self.client.add_new_mask(self.state, frame, object_id, mask, formats=LOGITS)
        )

    def track(self, start=None, most=None, reverse=False) -> list[Answer]:
        frames = self.client.propagate_in_video(self.state, start, most, reverse, formats=LOGITS)
        return [answer_of(frame) for frame in frames]

    def clear(self, frame: int, object_id: int) -> Answer:
        return answer_of(
            self.client.clear_all_prompts_in_frame(self.state, frame, object_id, formats=LOGITS)
        )

    def remove(self, object_id: int) -> None:
        self.client.remove_object(self.state, object_id, strict=True)

    def reset(self) -> None:
        self.client.reset_state(self.state)

    def close(self) -> None:
        self.client.close_state(self.state)


def answer_of(frame: TrackedFrame) -> Answer:
    scores = [None if score == -1024 else float(score) for score in frame.object_score_logits]
    return Answer(frame.frame_idx, frame.object_ids, frame.mask_logits[:, 0], scores)
