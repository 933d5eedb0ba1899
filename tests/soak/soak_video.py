"""A session of very many small frames: memory and time per frame must be flat. Prints a curve.

python tests/soak/soak_video.py --frames 10000
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from export.repository import assemble_repository
from tests.models.video.clips import clip
from tests.raw_client import RawClient, bytes_tensor
from tests.running_server import ROOT, RunningServer
from tests.server.video_session import ServerSession
from tests.server_figures import processes

MODEL = "sam2_video"
FRAME_SIZE = (160, 120)
DISTINCT_FRAMES = 24
SAMPLES = 25
# What the allocators of one process may keep between two samples of the same load.
FLAT_BYTES = 24 << 20
# Pointers and ranges still grow until pointer_window_frames; far below what a frame's memory takes.
FLAT_SHARE_OF_TIME = 0.3


@dataclass(frozen=True)
class Sample:
    """The session and its process after so many frames."""

    frame: int
    resident: int
    session_bytes: int
    seconds_per_frame: float


def soak(server: RunningServer, frames: int, objects: int) -> list[Sample]:
    """Tracks objects through a live stream of `frames` frames."""
    width, height = FRAME_SIZE
    files = clip(DISTINCT_FRAMES, width, height)
    session = ServerSession(RawClient(server, "grpc"), files)
    session.close()
    session.step("start")
    for number in range(objects):
        session.points(0, number, [[60 + 20 * number, 60]], [1])
    process = model_process(server)
    samples, started, every = [], time.perf_counter(), max(frames // SAMPLES, 1)
    for frame in range(1, frames + 1):
        image = bytes_tensor(files[frame % DISTINCT_FRAMES] + b"%d" % frame)
        answer = session.step("track", frame, image=image, mask_format=bytes_tensor(b"rle"))
        if not answer["memory_complete"][0]:
            raise RuntimeError(f"frame {frame} missed a memory")
        if frame % every == 0:
            now = time.perf_counter()
            held = int(answer["session_bytes"][0])
            samples.append(Sample(frame, process.memory_info().rss, held, (now - started) / every))
            started = now
    session.close()
    return samples


def model_process(server: RunningServer) -> psutil.Process:
    """The process that holds the sessions."""
    pattern = re.compile(rf"(^|\s){MODEL}_\d+_\d+(\s|$)")
    return next(p for p in processes(server)[1:] if pattern.search(" ".join(p.cmdline())))


def print_curve(samples: list[Sample]) -> None:
    """One line for each sample, the process's memory as a bar."""
    most = max(sample.resident for sample in samples)
    print(f"{'frame':>7} {'process':>9} {'session':>9} {'per frame':>10}")
    for sample in samples:
        bar = "#" * round(40 * sample.resident / most)
        print(
            f"{sample.frame:>7} {sample.resident / 2**20:>6.0f} MB {sample.session_bytes / 1e6:>6.2f} MB"
            f" {1000 * sample.seconds_per_frame:>7.1f} ms {bar}"
        )


def problems(samples: list[Sample]) -> list[str]:
    """What must not be, in words: the last third against the third before it."""
    third = max(len(samples) // 3, 1)
    before, after = samples[-2 * third : -third], samples[-third:]

    def growth(quantity: str) -> float:
        medians = [np.median([getattr(s, quantity) for s in part]) for part in (before, after)]
        return float(medians[1] - medians[0])

    found = []
    if growth("resident") > FLAT_BYTES:
        found.append(f"the process grew by {growth('resident') / 2**20:.0f} MB")
    usual = float(np.median([s.seconds_per_frame for s in before]))
    if growth("seconds_per_frame") > FLAT_SHARE_OF_TIME * usual:
        found.append(
            f"a frame takes {1000 * growth('seconds_per_frame'):.1f} ms longer than before"
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--objects", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        assemble_repository(ROOT / "export/demo_model/onnx", repository)
        with RunningServer(repository, Path(folder) / "state", "--no-probe") as server:
            samples = soak(server, chosen.frames, chosen.objects)
    print_curve(samples)
    found = problems(samples)
    print("\n".join(found) or "flat")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
