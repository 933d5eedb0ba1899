"""Everything in an image, with an untrained tiny at 1024 px: is it Meta's generator, and what does it cost?

    python tests/bench/everything.py [--onnx-dir DIR]

Three things, in one run: masks against Meta's generator around the same graphs; time against the decoder's
own compute for the same prompts; memory at 24 megapixels, and the clicks of another client meanwhile. Ratios
side by side are what counts; how fast this machine is does not matter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
import psutil
from onnx_session import session_options, thread_count
from PIL import Image
from pycocotools import mask as coco_mask

from export.repository import assemble_repository
from tests.automask_reference import GraphPredictor, generate
from tests.masks import overlap
from tests.photographs import encoded, opened, photograph
from tests.raw_client import RawClient, bytes_tensor, click
from tests.running_server import ROOT, RunningServer
from tests.server_figures import processes

MODEL = "sam2_automask"
# An untrained model is sure of nothing: thresholds at which something of it survives.
LOOSE = {
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.3,
    "box_nms_thresh": 1.0,
    "crop_nms_thresh": 1.0,
}
CASES = {
    "default": {"points_per_side": 4},
    "crops": {"points_per_side": 4, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "m2m": {"points_per_side": 3, "use_m2m": True},
    "one mask a point": {"points_per_side": 4, "multimask_output": False},
}
SIDE = 8  # points a side where time is taken
ROWS = 8  # as sam2_decoder's rows_at_once
CLICKS = 60


def parameters(**given) -> np.ndarray:
    return bytes_tensor(json.dumps(given).encode())


def export_tiny(directory: Path) -> Path:
    """ONNX files of an untrained tiny."""
    command = [sys.executable, "-m", "export", "--size", "tiny", "--random-weights", "0"]
    subprocess.run(
        [*command, "--no-video", "--onnx-only", str(directory / "onnx")], cwd=ROOT, check=True
    )
    return directory / "onnx"


def compare(client: RawClient, onnx: Path) -> None:
    """The same number, order and masks as Meta's generator."""
    predictor = GraphPredictor(onnx / "encoder.onnx", onnx / "decoder.onnx")
    for name in ("coins.png", "chelsea.png"):
        image = photograph(name)
        pixels = np.array(opened(image).convert("RGB"))
        for case, more in CASES.items():
            given = LOOSE | more
            expected = generate(predictor, pixels, **given)
            got = client.infer(MODEL, image=bytes_tensor(image), parameters=parameters(**given))
            masks = [coco_mask.decode(json.loads(text)) for text in got["masks_rle"]]
            order = [each["predicted_iou"] for each in expected] == got["predicted_iou"].tolist()
            pairs = zip(masks, expected, strict=False)
            least = min((overlap(a, b["segmentation"]) for a, b in pairs), default=1.0)
            print(
                f"{name:12} {case:17} reference {len(expected):3} server {len(masks):3}"
                f" same order {order} least IoU {least:.5f}"
            )


def decoder_seconds(onnx: Path) -> float:
    """The decoder alone, in this process, for the prompts of SIDE x SIDE points."""
    session = onnxruntime.InferenceSession(
        str(onnx / "decoder.onnx"),
        session_options(thread_count({})),
        providers=["CPUExecutionProvider"],
    )
    rng = np.random.default_rng(0)
    feeds = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else ROWS for size in node.shape]
        if node.name in ("unit_point_coords", "token_labels"):
            shape[1] = 2
        kind = {"tensor(float16)": np.float16, "tensor(int64)": np.int64}.get(node.type, np.float32)
        feeds[node.name] = rng.random(shape).astype(kind)
    feeds["token_labels"] = np.tile(np.array([[1, -1]], np.int32), (ROWS, 1))
    feeds["has_mask_input"][:] = 0
    feeds["dense_mask_input"][:] = 0
    started = time.perf_counter()
    for _ in range(SIDE**2 // ROWS):
        session.run(None, feeds)
    return time.perf_counter() - started


def timed(client: RawClient, image: np.ndarray, **given) -> tuple[float, int]:
    started = time.perf_counter()
    answer = client.infer(MODEL, image=image, parameters=parameters(points_per_side=SIDE, **given))
    return time.perf_counter() - started, len(answer["area"])


def compare_times(client: RawClient, server: RunningServer, onnx: Path) -> None:
    """By the clock, which a busy machine scatters, and by processor time, which it does not."""
    image = bytes_tensor(photograph("chelsea.png"))
    large = bytes_tensor(
        encoded(opened(photograph("motorcycle_left.png")).resize((1600, 1200)), "JPEG")
    )
    decoder = process_of(server, "sam2_decoder")
    for name, data in (("0.1 MP", image), ("1.9 MP", large)):
        client.infer("sam2_embedding", ["cached_image_id"], image=data)  # encoded before
        for what, given in (
            ("default thresholds", {}),
            ("all planes looked at", {"pred_iou_thresh": 0.0}),
        ):
            ratios, shares = [], []
            for _ in range(4):
                alone = decoder_seconds(onnx)
                before = (cpu_seconds(processes(server)), cpu_seconds([decoder]))
                whole, found = timed(client, data, **given)
                spent, decoding = (
                    after - start
                    for after, start in zip(
                        (cpu_seconds(processes(server)), cpu_seconds([decoder])),
                        before,
                        strict=True,
                    )
                )
                ratios.append(whole / alone)
                shares.append(spent / decoding)
            print(
                f"{name}, {what}: {found} masks; by the clock, total / decoder's compute"
                f" {np.median(ratios):.3f} ({', '.join(f'{r:.2f}' for r in ratios)}); processor time of all"
                f" processes / decoder's {np.median(shares):.3f} ({', '.join(f'{r:.3f}' for r in shares)})"
            )


def cpu_seconds(measured: list[psutil.Process]) -> float:
    """Processor time of these processes so far."""
    return sum(sum(process.cpu_times()[:2]) for process in measured)


def process_of(server: RunningServer, model: str) -> psutil.Process:
    """The process that runs a model, by its instance's name."""
    return next(
        p for p in processes(server) if any(part.startswith(f"{model}_") for part in p.cmdline())
    )


def running(server: RunningServer) -> bool:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return any(line == f"{MODEL}_running 1" for line in lines)


def clicks(server: RunningServer, while_busy: threading.Thread | None) -> np.ndarray:
    client = RawClient(server, "grpc")
    image = bytes_tensor(photograph("coins.png"))
    known = client.infer("sam2_embedding", ["cached_image_id"], image=image)["cached_image_id"]
    formats = bytes_tensor(b"rle")
    seconds = []
    while len(seconds) < CLICKS and (while_busy is None or while_busy.is_alive()):
        started = time.perf_counter()
        client.infer(image_id=known, mask_format=formats, **click(109, 199))
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def measure_load(server: RunningServer) -> None:
    """Memory of sam2_automask at 24 megapixels, and the clicks of another client meanwhile."""
    picture = Image.effect_noise((750, 500), 90).resize((6000, 4000), Image.Resampling.BICUBIC)
    image = bytes_tensor(encoded(picture, "JPEG", quality=90))
    RawClient(server, "grpc").infer("sam2_embedding", ["cached_image_id"], image=image)
    process = process_of(server, MODEL)
    before = process.memory_info().rss
    alone = clicks(server, None)
    outcome: list[str] = []

    def work() -> None:
        given = {"points_per_side": 2 * SIDE, "pred_iou_thresh": 0.0}
        try:
            answer = RawClient(server, "grpc").infer(
                MODEL, image=image, parameters=parameters(**given)
            )
            outcome.append(f"{len(answer['area'])} masks")
        except Exception as error:  # noqa: BLE001 - printed with the figures
            outcome.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    while not running(server):
        time.sleep(0.05)
    peak, stop = [before], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    beside = clicks(server, thread)
    thread.join()
    stop.set()
    watcher.join()
    print(
        f"24 MP: {outcome[0]}; sam2_automask {before / 1e6:.0f} MB before, {peak[0] / 1e6:.0f} MB at most"
        f" (+{(peak[0] - before) / 1e6:.0f}; the reference holds 64 x 3 x 24 MP x 4 B = 18432 MB a batch)"
    )
    for name, seconds in (("alone", alone), ("beside it", beside)):
        print(
            f"clicks {name}: {len(seconds)}, p50 {np.median(seconds) * 1e3:.0f} ms,"
            f" p95 {np.quantile(seconds, 0.95) * 1e3:.0f} ms"
        )
    print(
        f"p95 beside / alone: {np.quantile(beside, 0.95) / np.quantile(alone, 0.95):.2f},"
        f" p50 {np.median(beside) / np.median(alone):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx-dir", type=Path, help="ONNX files instead of an untrained tiny's")
    parser.add_argument("--only", choices=["masks", "times", "load"], help="one of the three")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        onnx = options.onnx_dir or export_tiny(directory)
        assemble_repository(onnx, directory / "repository", video=False)
        with RunningServer(directory / "repository", directory / "state", "--no-probe") as server:
            client = RawClient(server, "grpc")
            for name, measure in {
                "masks": lambda: compare(client, onnx),
                "times": lambda: compare_times(client, server, onnx),
                "load": lambda: measure_load(server),
            }.items():
                if options.only in (None, name):
                    measure()


if __name__ == "__main__":
    main()
