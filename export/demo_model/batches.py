"""Training batches. Batch number n depends on the seed and n alone, so that a run can resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from export.demo_model.fields import ByteImage, FloatImage, as_floats
from export.demo_model.model import IMAGE_SIZE
from export.demo_model.prompts import training_prompt
from export.demo_model.scenes import LEAST_LABELLED_AREA, TRAINING_STREAM, seeded_scene

TARGET_SIZE = IMAGE_SIZE // 2
_KINDS, _KIND_SHARES = ("click", "box", "mixed"), (0.5, 0.28, 0.22)
_BATCH_STREAM = 3


@dataclass(frozen=True)
class Batch:
    """B images with K objects each; P points per prompt, the same kind of prompt throughout."""

    kind: str
    images: Tensor  # uint8 [B, 3, 256, 256]
    labels: Tensor  # uint8 [B, 64, 64], every fourth pixel
    coverage: Tensor  # float32 [B*K, 1, 128, 128], share of each cell that the object covers
    point_coords: Tensor  # float32 [B*K, P, 2]
    point_labels: Tensor  # int64 [B*K, P]

    def to(self, device: torch.device) -> Batch:
        return Batch(
            self.kind,
            *(
                tensor.to(device, non_blocking=True)
                for tensor in (
                    self.images,
                    self.labels,
                    self.coverage,
                    self.point_coords,
                    self.point_labels,
                )
            ),
        )


class ScenePool:
    """Training scenes kept in files, each made when first asked for, by whichever process asks."""

    def __init__(self, folder: Path, count: int, size: int, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._size, self._seed = size, seed
        stem = f"{seed}-{count}x{size}"

        def array(name: str, *shape: int) -> NDArray[np.uint8]:
            path = folder / f"{stem}-{name}.u8"
            if not path.exists():
                with path.open("ab") as file:
                    file.truncate(int(np.prod(shape)))
            return np.memmap(path, np.uint8, "r+", shape=shape)

        self._images = array("images", count, size, size, 3)
        self._labels = array("labels", count, size, size)
        self._ready = array("ready", count)

    def __getitem__(self, index: int) -> tuple[ByteImage, ByteImage]:
        if not self._ready[index]:  # two processes at once write the same bytes: no harm
            scene = seeded_scene(TRAINING_STREAM, self._seed, index, self._size)
            self._images[index], self._labels[index] = scene
            self._ready[index] = 1
        return self._images[index], self._labels[index]


def augment(
    rng: np.random.Generator, image: ByteImage, labels: ByteImage, size: int
) -> tuple[ByteImage, ByteImage]:
    """A random crop, turn, mirror and tone of one scene, squashed to `size`."""
    side = len(image)
    if rng.random() < 0.5:
        width, height = (int(side * v) for v in rng.uniform(0.55, 1, 2))
        if max(width / height, height / width) > 1.5:
            width = height = max(width, height)
        x, y = (int(v) for v in rng.integers(0, (side - width + 1, side - height + 1)))
        image, labels = image[y : y + height, x : x + width], labels[y : y + height, x : x + width]
    # Pillow's antialiased bilinear filter: what the server's preprocessing does
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    image = np.asarray(resized)
    labels = np.asarray(
        cv2.resize(np.ascontiguousarray(labels), (size, size), interpolation=cv2.INTER_NEAREST),
        dtype=np.uint8,
    )
    turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if mirrored:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if rng.random() < 0.6:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.4:
        ramp = (np.arange(256) / 255) ** rng.uniform(0.7, 1.4) * 255
        ramp = ramp * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20)
        image = np.clip(ramp, 0, 255).astype(np.uint8)[image]
    if rng.random() < 0.12:
        image = np.bitwise_not(image)
    if rng.random() < 0.1:
        image = np.repeat(image.mean(2, keepdims=True), 3, axis=2).astype(np.uint8)
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)


class PromptBatches(Dataset[Batch]):
    """Indexed by training step."""

    def __init__(
        self, pool: ScenePool, pool_size: int, seed: int, images: int, objects: int
    ) -> None:
        self._pool, self._pool_size, self._seed = pool, pool_size, seed
        self._images, self._objects = images, objects

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([_BATCH_STREAM, self._seed, step])
        kind = str(rng.choice(_KINDS, p=_KIND_SHARES))
        images: list[ByteImage] = []
        label_maps: list[ByteImage] = []
        coverages: list[FloatImage] = []
        coords: list[list[tuple[float, float]]] = []
        labels: list[list[int]] = []
        while len(images) < self._images:
            scene = self._pool[int(rng.integers(self._pool_size))]
            image, label_map = augment(rng, *scene, IMAGE_SIZE)
            areas = np.bincount(label_map.ravel(), minlength=256)
            areas[0] = 0
            present = np.flatnonzero(areas >= LEAST_LABELLED_AREA * label_map.size)
            if len(present) == 0 or (len(present) < 3 and rng.random() < 0.4):
                continue  # scenes of one or two objects teach less per second
            few = len(present) < self._objects
            for label in rng.choice(present, self._objects, replace=few):
                mask = label_map == label
                small = (TARGET_SIZE, TARGET_SIZE)
                coverages.append(cv2.resize(as_floats(mask), small, interpolation=cv2.INTER_AREA))
                points, point_labels = training_prompt(rng, kind, mask)
                coords.append(points)
                labels.append(point_labels)
            images.append(image.transpose(2, 0, 1))
            label_maps.append(label_map[2::4, 2::4])
        return Batch(
            kind=kind,
            images=torch.from_numpy(np.stack(images)),
            labels=torch.from_numpy(np.stack(label_maps)),
            coverage=torch.from_numpy(np.stack(coverages))[:, None],
            point_coords=torch.tensor(coords, dtype=torch.float32),
            point_labels=torch.tensor(labels, dtype=torch.int64),
        )
