"""Graphs that take no time: their outputs depend on their inputs, and calls can be held up or fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from session_steps import EncodedFrame, FrameSource
from video_graphs import FrameFeatures, Tensors

S, C, D = 64, 8, 4
HW = (48, 64)
FINGERPRINT = np.array([[7]], np.int64)


class FakeGraphs:
    """`calls`: names of the graphs and "encode", in order. `before` is awaited before each."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.batches: list[tuple[str, int]] = []
        self.matches = True
        self.score = 1.0
        self.before: Callable[[str], Any] | None = None

    async def encode(
        self, source: FrameSource, is_cancelled: Callable[[], bool] = lambda: False
    ) -> EncodedFrame:
        await self._called("encode")
        image = source if isinstance(source, bytes) else b"%d" % source.frame_index
        value = np.float16(sum(image) % 97 / 97)
        features = FrameFeatures(
            np.full((1, C, S // 16, S // 16), value, np.float16),
            np.full((1, C // 8, S // 4, S // 4), value, np.float16),
            np.full((1, C // 4, S // 8, S // 8), value, np.float16),
            FINGERPRINT,
        )
        return EncodedFrame(features, HW)

    async def run(self, graph: str, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        await self._called(graph)
        given = {name: np.asarray(values, np.float64) for name, values in inputs.items()}
        objects = len(
            given.get("maskmem_features", given.get("token_labels", given.get("low_res_masks", ())))
        )
        if graph == "sam2_mask_prompt":
            objects = len(given["mask_prompt"])
        self.batches.append((graph, objects))
        mean = sum(v.mean() for v in given.values() if v.size)

        def per_object(*shape: int) -> np.ndarray:
            own = [
                mean * 0.01
                + sum(v[i].mean() for v in given.values() if len(v) == objects and v[i].size)
                for i in range(objects)
            ]
            own = np.sin(own)  # bounded, however long it goes on
            return np.broadcast_to(
                np.reshape(own, (objects,) + (1,) * len(shape)), (objects, *shape)
            )

        made = {
            "conditioned_embed": per_object(C, S // 16, S // 16).astype(np.float16),
            "low_res_masks": per_object(1, S // 4, S // 4).astype(np.float32),
            "dense_mask_input": per_object(1, S // 4, S // 4).astype(np.float32),
            "iou_predictions": per_object(1).astype(np.float32),
            "object_score_logits": np.full((objects, 1), self.score, np.float32),
            "obj_ptr": per_object(C).astype(np.float32),
            "maskmem_features": per_object(D, S // 16, S // 16).astype(np.float16),
            "memory_fingerprint": FINGERPRINT,
            "fingerprint_matches": np.array([self.matches]),
        }
        return {name: made[name] for name in outputs}

    async def _called(self, what: str) -> None:
        self.calls.append(what)
        if self.before is not None:
            await self.before(what)
        await asyncio.sleep(0)
