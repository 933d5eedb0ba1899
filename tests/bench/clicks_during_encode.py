"""Cached clicks alone, and while one slow encode runs: latencies side by side, and their ratio.

    python tests/bench/clicks_during_encode.py

The small model's encoder is replaced by one that takes a few seconds without keeping a core busy, as an
encoder on a GPU does: what is left is whether a hit ever waits behind a miss. Rounds alternate.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
import uuid
from pathlib import Path

import numpy as np
from rich.console import Console

from export.repository import assemble_repository
from tests.photographs import photograph
from tests.raw_client import RawClient, bytes_tensor, click
from tests.running_server import ROOT, RunningServer

ENCODE_SECONDS = 3.0
CLICKS = 100
ROUNDS = 5
SLOW_ENCODER = f"""
import time
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def execute(self, requests):
        responses = []
        for request in requests:
            time.sleep({ENCODE_SECONDS})
            image = pb_utils.get_input_tensor_by_name(request, "resized_image").as_numpy()
            values = self.session.run(self.names, {{"resized_image": image}})
            tensors = [pb_utils.Tensor(*pair) for pair in zip(self.names, values)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses
"""


def slow_repository(directory: Path) -> None:
    """The small model with an encoder that takes ENCODE_SECONDS."""
    assemble_repository(ROOT / "export/demo_model/onnx", directory, video=False)
    config = directory / "sam2_encoder/config.pbtxt"
    config.write_text(re.sub(r'backend: "onnxruntime"', 'backend: "python"', config.read_text()))
    (directory / "sam2_encoder/1/model.py").write_text(SLOW_ENCODER)


def clicks_ms(client: RawClient, image_id: np.ndarray) -> list[float]:
    """Milliseconds of each of CLICKS cached clicks, one after the other."""
    elapsed = []
    for _ in range(CLICKS):
        started = time.perf_counter()
        client.infer(image_id=image_id, **click(109, 199))
        elapsed.append((time.perf_counter() - started) * 1e3)
    return elapsed


def main() -> None:
    console = Console(highlight=False)
    coins = photograph("coins.png")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        slow_repository(Path(scratch) / "repository")
        with RunningServer(
            Path(scratch) / "repository", Path(scratch) / "state", "--no-probe"
        ) as server:
            client, other = RawClient(server, "grpc"), RawClient(server, "grpc")
            image_id = client.infer(image=bytes_tensor(coins), **click(9, 9))["cached_image_id"]
            alone: list[float] = []
            during: list[float] = []
            for _ in range(ROUNDS):
                alone += clicks_ms(client, image_id)
                fresh = bytes_tensor(coins + uuid.uuid4().bytes)
                encoding = threading.Thread(
                    target=other.infer, kwargs={"image": fresh, **click(9, 9)}
                )
                encoding.start()
                time.sleep(0.2)
                while encoding.is_alive() and len(during) < len(alone):
                    during += clicks_ms(client, image_id)[: CLICKS if encoding.is_alive() else 0]
                encoding.join()
    for name, values in (("alone", alone), ("during an encode", during)):
        p50, p95 = np.percentile(values, [50, 95])
        console.print(f"{name:17} {len(values)} clicks, median {p50:.1f} ms, p95 {p95:.1f} ms")
    ratio = np.percentile(during, 95) / np.percentile(alone, 95)
    console.print(f"p95 during ÷ p95 alone: {ratio:.2f}")


if __name__ == "__main__":
    main()
