"""What it costs to make the encoder's pixels of a photograph, and how exact they are.

    python tests/bench/preprocess.py            # options: --help

Milliseconds of one thread's processor time, the best of several turns, in which all ways alternate; grey
levels off the exact result (decoded by Pillow, resized by PyTorch in doubles). Then photographs a second
through one and more decoding processes, as sam2_preprocess runs them, and what memory these hold.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # as the decoding processes have it; before numpy is imported
)

import cv2
import numpy as np
import onnx
import onnxruntime
import psutil
import torch
from image_decoding import decode_stored, squash
from image_processes import ImageProcesses, usable_processors
from onnx import TensorProto, helper
from PIL import Image
from pixel_types import FP16_ZERO, PIXEL_TYPES
from rich.console import Console
from rich.table import Table
from stored_picture import StoredPicture

from tests.models.test_image_process import limits
from tests.photographs import encoded, opened, photograph

SIDE = 1024
SIZES = {"12 megapixels": (4000, 3000), "1600x1080": (1600, 1080)}


def photographs() -> dict[str, bytes]:
    """A photograph that ships with scikit-image, enlarged, with a camera's grain."""
    generator = np.random.default_rng(0)
    found = {}
    for name, size in SIZES.items():
        picture = opened(photograph("astronaut.png")).convert("RGB")
        pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
        grain = generator.normal(0, 4, pixels.shape)
        noisy = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
        found[name] = encoded(noisy, "JPEG", quality=90)
    return found


def exact(picture: Image.Image) -> np.ndarray:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].double()
    resized = torch.nn.functional.interpolate(
        pixels, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].numpy()


def antialiased_resize() -> onnxruntime.InferenceSession:
    """ONNX's own Resize, on floats [1, 3, H, W]."""
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", antialias=1)
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 3, SIDE, SIDE])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "resize",
        [value("x", TensorProto.FLOAT, [1, 3, "H", "W"])],
        [value("y", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [sizes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def ways(data: bytes) -> tuple[dict[str, Callable[[], object]], Image.Image]:
    stored = decode_stored(data, 1 << 30, 1 << 30)
    picture, session = stored.picture, antialiased_resize()

    def pillows_floats() -> np.ndarray:
        size = (SIDE, SIDE)
        planes = (
            np.asarray(band.convert("F").resize(size, Image.Resampling.BILINEAR))
            for band in picture.split()
        )
        return np.stack(list(planes))

    def pillows_bytes() -> np.ndarray:
        square = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return np.asarray(square).transpose(2, 0, 1)

    def onnx_runtimes() -> np.ndarray:
        planes = np.asarray(picture).transpose(2, 0, 1)[None].astype(np.float32)
        return session.run(None, {"x": planes})[0][0]

    def opencvs_areas() -> np.ndarray:
        pixels = np.asarray(picture)
        square = cv2.resize(pixels.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return square.transpose(2, 0, 1)

    def all_of_it() -> np.ndarray:
        stored = decode_stored(data, 1 << 30, 1 << 30)
        return squash(stored, SIDE, pixel_type=PIXEL_TYPES["TYPE_FP16"])

    def reduced() -> np.ndarray:
        smaller = Image.open(io.BytesIO(data))
        smaller.draft("RGB", (SIDE, SIDE))
        return squash(StoredPicture(smaller.convert("RGB"), 1), SIDE)

    return {
        "JPEG to FP16 pixels, all of it": all_of_it,
        "decoding alone": lambda: decode_stored(data, 1 << 30, 1 << 30),
        "resizing: ours": lambda: squash(stored, SIDE),
        "resizing: Pillow, floats (before)": pillows_floats,
        "resizing: Pillow, 8 bits": pillows_bytes,
        "resizing: ONNX Runtime, antialias": onnx_runtimes,
        "resizing: OpenCV, INTER_AREA": opencvs_areas,
        "decoding at reduced size (draft), ours": reduced,
    }, picture


def measure(name: str, data: bytes, turns: int, console: Console) -> None:
    compared, picture = ways(data)
    expected = exact(picture)
    spent: dict[str, list[float]] = {way: [] for way in compared}
    results = {}
    for _ in range(turns):
        for way, run in compared.items():
            started = time.process_time()
            results[way] = run()
            spent[way].append(1e3 * (time.process_time() - started))
    table = Table(title=f"{name}, {len(data) / 1e6:.1f} MB")
    for column in ("", "best ms", "median ms", "levels off: mean", "most"):
        table.add_column(column, justify="right" if column else "left")
    for way, milliseconds in spent.items():
        row = [way, f"{min(milliseconds):.1f}", f"{statistics.median(milliseconds):.1f}"]
        if isinstance(results[way], np.ndarray):
            levels = results[way].astype(np.float64)
            off = np.abs(levels + (FP16_ZERO if results[way].dtype == np.float16 else 0) - expected)
            row += [f"{off.mean():.4f}", f"{off.max():.3f}"]
        table.add_row(*row)
    console.print(table)


def measure_scaling(data: bytes, seconds: float, console: Console) -> None:
    table = Table(title="12 megapixels through decoding processes")
    for column in ("at once", "images/s", "MB held, each, idle", "most while decoding"):
        table.add_column(column, justify="right")
    for at_once in sorted({1, 2, usable_processors()}):
        processes = ImageProcesses(limits(), "TYPE_FP16", at_once)
        ending = time.monotonic() + seconds

        def work(_: int, processes: ImageProcesses = processes, ending: float = ending) -> int:
            count = 0
            with processes.one() as process:
                process.prepare(data, SIDE)  # it starts
                while time.monotonic() < ending:
                    process.prepare(data, SIDE)
                    count += 1
            return count

        most, stop = [0.0], threading.Event()

        def watch(most: list[float] = most, stop: threading.Event = stop) -> None:
            while not stop.wait(0.01):
                most[0] = max([most[0], *memory_of_workers()])

        watching = threading.Thread(target=watch)
        watching.start()
        with ThreadPoolExecutor(at_once) as pool:
            images = sum(pool.map(work, range(at_once)))
        stop.set()
        watching.join()
        idle = statistics.mean(memory_of_workers())
        table.add_row(str(at_once), f"{images / seconds:.1f}", f"{idle:.0f}", f"{most[0]:.0f}")
        processes.close()
    console.print(table)


def memory_of_workers() -> list[float]:
    """Megabytes that each decoding process has to itself."""
    return [child.memory_full_info().uss / 1e6 for child in psutil.Process().children()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=10, help="how often each way is measured")
    parser.add_argument("--seconds", type=float, default=10, help="of each number of processes")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    Image.core.set_use_block_allocator(1)
    console = Console(width=110)
    found = photographs()
    for name, data in found.items():
        measure(name, data, options.turns, console)
    measure_scaling(found["12 megapixels"], options.seconds, console)


if __name__ == "__main__":
    main()
