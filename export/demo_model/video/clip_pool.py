"""Training clips with the image encoder's features, kept in files: the encoder does not learn, so each
frame passes it once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import Sam2Model

from export.demo_model.fields import ByteImage
from export.demo_model.model import IMAGE_SIZE, encode, load_model
from export.demo_model.prompts import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    FOREGROUND,
    training_box,
    training_click,
)
from export.demo_model.video.clips import TRAINING_CLIPS, seeded_clip

Halves = NDArray[np.float16]
LEAST_PRESENT_PX = 12  # of 256 x 256: with fewer visible pixels an object counts as absent
_LEAST_START_PX = 120  # on the first frame
_BATCH_STREAM = 8
# Clips are made while they are needed: the first batches choose among few, later ones among all.
_FIRST_CLIPS, _BATCHES_PER_CLIP = 60, 4


@dataclass(frozen=True)
class ClipWindow:
    """T frames of one clip: features without the no-memory embedding, and labels."""

    image_embed: Halves  # [T, C, S/16, S/16]
    high_res_feats_0: Halves  # [T, C/8, S/4, S/4]
    high_res_feats_1: Halves  # [T, C/4, S/8, S/8]
    labels: ByteImage  # [T, S, S]


class ClipPool:
    """Each clip is made when first asked for, by whichever process asks."""

    def __init__(self, folder: Path, count: int, frames: int, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.count, self.frames, self._seed = count, frames, seed
        self._model: Sam2Model | None = None
        stem, size = f"{seed}-{count}x{frames}", IMAGE_SIZE

        def array(name: str, kind: type, *shape: int) -> NDArray[Any]:
            path, all_of_it = folder / f"{stem}-{name}", (count, *shape)
            if not path.exists():
                with path.open("ab") as file:
                    file.truncate(int(np.prod(all_of_it)) * np.dtype(kind).itemsize)
            return np.memmap(path, kind, "r+", shape=all_of_it)

        width = 96
        self._embed = array("embed.f16", np.float16, frames, width, size // 16, size // 16)
        self._high_0 = array("high0.f16", np.float16, frames, width // 8, size // 4, size // 4)
        self._high_1 = array("high1.f16", np.float16, frames, width // 4, size // 8, size // 8)
        self._labels = array("labels.u8", np.uint8, frames, size, size)
        self._ready = array("ready.u8", np.uint8)

    def window(self, clip: int, frames: NDArray[np.int64]) -> ClipWindow:
        if not self._ready[clip]:  # two processes at once write the same bytes: no harm
            self._make(clip)
        parts = (self._embed, self._high_0, self._high_1, self._labels)
        return ClipWindow(*(part[clip, frames] for part in parts))

    @torch.no_grad()
    def _make(self, index: int) -> None:
        self._model = self._model or load_model()
        clip = seeded_clip(TRAINING_CLIPS, self._seed, index, frames=self.frames, size=IMAGE_SIZE)
        rendered = [clip.render(frame) for frame in range(self.frames)]
        pictures = np.stack([frame.picture for frame in rendered]).transpose(0, 3, 1, 2)
        features = encode(self._model, torch.from_numpy(np.ascontiguousarray(pictures)))
        embed = features.pyramid[2]
        self._embed[index] = embed.half().numpy()
        self._high_0[index] = features.high_res_feats_0.half().numpy()
        self._high_1[index] = features.high_res_feats_1.half().numpy()
        self._labels[index] = np.stack([frame.labels for frame in rendered])
        self._ready[index] = 1


@dataclass(frozen=True)
class ClipBatch:
    """B clips of T frames with K objects each, N = B * K; one kind of prompt on the first frame."""

    kind: str  # click, box or mask
    image_embed: torch.Tensor  # FP16 [T, B, C, S/16, S/16]
    high_res_feats_0: torch.Tensor  # FP16 [T, B, C/8, S/4, S/4]
    high_res_feats_1: torch.Tensor  # FP16 [T, B, C/4, S/8, S/8]
    masks: torch.Tensor  # BOOL [T, N, S, S]
    point_coords: torch.Tensor  # [N, P, 2], of the first frame
    point_labels: torch.Tensor  # [N, P]
    correction_frame: int  # a frame to click on again; 0: none


@dataclass(frozen=True)
class BatchShape:
    """How much a batch holds."""

    clips: int
    objects: int
    frames: int


class ClipBatches(Dataset[ClipBatch]):
    """Batch number n depends on the seed, n and the shape alone."""

    def __init__(self, pool: ClipPool, seed: int, shape: BatchShape) -> None:
        self._pool, self._seed, self._shape = pool, seed, shape

    def __getitem__(self, step: int) -> ClipBatch:
        rng = np.random.default_rng([_BATCH_STREAM, self._seed, step])
        shape = self._shape
        kind = str(rng.choice(["click", "mask", "box"], p=[0.55, 0.25, 0.2]))
        choice = min(self._pool.count, _FIRST_CLIPS + step // _BATCHES_PER_CLIP)
        windows: list[ClipWindow] = []
        masks: list[NDArray[np.bool_]] = []
        while len(windows) < shape.clips:
            index = int(rng.integers(choice))
            window = self._pool.window(index, _frames(rng, self._pool.frames, shape.frames))
            labels = _choose_objects(rng, window.labels, shape.objects)
            if labels is not None:
                windows.append(window)
                masks.append(window.labels[:, None] == labels[None, :, None, None])
        together = np.concatenate(masks, axis=1)
        coords, point_labels = _prompts(rng, kind, together[0])
        corrected = shape.frames > 2 and rng.random() < 0.3

        def stacked(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([getattr(w, name) for w in windows], axis=1))

        return ClipBatch(
            kind=kind,
            image_embed=stacked("image_embed"),
            high_res_feats_0=stacked("high_res_feats_0"),
            high_res_feats_1=stacked("high_res_feats_1"),
            masks=torch.from_numpy(together),
            point_coords=torch.from_numpy(coords),
            point_labels=torch.from_numpy(point_labels),
            correction_frame=int(rng.integers(1, shape.frames - 1)) if corrected else 0,
        )


def _frames(rng: np.random.Generator, available: int, wanted: int) -> NDArray[np.int64]:
    """Frame numbers [T]: every one, second or third, forwards or backwards."""
    stride = int(rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12]))
    stride = max(1, min(stride, (available - 1) // max(wanted - 1, 1)))
    start = int(rng.integers(available - stride * (wanted - 1)))
    frames = start + stride * np.arange(wanted)
    return frames[::-1].copy() if rng.random() < 0.5 else frames


def _choose_objects(
    rng: np.random.Generator, labels: ByteImage, count: int
) -> NDArray[np.int64] | None:
    """`count` labels that are there on the first frame; those that vanish later go first."""
    first = np.bincount(labels[0].ravel(), minlength=256)
    first[0] = 0
    there = np.flatnonzero(first >= _LEAST_START_PX)
    if len(there) == 0:
        return None
    least = np.min([np.bincount(frame.ravel(), minlength=256)[there] for frame in labels], axis=0)
    vanishing = least < LEAST_PRESENT_PX
    order = np.argsort(rng.random(len(there)) - 0.6 * vanishing)
    chosen = there[order][:count]
    if len(chosen) < count:
        chosen = np.concatenate([chosen, rng.choice(there, count - len(chosen))])
    return chosen


def _prompts(
    rng: np.random.Generator, kind: str, masks: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Coordinates [N, P, 2] and labels [N, P] for masks [N, S, S]; no points for masks as prompts."""
    if kind == "click":
        points = [[training_click(rng, mask)] for mask in masks]
        labels = [FOREGROUND]
    elif kind == "box":
        points = [training_box(rng, mask) for mask in masks]
        labels = [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
    else:
        points, labels = [[] for _ in masks], []
    coords = np.array(points, np.float32).reshape(len(masks), len(labels), 2)
    return coords, np.array([labels] * len(masks), np.int64).reshape(len(masks), len(labels))
