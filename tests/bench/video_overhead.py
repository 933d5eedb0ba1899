"""Tracking through the server against its graphs' own compute, two objects against one, bytes both ways.

    python -m tests.bench.video_overhead --image-size 512 --frames 10

An untrained tiny of real size. Ratios say more than seconds on a busy machine, those of processor time most.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rich.console import Console

from export.__main__ import export_graphs
from export.checkpoint import Memory, random_checkpoint
from export.repository import assemble_repository
from tests.bench.video_parts import WARM_UP_FRAMES, FrameMeter, film_of, graphs_alone
from tests.models.video.clips import clip
from tests.running_server import RunningServer

FRAME_SIZE = (1280, 720)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--frames", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "onnx").mkdir()
        checkpoint = random_checkpoint("tiny", 0, chosen.image_size, Memory())
        export_graphs(checkpoint, folder / "onnx", "fp32", "cpu", Console(quiet=True))
        assemble_repository(folder / "onnx", folder / "repository")
        files = clip(WARM_UP_FRAMES + chosen.frames, *FRAME_SIZE)
        film = film_of(files)
        costs = {}
        with RunningServer(folder / "repository", folder / "state", "--no-probe") as server:
            meter = FrameMeter(server.grpc_url, server)
            for objects in (1, 2):
                alone = graphs_alone(folder / "repository", objects)
                for way, uploaded in (("frame by frame", None), ("one upload", film)):
                    cost = costs[objects, way] = meter.measure(files, objects, uploaded)
                    parts = ", ".join(f"{part} {s:.3f}" for part, s in cost.parts.items())
                    graphs = sum(s for part, s in cost.parts.items() if part != "decode")
                    print(
                        f"{objects} objects, {way}: by the clock, frame / graphs"
                        f" {cost.seconds / graphs:.3f}; processor time, all / graphs' processes"
                        f" {cost.cpu / cost.graphs_cpu:.3f}, all / the same graphs alone"
                        f" {cost.cpu / alone:.3f}; {cost.seconds:.3f} s per frame ({parts}); bytes per frame:"
                        f" {cost.sent_bytes} sent, {cost.answered_bytes} answered",
                        flush=True,
                    )
    for way in ("frame by frame", "one upload"):
        one, two = costs[1, way], costs[2, way]
        print(
            f"two objects / one, {way}: by the clock {two.seconds / one.seconds:.2f}, processor time"
            f" {two.cpu / one.cpu:.2f}"
        )


if __name__ == "__main__":
    main()
