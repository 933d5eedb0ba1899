"""All masks of one image: crops, batches of points, filters, suppression, in the generator's own order.

Source of the order: `SAM2AutomaticMaskGenerator` of the SAM 2 repository. Runs on an asyncio event loop and
never imports Triton; how a crop is encoded and prompts are decoded is handed in. The next batch is decoded,
and the next crop encoded, while the planes at hand are looked at: two batches of low-resolution planes, two
embeddings and `planes_at_once` planes at full size are all that is held beside the run lengths.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from automask_settings import GenerationLimits
from candidates import Candidate, PlaneView, look_at
from generator_parameters import GeneratorParameters, InvalidParameterError
from mask_encoding import clamp_low_res
from mask_selection import MaskSelection
from plane_selection import select_planes
from point_crops import BoxXyxy, PointCrop, lay_out
from shared_words import RETIRED

FloatArray = npt.NDArray[np.float32]
T = TypeVar("T")

FOREGROUND_LABEL, PADDING_LABEL = 1, -1


class RetiredEmbeddingError(LookupError):
    """The embeddings come from other weights than the decoder's, or than the image's other crops'."""


@dataclass(frozen=True)
class Embedding:
    """One image's or crop's embeddings, tensors by the decoder's names; and the size they are for."""

    tensors: Mapping[str, npt.NDArray[Any]]
    hw: tuple[int, int]

    @property
    def fingerprint(self) -> int:
        return int(self.tensors["encoder_fingerprint"].flat[0])


@dataclass(frozen=True)
class Prompts:
    """The decoder's inputs: float32 [B, 2, 2] (unit square), int32 [B, 2], float32 [B, 1, s, s] or None."""

    unit_point_coords: FloatArray
    token_labels: npt.NDArray[np.int32]
    mask_input: FloatArray | None


@dataclass(frozen=True)
class Planes:
    """The candidates of a batch: logits [K, s, s], predicted IoU [K], points [K, 2] in the crop."""

    low_res_logits: FloatArray
    predicted_ious: FloatArray
    points_xy: FloatArray


@dataclass
class GenerationCounts:
    """What one generation did so far."""

    crops: int = 0
    points: int = 0
    candidates: int = 0
    held_bytes: int = 0


Decode = Callable[[Embedding, Prompts], Awaitable[tuple[FloatArray, FloatArray]]]


class MaskGeneration:
    """One request's work; `check` raises where it is to be given up, and is asked between any two steps.

    encode_crop: a crop's box ► its embedding. decode: an embedding and B prompts ► the decoder's planes
    [B, 4, s, s] and IoU predictions [B, 4]; raises RetiredEmbeddingError where the weights differ.
    """

    def __init__(
        self,
        parameters: GeneratorParameters,
        limits: GenerationLimits,
        encode_crop: Callable[[BoxXyxy], Awaitable[Embedding]],
        decode: Decode,
        check: Callable[[], None],
    ) -> None:
        self._parameters = parameters
        self._limits = limits
        self._encode_crop = encode_crop
        self._decode = decode
        self._check = check
        self.counts = GenerationCounts()

    async def run(self, whole: Embedding) -> list[Candidate]:
        """The masks, in the generator's order.

        Raises:
            InvalidParameterError: points, crops, masks or their bytes exceed a limit.
            RetiredEmbeddingError: the model was reloaded meanwhile.
        """
        limits = self._limits
        crops = lay_out(self._parameters, whole.hw, limits.max_points, limits.max_crops)
        selection = MaskSelection(whole.hw, self._parameters, self._check)
        found: list[Candidate] = []
        encoded = (partial(self._encoded, crop, whole) for crop in crops)
        async with aclosing(_one_ahead(encoded)) as embedded:
            async for crop, embedding in embedded:
                masks = await self._masks_of(embedding, PlaneView(crop, whole.hw, self._parameters))
                found += await on_thread(selection.within_crop, masks)
                self.counts.crops += 1
        if len(crops) > 1:
            found = await on_thread(selection.among_crops, found)
        return await on_thread(selection.finished, found, limits.max_masks)

    async def _encoded(self, crop: PointCrop, whole: Embedding) -> tuple[PointCrop, Embedding]:
        if crop.hw == whole.hw:
            return crop, whole
        self._check()
        embedding = await self._encode_crop(crop.box_xyxy)
        if embedding.fingerprint != whole.fingerprint:
            raise RetiredEmbeddingError(RETIRED)
        return crop, embedding

    async def _masks_of(self, embedding: Embedding, view: PlaneView) -> list[Candidate]:
        points_xy = view.crop.points_xy
        size = min(self._parameters.points_per_batch, self._limits.prompts_at_once)
        batches = (
            partial(self._decoded, embedding, points_xy[start : start + size])
            for start in range(0, len(points_xy), size)
        )
        kept: list[Candidate] = []
        async with aclosing(_one_ahead(batches)) as decoded:
            async for planes in decoded:
                kept += await self._kept_of(planes, view)
        return kept

    async def _decoded(self, embedding: Embedding, points_xy: FloatArray) -> Planes:
        parameters = self._parameters
        planes = await self._selected(embedding, points_xy, None, parameters.multimask_output)
        self.counts.points += len(points_xy)
        if not parameters.use_m2m:
            return planes
        # Each candidate once more, with its own mask as a prompt; no more prompts at a time than before.
        size = len(points_xy)
        low_res = clamp_low_res(planes.low_res_logits)
        parts = [
            await self._selected(
                embedding,
                planes.points_xy[start : start + size],
                low_res[start : start + size, None],
                False,
            )
            for start in range(0, len(low_res), size)
        ]
        return Planes(
            np.concatenate([part.low_res_logits for part in parts]),
            np.concatenate([part.predicted_ious for part in parts]),
            planes.points_xy,
        )

    async def _selected(
        self,
        embedding: Embedding,
        points_xy: FloatArray,
        mask_input: FloatArray | None,
        multimask_output: bool,
    ) -> Planes:
        self._check()
        height, width = embedding.hw
        coords = np.zeros((len(points_xy), 2, 2), np.float32)
        coords[:, 0] = points_xy / np.array([width, height], np.float32)
        labels = np.full((len(points_xy), 2), PADDING_LABEL, np.int32)
        labels[:, 0] = FOREGROUND_LABEL
        planes, ious = await self._decode(embedding, Prompts(coords, labels, mask_input))
        logits, chosen_ious = select_planes(planes, ious, multimask_output)
        return Planes(
            logits.reshape(-1, *logits.shape[2:]),
            chosen_ious.reshape(-1),
            np.repeat(points_xy, logits.shape[1], axis=0),
        )

    async def _kept_of(self, planes: Planes, view: PlaneView) -> list[Candidate]:
        wanted = np.float32(self._parameters.pred_iou_thresh)
        self.counts.candidates += len(planes.predicted_ious)
        indices = np.arange(len(planes.predicted_ious))
        if wanted > 0:
            indices = np.flatnonzero(planes.predicted_ious > wanted)
        kept: list[Candidate] = []
        for start in range(0, len(indices), self._limits.planes_at_once):
            self._check()
            looks = [
                on_thread(
                    look_at,
                    planes.low_res_logits[index],
                    float(planes.predicted_ious[index]),
                    planes.points_xy[index],
                    view,
                )
                for index in indices[start : start + self._limits.planes_at_once]
            ]
            for candidate in await asyncio.gather(*looks):
                if candidate is not None:
                    self._hold(candidate)
                    kept.append(candidate)
        return kept

    def _hold(self, candidate: Candidate) -> None:
        self.counts.held_bytes += candidate.held_bytes
        if self.counts.held_bytes > self._limits.max_held_bytes:
            raise InvalidParameterError(
                f"parameters: expected masks of at most {self._limits.max_held_bytes} bytes of run lengths"
                " (max_held_bytes) to pass the filters, got more; raise pred_iou_thresh or"
                " stability_score_thresh, set min_mask_area, or give fewer points"
            )


async def _one_ahead(
    steps: Iterator[Callable[[], Coroutine[Any, Any, T]]],
) -> AsyncGenerator[T, None]:
    """The results of coroutines, one after the other; each begins while the last one's result is used."""
    first = next(steps, None)
    task = None if first is None else asyncio.ensure_future(first())
    try:
        while task is not None:
            result = await task
            following = next(steps, None)
            task = None if following is None else asyncio.ensure_future(following())
            yield result
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def on_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Pixels and run lengths keep a thread busy; other requests of this loop go on meanwhile."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))
