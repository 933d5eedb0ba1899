"""What a frame of a tracked video costs at a server, part by part: by the clock, and by processor time.

Processor time does not mind how busy the machine is, so ratios of it say more there.
"""

from __future__ import annotations

import re
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import tritonclient.grpc
from onnx_session import session_options

from tests.models.video.movies import movie
from tests.photographs import opened
from tests.raw_client import RawClient, bytes_tensor
from tests.running_server import RunningServer
from tests.server.video_session import ServerSession
from tests.server_figures import processes

GRAPHS = {
    "encode": "sam2_encoder",
    "attention": "sam2_memory_attention",
    "decoder": "sam2_video_decoder",
    "memory": "sam2_memory_encoder",
}
DECODE = "decode"
# From here on one object with one prompted frame has seven memories.
WARM_UP_FRAMES = 8
MEMORIES, POINTERS = 7, 16
WANTED = ["object_ids", "masks_rle", "object_score_logits", "iou_predictions"]


@dataclass
class FrameCost:
    """Of one frame, on average. parts: seconds by the clock, waiting included. cpu, graphs_cpu: processor
    seconds of all the server's processes and of the graphs' (0: not this machine's)."""

    seconds: float
    parts: dict[str, float]
    cpu: float = 0.0
    graphs_cpu: float = 0.0
    sent_bytes: int = 0
    answered_bytes: int = 0
    masks: list[Any] = field(default_factory=list)


def film_of(files: list[bytes]) -> bytes:
    """The frames as one MP4 (H.264)."""
    return movie([np.asarray(opened(file)) for file in files], key_every=12)


class FrameMeter:
    """Tracks clicked objects through a clip and says what a frame cost. `server` is one of this machine's."""

    def __init__(self, grpc_url: str, server: RunningServer | None) -> None:
        self.grpc_url, self._server = grpc_url, server
        self._triton = tritonclient.grpc.InferenceServerClient(grpc_url)

    def measure(self, files: list[bytes], objects: int, film: bytes | None = None) -> FrameCost:
        """With the frames sent one by one, or in one upload before."""
        client = RawClient(self, "grpc")
        session = ServerSession(client, files)
        if film is not None:
            session.close()
            session.step("start", video=bytes_tensor(film))
            session.image = lambda frame: {}  # type: ignore[method-assign]
        width, height = opened(files[0]).size
        for number in range(objects):
            session.points(0, number, [[width * (3 + number) / 7, height / 2]], [1])
        answered, sent, masks = 0, 0, []
        for frame in range(1, len(files)):
            if frame == WARM_UP_FRAMES:
                before, started = self._read(), time.perf_counter()
            given = session.image(frame)
            answer = client.infer(
                "sam2_video",
                WANTED,
                session_id=bytes_tensor(session.session_id.encode()),
                command=bytes_tensor(b"track"),
                frame_index=np.array([frame], np.int32),
                mask_format=bytes_tensor(b"rle"),
                **given,
            )
            masks.append(answer["masks_rle"])
            answered += sum(_bytes_of(values) for values in answer.values())
            sent += sum(_bytes_of(values) for values in given.values())
        measured = len(files) - WARM_UP_FRAMES
        seconds = (time.perf_counter() - started) / measured
        after = self._read()
        session.close()
        spent = {name: (after[name] - before[name]) / measured for name in before}
        cpu, graphs_cpu = spent.pop("cpu"), spent.pop("graphs_cpu")
        tracked = len(files) - 1
        sent_bytes = sent // tracked if film is None else len(film) // len(files)
        return FrameCost(seconds, spent, cpu, graphs_cpu, sent_bytes, answered // tracked, masks)

    def _read(self) -> dict[str, float]:
        """All that is counted so far."""
        found = {part: self._seconds_of(model) for part, model in GRAPHS.items()}
        found[DECODE] = self._seconds_of("sam2_preprocess") + self._video_seconds()
        found["cpu"] = found["graphs_cpu"] = 0.0
        if self._server is not None:
            everybody = processes(self._server)
            graphs = [p for p in everybody if _runs_a_graph(p)]
            found |= {"cpu": cpu_seconds(everybody), "graphs_cpu": cpu_seconds(graphs)}
        return found

    def _seconds_of(self, model: str) -> float:
        """Seconds of a model's answered requests, waiting included: what a local backend computes after it
        has handed a request on is no compute in Triton's eyes."""
        statistics = self._triton.get_inference_statistics(model).model_stats[0]
        return float(statistics.inference_stats.success.ns) / 1e9

    def _video_seconds(self) -> float:
        if self._server is None:
            return 0.0
        time.sleep(1.5)  # published once a second
        with urllib.request.urlopen(self._server.metrics_url, timeout=60) as page:
            text = page.read().decode()
        lines = re.findall(r"^sam2_video_video_wait_seconds_total\S* (\S+)$", text, re.M)
        return sum(map(float, lines))


def cpu_seconds(measured: list[psutil.Process]) -> float:
    """Processor time of these processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in measured)


def graphs_alone(repository: Path, objects: int, runs: int = 3) -> float:
    """Processor seconds of the graphs' own compute for a frame, in this process, with nothing around them."""
    shapes = {"maskmem_features": MEMORIES, "maskmem_tpos": MEMORIES}
    shapes |= {
        "obj_ptrs": POINTERS,
        "obj_ptr_offsets": POINTERS,
        "unit_point_coords": 2,
        "token_labels": 2,
    }
    total = 0.0
    for model in GRAPHS.values():
        session = onnxruntime.InferenceSession(
            str(repository / model / "1/model.onnx"),
            session_options({}),
            providers=["CPUExecutionProvider"],
        )
        feeds = {}
        for node in session.get_inputs():
            first, *rest = node.shape
            shape = [first if isinstance(first, int) else objects]
            shape += [size if isinstance(size, int) else shapes[node.name] for size in rest]
            if model == "sam2_encoder":
                shape[0] = 1
            feeds[node.name] = np.zeros(shape, DTYPES[node.type])
        session.run(None, feeds)
        started = time.process_time()
        for _ in range(runs):
            session.run(None, feeds)
        total += (time.process_time() - started) / runs
    return total


DTYPES = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


def _runs_a_graph(process: psutil.Process) -> bool:
    return any(
        part.startswith(tuple(f"{m}_0_" for m in GRAPHS.values())) for part in process.cmdline()
    )


def _bytes_of(values: np.ndarray) -> int:
    return sum(map(len, values.flat)) if values.dtype.hasobject else values.nbytes
