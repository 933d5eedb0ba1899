"""Tracking beside transformers' `Sam2VideoModel` in process, with the same weights and frames, in one run.

    python -m tests.bench.video --image-size 512 --frames 8
    python -m tests.bench.video --grpc HOST:8001 --device cuda --checkpoint checkpoints/sam2.1_hiera_tiny.pt

Without --grpc it starts the local server (CPU) on an untrained model of real size. With it, it measures a
server that runs already, on a GPU for example, with the checkpoint's weights; there it is untried.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from rich.console import Console
from square_pictures import resize_to_square
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from export.__main__ import export_graphs
from export.checkpoint import LoadedCheckpoint, Memory, load_checkpoint, random_checkpoint
from export.repository import assemble_repository
from tests.bench.video_parts import WARM_UP_FRAMES, FrameCost, FrameMeter, film_of
from tests.models.video.clips import clip
from tests.photographs import opened
from tests.running_server import RunningServer

FRAME_SIZE = (1280, 720)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class KnownLength(Sam2VideoInferenceSession):
    """Frames come one after another, but their number is known, as it is to the server."""

    length = 0

    @property
    def num_frames(self) -> int:
        return self.length


class InProcess:
    """transformers' model, with frames as ours are resized: the masks of one click are then the same."""

    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model.to(device).eval(), device
        self._side = model.config.image_size

    @torch.inference_mode()
    def measure(self, files: list[bytes], objects: int) -> FrameCost:
        width, height = opened(files[0]).size
        session = KnownLength(None, height, width, *[self._device] * 3, torch.float32)
        session.length = len(files)
        masks: list[Any] = []
        for frame, file in enumerate(files):
            if frame == WARM_UP_FRAMES:
                self._finish()
                started, cpu = time.perf_counter(), time.process_time()
            session.add_new_frame(self._pixels(file), frame)
            if frame == 0:
                self._click(session, objects, width, height)
            output = self._model(session, frame_idx=frame)
            logits = torch.nn.functional.interpolate(
                output.pred_masks.float(), (height, width), mode="bilinear"
            )
            shown = (logits[:, 0] > 0).cpu().numpy().astype(np.uint8)
            masks.append([coco_mask.encode(np.asfortranarray(mask)) for mask in shown])
        self._finish()
        measured = len(files) - WARM_UP_FRAMES
        seconds = (time.perf_counter() - started) / measured
        return FrameCost(seconds, {}, (time.process_time() - cpu) / measured, masks=masks[1:])

    def _pixels(self, file: bytes) -> torch.Tensor:
        square = resize_to_square(opened(file).convert("RGB"), self._side, "bicubic")
        pixels = torch.from_numpy(square).to(self._device).float() / 255
        mean, deviation = (torch.tensor(v, device=self._device) for v in (MEAN, DEVIATION))
        return (pixels - mean[:, None, None]) / deviation[:, None, None]

    def _click(self, session: Any, objects: int, width: int, height: int) -> None:
        for number in range(objects):
            x, y = width * (3 + number) / 7, height / 2
            point = [[[[x / width * self._side, y / height * self._side]]]]
            inputs = {
                "point_coords": torch.tensor(point),
                "point_labels": torch.ones((1, 1, 1), dtype=torch.int32),
            }
            session.add_point_inputs(session.obj_id_to_idx(number), 0, inputs)
            session.obj_with_new_inputs.append(number)

    def _finish(self) -> None:
        if self._device != "cpu":
            torch.cuda.synchronize()


@contextlib.contextmanager
def served(checkpoint: LoadedCheckpoint, grpc_url: str | None) -> Iterator[FrameMeter]:
    """A server that runs already, or a local one of these weights."""
    if grpc_url is not None:
        yield FrameMeter(grpc_url, None)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "onnx").mkdir()
        export_graphs(checkpoint, folder / "onnx", "fp32", "cpu", Console(quiet=True))
        assemble_repository(folder / "onnx", folder / "repository")
        with RunningServer(folder / "repository", folder / "state", "--no-probe") as server:
            yield FrameMeter(server.grpc_url, server)


def agreement(ours: FrameCost, theirs: FrameCost) -> float:
    """The smallest part of pixels that agree in any mask."""
    least = 1.0
    for mine, other in zip(ours.masks, theirs.masks, strict=True):
        for text, encoded in zip(mine, other, strict=True):
            pair = coco_mask.decode(json.loads(text)), coco_mask.decode(encoded)
            least = min(least, float((pair[0] == pair[1]).mean()))
    return least


def report(way: str, ours: FrameCost, theirs: FrameCost) -> None:
    """Ratios first; seconds are this machine's at this moment."""
    processor = f", processor time {ours.cpu / theirs.cpu:.2f}" if ours.cpu else ""
    print(
        f"{way}: server / in process {ours.seconds / theirs.seconds:.2f} by the clock{processor}; pixels"
        f" equal in every mask {agreement(ours, theirs):.5f}"
    )
    parts = ", ".join(f"{part} {1000 * s:.1f}" for part, s in ours.parts.items())
    print(
        f"    server {1 / ours.seconds:.2f} frames/s, in process {1 / theirs.seconds:.2f}; ms per frame"
        f" {1000 * ours.seconds:.1f}: {parts}, the rest"
        f" {1000 * (ours.seconds - sum(ours.parts.values())):.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=5, help="that are measured")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--checkpoint", help="trained weights; else untrained ones of --size")
    parser.add_argument("--grpc", help="HOST:PORT of a running server with the same weights")
    parser.add_argument("--device", default="cpu", help="where transformers' model runs")
    chosen = parser.parse_args()
    if chosen.checkpoint:
        checkpoint = load_checkpoint(chosen.checkpoint, memory=Memory())
    else:
        checkpoint = random_checkpoint(chosen.size, 0, chosen.image_size, Memory())
    files = clip(WARM_UP_FRAMES + chosen.frames, *FRAME_SIZE)
    film = film_of(files)
    with served(checkpoint, chosen.grpc) as meter:
        ours = meter.measure(files, chosen.objects)
        uploaded = meter.measure(files, chosen.objects, film)
        theirs = InProcess(checkpoint.video, chosen.device).measure(files, chosen.objects)
    report("frame by frame", ours, theirs)
    report("one upload", uploaded, theirs)


if __name__ == "__main__":
    main()
