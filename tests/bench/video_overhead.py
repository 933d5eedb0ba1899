"""Tracking through the server against its graphs' own compute, and two objects against one.

    python -m tests.bench.video_overhead --image-size 512 --frames 10

The graphs' time is what Triton counts as their compute. Ratios say more than seconds on a busy machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc
from rich.console import Console

from export.__main__ import export_graphs
from export.checkpoint import Memory, random_checkpoint
from export.repository import assemble_repository
from tests.models.video.clips import clip
from tests.raw_client import RawClient, bytes_tensor
from tests.running_server import RunningServer
from tests.server.video_session import ServerSession

GRAPHS = ("sam2_encoder", "sam2_memory_attention", "sam2_video_decoder", "sam2_memory_encoder")
FRAME_SIZE = (1280, 720)
WARM_UP_FRAMES = 8  # until there are seven memories


def compute_seconds(client: tritonclient.grpc.InferenceServerClient) -> dict[str, float]:
    """Seconds of compute so far, by graph."""
    seconds = {}
    for graph in GRAPHS:
        statistics = client.get_inference_statistics(graph).model_stats[0]
        seconds[graph] = statistics.inference_stats.compute_infer.ns / 1e9
    return seconds


def measure(
    server: RunningServer, files: list[bytes], objects: int
) -> tuple[float, dict[str, float], int]:
    """Seconds per frame at the client, and per graph; bytes of an answer."""
    triton = tritonclient.grpc.InferenceServerClient(server.grpc_url)
    session = ServerSession(RawClient(server, "grpc"), files)
    for number in range(objects):
        session.points(0, number, [[400 + 200 * number, 300]], [1])
    answer_bytes = 0
    wanted = ["object_ids", "masks_rle", "object_score_logits", "iou_predictions"]
    for frame in range(1, len(files)):
        if frame == WARM_UP_FRAMES:
            before, started = compute_seconds(triton), time.perf_counter()
        answer = RawClient(server, "grpc").infer(
            "sam2_video",
            wanted,
            session_id=bytes_tensor(session.session_id.encode()),
            command=bytes_tensor(b"track"),
            frame_index=np.array([frame], np.int32),
            mask_format=bytes_tensor(b"rle"),
            **session.image(frame),
        )
        answer_bytes += sum(
            sum(map(len, v)) if v.dtype == object else v.nbytes for v in answer.values()
        )
    measured = len(files) - WARM_UP_FRAMES
    seconds = (time.perf_counter() - started) / measured
    after = compute_seconds(triton)
    session.close()
    graphs = {graph: (after[graph] - before[graph]) / measured for graph in GRAPHS}
    return seconds, graphs, answer_bytes // (len(files) - 1)


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
        per_object = {}
        with RunningServer(folder / "repository", folder / "state", "--no-probe") as server:
            for objects in (1, 2):
                seconds, graphs, answer_bytes = measure(server, files, objects)
                per_object[objects] = graphs
                parts = ", ".join(f"{g.removeprefix('sam2_')} {s:.3f}" for g, s in graphs.items())
                total = sum(graphs.values())
                print(
                    f"{objects} objects: {seconds:.3f} s per frame, graphs {total:.3f} s ({parts}); ratio"
                    f" {seconds / total:.3f}; sent {np.mean([len(f) for f in files]):.0f} bytes, answered"
                    f" {answer_bytes} bytes per frame",
                    flush=True,
                )
    for graph in GRAPHS[1:]:
        print(f"{graph}: two objects / one {per_object[2][graph] / per_object[1][graph]:.2f}")


if __name__ == "__main__":
    main()
