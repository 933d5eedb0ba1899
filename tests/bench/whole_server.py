"""A server on a repository of one CPU profile, as a whole: start, memory, first and next click."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from triton_sam2 import SAM2TritonClient

from export.repository import assemble_repository
from tests.running_server import ROOT, RunningServer

PHOTOGRAPH = ROOT / "client/examples/images/coins.png"
CLICKS = 10


@dataclass(frozen=True)
class WholeServer:
    """Seconds, and megabytes that the server and its models' processes hold together (each page once)."""

    start_seconds: float
    idle_mb: float
    used_mb: float
    first_seconds: float
    click_seconds: float


def whole_server(onnx_dir: Path, profile: str) -> WholeServer:
    """Serve images alone, ask for one mask and then for more."""
    engine = profile.split()[1] if profile.startswith("openvino") else None
    with tempfile.TemporaryDirectory() as scratch:
        repository = Path(scratch, "models")
        assemble_repository(onnx_dir, repository, video=False, openvino=engine)
        started = time.monotonic()
        with RunningServer(repository, Path(scratch, "run")) as server:
            start_seconds = time.monotonic() - started
            idle = resident_mb(server.server_pid)
            with SAM2TritonClient(server.grpc_url, timeout=600) as client:
                began = time.monotonic()
                client.segment(str(PHOTOGRAPH), [[109, 199]], [1])
                first = time.monotonic() - began
                client.set_image(str(PHOTOGRAPH))
                clicks = []
                for _ in range(CLICKS):
                    began = time.monotonic()
                    client.predict([[109, 199]], [1])
                    clicks.append(time.monotonic() - began)
            used = resident_mb(server.server_pid)
    return WholeServer(start_seconds, idle, used, first, sorted(clicks)[CLICKS // 2])


def resident_mb(pid: int) -> float:
    """Of a process and its descendants; memory that several share counts once."""
    top = psutil.Process(pid)
    family = [top, *top.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in family) / 1e6
