"""`just bench-cpu`: each CPU profile of a model beside FP32: time and memory. Ratios first.

Every profile is a process of its own that computes the same picture, in turns with the others, so that what
else the machine does falls on all of them. How masks agree says each export itself (the small model's are no
noise, as an untrained model's would be).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from onnx_session import open_session
from rich.console import Console
from rich.table import Table

from tests.running_server import ROOT

if TYPE_CHECKING:
    from tests.bench.whole_server import WholeServer

PRECISIONS = ("fp32", "int8", "openvino fp32", "openvino bf16")
ROUNDS = 4
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32}


@dataclass(frozen=True)
class Figures:
    """Of one profile: best processor seconds, and resident memory of a process that holds the graph alone."""

    encode_seconds: float
    click_seconds: float
    encoder_mb: float
    decoder_mb: float


class Worker:
    """A process that holds one graph, and runs it when told."""

    def __init__(self, graph: Path, profile: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(graph), profile, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def end(self) -> None:
        self._process.terminate()
        self._process.wait()

    def run(self) -> tuple[float, float]:
        """Processor seconds of one run, and resident megabytes after it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        seconds, megabytes = json.loads(self._process.stdout.readline())
        return seconds, megabytes


def work(graph: str, profile: str, threads: str) -> None:
    """The worker's side: runs the graph once for each line that comes."""
    config: dict[str, Any] = {}
    if profile.startswith("openvino"):
        engine = {"name": "openvino", "parameters": {"precision": profile.split()[1].upper()}}
        config = {
            "optimization": {"execution_accelerators": {"cpu_execution_accelerator": [engine]}}
        }
    session = open_session(graph, config, {"intra_op_thread_count": threads})
    rng = np.random.default_rng(0)
    feeds = {node.name: example(node, rng) for node in session.get_inputs()}
    names = [node.name for node in session.get_outputs()]
    for _ in sys.stdin:
        started = time.process_time()
        session.run(names, feeds)
        seconds = time.process_time() - started
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        print(json.dumps([seconds, pages * 4096 / 1e6]), flush=True)


def example(node: Any, rng: np.random.Generator) -> Any:
    """One image, or one object with a click."""
    shape = [size if isinstance(size, int) else {"N": 2}.get(size, 1) for size in node.shape]
    if node.name == "token_labels":
        return np.array([[1, -1]], np.int32)
    if node.name in ("encoder_fingerprint", "has_mask_input"):
        return np.zeros(shape, np.int64 if node.name == "encoder_fingerprint" else np.float32)
    scale = 256 if node.name == "resized_image" else 1
    return (scale * rng.random(shape)).astype(DTYPES[node.type])


def export(size: str, image_size: int, folder: Path) -> None:
    """FP32 graphs into `folder`."""
    model = (
        ["--checkpoint", "export/demo_model/weights"]
        if size == "demo"
        else ["--size", size, "--random-weights", "0"]
    )
    words = ["--no-video", "--onnx-only", str(folder)]
    if size != "demo":
        words += ["--image-size", str(image_size)]
    done = subprocess.run(
        [sys.executable, "-m", "export", *model, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def measure(folders: dict[str, Path], threads: int) -> dict[str, Figures]:
    """All profiles in turns; the best of each."""
    found: dict[str, dict[str, tuple[float, float]]] = {profile: {} for profile in folders}
    for graph in ("encoder", "decoder"):
        workers = {
            profile: Worker(folder / f"{graph}.onnx", profile, threads)
            for profile, folder in folders.items()
        }
        try:
            runs: dict[str, list[tuple[float, float]]] = {profile: [] for profile in folders}
            for _ in range(ROUNDS if graph == "encoder" else 5 * ROUNDS):
                for profile, worker in workers.items():
                    runs[profile].append(worker.run())
        finally:
            for worker in workers.values():
                worker.end()
        for profile, values in runs.items():
            found[profile][graph] = (min(s for s, _ in values), values[-1][1])
    return {
        profile: Figures(
            by_graph["encoder"][0],
            by_graph["decoder"][0],
            by_graph["encoder"][1],
            by_graph["decoder"][1],
        )
        for profile, by_graph in found.items()
    }


def table(title: str, figures: dict[str, Figures]) -> Table:
    made = Table(title=title)
    for heading in (
        "profile",
        "encoder, times FP32's speed",
        "click, times",
        "encoder, s",
        "click, ms",
        "encoder, MB",
        "decoder, MB",
    ):
        made.add_column(heading, justify="left" if heading == "profile" else "right")
    base = figures["fp32"]
    for profile, of in figures.items():
        made.add_row(
            profile,
            f"{base.encode_seconds / of.encode_seconds:.2f}",
            f"{base.click_seconds / of.click_seconds:.2f}",
            f"{of.encode_seconds:.2f}",
            f"{1000 * of.click_seconds:.1f}",
            f"{of.encoder_mb:.0f}",
            f"{of.decoder_mb:.0f}",
        )
    return made


def server_table(title: str, figures: dict[str, WholeServer]) -> Table:
    made = Table("profile", title=title)
    for heading in ("MB idle", "MB after clicks", "start, s", "first click, s", "next click, ms"):
        made.add_column(heading, justify="right")
    for profile, of in figures.items():
        made.add_row(
            profile,
            f"{of.idle_mb:.0f}",
            f"{of.used_mb:.0f}",
            f"{of.start_seconds:.1f}",
            f"{of.first_seconds:.2f}",
            f"{1000 * of.click_seconds:.0f}",
        )
    return made


def main(
    size: Annotated[list[str] | None, typer.Option(help="Repeat for more; also demo.")] = None,
    image_size: Annotated[list[int] | None, typer.Option(help="Repeat for more.")] = None,
    profile: Annotated[list[str] | None, typer.Option(help=", ".join(PRECISIONS))] = None,
    threads: Annotated[int, typer.Option(help="Of each graph: 1 makes seconds comparable.")] = 1,
    server: Annotated[
        bool, typer.Option("--server", help="Serve each profile as well: start, memory, clicks.")
    ] = False,
) -> None:
    """Measure profiles with untrained weights of real size; seconds are processor seconds."""
    # Heavy, and workers would hold it in memory.
    from export.int8 import quantize
    from tests.bench.whole_server import whole_server

    console = Console(width=120)
    profiles = profile or list(PRECISIONS)
    for one in size or ["tiny"]:
        for edge in image_size or [1024]:
            with tempfile.TemporaryDirectory() as scratch:
                folders = {
                    name: Path(scratch, "int8" if name == "int8" else "fp32")
                    for name in dict.fromkeys(("fp32", *profiles))
                }
                console.print(f"{one}, {edge} px: exporting")
                export(one, edge, Path(scratch, "fp32"))
                Path(scratch, "int8").mkdir()
                for graph in ("encoder.onnx", "decoder.onnx"):
                    quantize(Path(scratch, "fp32", graph), Path(scratch, "int8", graph))
                figures = measure(folders, threads)
                console.print(table(f"{one}, {edge} px, {threads} thread", figures))
                if server:
                    served = {name: whole_server(at, name) for name, at in folders.items()}
                    console.print(server_table(f"{one}, {edge} px, whole server", served))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:5])
    else:
        typer.run(main)
