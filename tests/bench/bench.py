"""What a call costs, and where: ours against a client that does it the old way, on one server in one run.

    python tests/bench/bench.py                      # an untrained model of real size (tiny, 1024 px)
    python tests/bench/bench.py --repository DIR     # another repository, e.g. model_repository

The old way: the client decodes and resizes the image and normalises it to floats, sends 12.6 MB of them to
the encoder, receives the embeddings, sends them along with every click, and upsamples the answer itself. For
it the benchmark adds a small model that takes normalised floats where our encoder takes grey levels.

Times are medians in ms over gRPC on loopback; the two ways take turns, so that a noisy machine disturbs both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tritonclient.grpc
from google.protobuf import text_format
from image_decoding import decode_image
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

from tests.photographs import encoded, opened, photograph
from tests.raw_client import bytes_tensor, click
from tests.running_server import ROOT, RunningServer

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
DENORMALISE = """
import numpy as np
import triton_python_backend_utils as pb_utils

MEAN = np.array({mean}, np.float32).reshape(3, 1, 1)
STD = np.array({std}, np.float32).reshape(3, 1, 1)


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            floats = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
            levels = floats * STD + MEAN
            pixels = (np.rint(levels) if {whole} else levels - 128).astype({dtype!r})[None]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("resized_image", pixels)]))
        return responses
"""


@dataclass
class Call:
    """One way of asking: how long it takes, and what travels."""

    name: str
    run: Callable[[], object]
    sent_bytes: int = 0
    received_bytes: int = 0


class Server:
    """A gRPC client that counts bytes, and Triton's own figures for each model."""

    def __init__(self, url: str) -> None:
        self._client = tritonclient.grpc.InferenceServerClient(url)
        self.sent_bytes = self.received_bytes = 0

    def infer(self, model: str, outputs: list[str], tensors: dict) -> dict[str, np.ndarray]:
        inputs = [
            tritonclient.grpc.InferInput(
                name, values.shape, np_to_triton_dtype(values.dtype)
            ).set_data_from_numpy(values)
            for name, values in tensors.items()
        ]
        wanted = [tritonclient.grpc.InferRequestedOutput(name) for name in outputs]
        result = self._client.infer(model, inputs, outputs=wanted)
        self.sent_bytes = sum(len(i._get_content() or b"") for i in inputs)
        self.received_bytes = result.get_response().ByteSize()
        return {name: result.as_numpy(name) for name in outputs}

    def compute_ms(self, model: str) -> tuple[float, int]:
        """Milliseconds a model has computed in all, by Triton's statistics, and how often."""
        statistics = self._client.get_inference_statistics(model).model_stats[0]
        return statistics.inference_stats.compute_infer.ns / 1e6, statistics.execution_count

    def durations_ms(self, model: str) -> np.ndarray:
        """Milliseconds in all: total, queue, input, compute, output."""
        statistics = self._client.get_inference_statistics(model).model_stats[0].inference_stats
        parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        return np.array([getattr(statistics, part).ns / 1e6 for part in parts])


def add_old_way(repository: Path) -> int:
    """Adds the model that takes floats; returns the model's image size S."""
    config = text_format.Parse(
        (repository / "sam2_encoder/config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    side = config.input[0].dims[-1]
    data_type = model_config_pb2.DataType.Name(config.input[0].data_type)
    directory = repository / "old_way_pixels"
    (directory / "1").mkdir(parents=True, exist_ok=True)
    whole = config.input[0].data_type == model_config_pb2.TYPE_UINT8
    code = DENORMALISE.format(
        mean=MEAN.tolist(), std=STD.tolist(), whole=whole, dtype="uint8" if whole else "float16"
    )
    (directory / "1/model.py").write_text(code)
    (directory / "config.pbtxt").write_text(
        f"""
        name: "old_way_pixels" backend: "python" max_batch_size: 0
        input [ {{ name: "pixels" data_type: TYPE_FP32 dims: [ 3, {side}, {side} ] }} ]
        output [ {{ name: "resized_image" data_type: {data_type} dims: [ 1, 3, {side}, {side} ] }} ]
        instance_group [ {{ kind: KIND_CPU count: 1 }} ]
        """
    )
    outputs = "\n".join(
        f'output [ {{ name: "{o.name}" data_type: {model_config_pb2.DataType.Name(o.data_type)}'
        f" dims: {[1, *o.dims]} }} ]"
        for o in config.output
    )
    maps = "\n".join(f'output_map {{ key: "{o.name}" value: "{o.name}" }}' for o in config.output)
    ensemble = repository / "old_way_encoder"
    (ensemble / "1").mkdir(parents=True, exist_ok=True)
    (ensemble / "config.pbtxt").write_text(
        f"""
        name: "old_way_encoder" platform: "ensemble" max_batch_size: 0
        input [ {{ name: "pixels" data_type: TYPE_FP32 dims: [ 3, {side}, {side} ] }} ]
        {outputs}
        ensemble_scheduling {{
          step [
            {{ model_name: "old_way_pixels" model_version: -1
               input_map {{ key: "pixels" value: "pixels" }}
               output_map {{ key: "resized_image" value: "resized_image" }} }},
            {{ model_name: "sam2_encoder" model_version: -1
               input_map {{ key: "resized_image" value: "resized_image" }}
               {maps} }}
          ]
        }}
        """
    )
    return side


class OldWay:
    """The client we come from: everything but the two networks happens in it."""

    def __init__(self, server: Server, side: int) -> None:
        self._server = server
        self._side = side

    def encode(self, data: bytes) -> None:
        picture = decode_image(data, 1 << 30, 1 << 30)
        self.original_hw = picture.size[::-1]
        size = (self._side, self._side)
        pixels = (np.asarray(picture.resize(size, Image.Resampling.BILINEAR)) - MEAN) / STD
        names = ["image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint"]
        tensors = {"pixels": np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)}
        self.embeddings = self._server.infer("old_way_encoder", names, tensors)

    def click(self, x: float, y: float) -> np.ndarray:
        height, width = self.original_hw
        low = self._side // 4
        tensors = self.embeddings | {
            "unit_point_coords": np.array([[[x / width, y / height], [0, 0]]], np.float32),
            "token_labels": np.array([[1, -1]], np.int32),
            "dense_mask_input": np.zeros((1, 1, low, low), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        answer = self._server.infer("sam2_decoder", ["plane_logits", "plane_ious"], tensors)
        logits = cv2.resize(answer["plane_logits"][0, 0], (width, height))
        return (logits > 0).astype(np.uint8)


def calls(server: Server, side: int, data: bytes) -> list[Call]:
    """Ours and the old way, cold and warm. Every cold call brings an image that the server has not seen."""
    old, number = OldWay(server, side), iter(range(1 << 30))
    height, width = decode_image(data, 1 << 30, 1 << 30).size[::-1]
    prompt = click(width / 2, height / 2)
    outputs = ["masks", "iou_predictions", "cached_image_id"]

    def fresh() -> bytes:
        return data + b"%d" % next(number)  # decoders ignore what follows a JPEG's end

    def cold() -> object:
        return server.infer("sam2", outputs, {"image": bytes_tensor(fresh()), **prompt})

    def old_cold() -> object:
        old.encode(data)
        sent, received = server.sent_bytes, server.received_bytes
        old.click(width / 2, height / 2)
        server.sent_bytes += sent
        server.received_bytes += received
        return None

    image_id = server.infer("sam2", outputs, {"image": bytes_tensor(data), **prompt})[
        "cached_image_id"
    ]
    by_id = {"image_id": image_id, **prompt}
    return [
        Call("first click, one call", cold),
        Call("first click, old way", old_cold),
        Call("next click, by id", lambda: server.infer("sam2", outputs, by_id)),
        Call(
            "next click, by id, as RLE",
            lambda: server.infer(
                "sam2", ["masks_rle"], by_id | {"mask_format": bytes_tensor(b"rle")}
            ),
        ),
        Call("next click, old way", lambda: old.click(width / 2, height / 2)),
    ]


def measure(server: Server, side: int, data: bytes, rounds: int, console: Console) -> None:
    ways = calls(server, side, data)
    for way in ways:
        way.run()
        way.sent_bytes, way.received_bytes = server.sent_bytes, server.received_bytes
    elapsed: dict[str, list[float]] = {way.name: [] for way in ways}
    compute: dict[str, list[float]] = {"sam2_encoder": [], "sam2_decoder": []}
    for number in track(range(rounds), "measuring", console=console):
        for way in ways:
            if "first" in way.name and number % 4:
                continue  # encoding takes long, and its median settles sooner
            before = {model: server.compute_ms(model) for model in compute}
            started = time.perf_counter()
            way.run()
            elapsed[way.name].append((time.perf_counter() - started) * 1e3)
            for model, (ms, count) in before.items():
                after_ms, after_count = server.compute_ms(model)
                if after_count > count:
                    compute[model].append((after_ms - ms) / (after_count - count))
    report(ways, elapsed, compute, console)
    by_id = next(way for way in ways if way.name == "next click, by id")
    report_steps(server, by_id, rounds, console)


def report_steps(server: Server, way: Call, rounds: int, console: Console) -> None:
    """Where the time of one kind of call goes, by Triton's statistics of each model."""
    steps = ["sam2_embedding", "sam2_prompt", "sam2_decoder", "sam2_postprocess", "sam2"]
    before = {model: server.durations_ms(model) for model in steps}
    for _ in range(rounds):
        way.run()
    table = Table(title=f"one {way.name}: ms in each model, of which waiting and moving tensors")
    for title in ("model", "total", "queue", "input", "compute", "output"):
        table.add_column(title, justify="left" if title == "model" else "right")
    for model in steps:
        spent = (server.durations_ms(model) - before[model]) / rounds
        table.add_row("all of sam2" if model == "sam2" else model, *(f"{ms:.2f}" for ms in spent))
    console.print(table)


def report(ways: list[Call], elapsed: dict, compute: dict, console: Console) -> None:
    table = Table()
    for title in ("call", "median ms", "p95 ms", "bytes sent", "bytes received"):
        table.add_column(title, justify="left" if title == "call" else "right")
    for way in ways:
        p50, p95 = np.percentile(elapsed[way.name], [50, 95])
        table.add_row(
            way.name, f"{p50:.1f}", f"{p95:.1f}", f"{way.sent_bytes:,}", f"{way.received_bytes:,}"
        )
    console.print(table)
    median = {name: float(np.median(values)) for name, values in (elapsed | compute).items()}
    encoder, decoder = median["sam2_encoder"], median["sam2_decoder"]
    first, later = median["first click, one call"], median["next click, by id"]
    console.print(
        f"encoder's own compute {encoder:.1f} ms, decoder's {decoder:.1f} ms (Triton's statistics)"
    )
    console.print(
        f"everything else in a next click: {later - decoder:.1f} ms,"
        f" {(later - decoder) / decoder:.0%} of the decoder"
    )
    console.print(
        f"everything else in a first click: {first - encoder - decoder:.1f} ms,"
        f" {(first - encoder - decoder) / (encoder + decoder):.0%} of encoder and decoder"
    )
    console.print(
        f"old way ÷ ours: first click {median['first click, old way'] / first:.2f},"
        f" next click {median['next click, old way'] / later:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repository", type=Path, help="an exported repository (default: untrained tiny)"
    )
    parser.add_argument("--image", type=Path, help="a photograph (default: 1600 px wide, JPEG)")
    parser.add_argument("--rounds", type=int, default=40, help="calls of each kind (default: 40)")
    arguments = parser.parse_args()
    console = Console(highlight=False, width=110)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        repository = Path(scratch) / "repository"
        if arguments.repository is None:
            export = [sys.executable, "-m", "export", "--size", "tiny", "--random-weights", "0"]
            export += ["--no-video"]
            subprocess.run([*export, "--output-dir", str(repository)], cwd=ROOT, check=True)
        else:
            subprocess.run(["cp", "-r", str(arguments.repository), str(repository)], check=True)
        side = add_old_way(repository)
        if arguments.image is None:
            wide = opened(photograph("motorcycle_left.png")).resize((1600, 1080))
            data = encoded(wide, "JPEG", quality=90)
        else:
            data = arguments.image.read_bytes()
        with RunningServer(repository, Path(scratch) / "state", "--no-probe") as server:
            measure(Server(server.grpc_url), side, data, arguments.rounds, console)


if __name__ == "__main__":
    main()
