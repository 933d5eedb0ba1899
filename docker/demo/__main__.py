"""From a fresh clone to a picture: serve the small model in the box, segment a photograph, stop.

Run it from the repository's root as `just demo`. It starts a real Triton server on free ports, sends a
photograph with the first click, then clicks that send the image's id alone, and draws what came back. At
last it asks for everything in the image, without a click.
"""

import re
import time
import urllib.request
from collections.abc import Callable
from functools import partial

import numpy as np
from demo.everything import compare, everything, picture
from demo.server import REPOSITORY, ROOT, running_server
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from triton_sam2 import SAM2TritonClient, Segmentation
from triton_sam2._results.drawing import draw_masks

from export.repository import assemble_repository

OUTPUT_DIR = ROOT / "demo-output"
PHOTOGRAPH = ROOT / "client/examples/images/coins.png"
ENLARGED = 2  # the photograph is small

# x, y in pixels of the photograph
CLICKS = [(102, 196), (206, 124), (347, 187), (46, 260), (114, 266)]
BOX = (132, 28, 179, 73)


def main() -> None:
    console = Console(highlight=False)
    console.print(
        "[bold]The small model in the box[/] (1.9 M parameters, 256 px) knows distinct objects on a"
        " background: microscopy, coins, seeds, pills."
    )
    console.print(
        "It is no substitute for Meta's checkpoints: `just export tiny && just serve` has those.\n"
    )
    assemble_repository(ROOT / "export/demo_model/onnx", REPOSITORY, video=False)
    with (
        running_server() as state,
        SAM2TritonClient(f"grpc://127.0.0.1:{state['grpc_port']}") as client,
    ):
        overlay, rows = segment(client)
        hits, misses = cache_figures(state["metrics_port"])
        started = time.perf_counter()
        masks = everything(client)
        elapsed_s = time.perf_counter() - started
    show(console, rows)
    console.print(
        f"\nThe cache answered {hits} of {hits + misses} requests; the image was encoded {misses} time(s)."
    )
    OUTPUT_DIR.mkdir(exist_ok=True)
    overlay.save(OUTPUT_DIR / "overlay.png")
    console.print(
        f"Everything in the image, in one call without a click: {len(masks)} masks in {elapsed_s:.1f} s;"
        f" {compare(masks)}."
    )
    picture(masks, PHOTOGRAPH, ENLARGED).save(OUTPUT_DIR / "everything.png")
    for name in ("overlay.png", "everything.png"):
        console.print(f"[bold green]Written:[/] {(OUTPUT_DIR / name).relative_to(ROOT)}")


def segment(client: SAM2TritonClient) -> tuple[Image.Image, list[tuple[str, float, float, int]]]:
    """One call with the image, then clicks and a box without it; the overlay and a row for each call."""
    photograph = PHOTOGRAPH.read_bytes()
    rows, masks = [], []

    def timed(what: str, call: Callable[[], Segmentation], sent: int) -> None:
        started = time.perf_counter()
        best = call().best()
        rows.append(
            (what, (time.perf_counter() - started) * 1e3, float(best.iou_predictions[0, 0]), sent)
        )
        masks.append(best.masks[0, 0])

    first, *others = CLICKS
    timed(
        f"image and click at {first}",
        lambda: client.segment(photograph, [first], [1], multimask_output=True),
        len(photograph),
    )
    for click in others:
        call = partial(client.predict, [click], [1], multimask_output=True)
        timed(f"click at {click}", call, 0)
    timed(f"box {BOX}", lambda: client.predict(box=BOX), 0)
    return draw(masks), rows


def draw(masks: list[NDArray[np.uint8]]) -> Image.Image:
    """The photograph and, beside it, the same with its masks, the clicks and the box."""
    photograph = Image.open(PHOTOGRAPH).convert("RGB")
    size = (photograph.width * ENLARGED, photograph.height * ENLARGED)
    before = photograph.resize(size, Image.Resampling.BICUBIC)
    large = np.stack(
        [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in masks]
    )
    after = Image.fromarray(draw_masks(np.asarray(before), large))
    pen = ImageDraw.Draw(after)
    for x, y in CLICKS:
        centre = (x * ENLARGED, y * ENLARGED)
        pen.circle(centre, 6, fill="white", outline="black", width=2)
    pen.rectangle([c * ENLARGED for c in BOX], outline="white", width=2)
    both = Image.new("RGB", (2 * size[0] + 8, size[1]), "white")
    both.paste(before, (0, 0))
    both.paste(after, (size[0] + 8, 0))
    return both


def show(console: Console, rows: list[tuple[str, float, float, int]]) -> None:
    table = Table()
    for title in ("call", "ms", "predicted IoU", "image bytes sent"):
        table.add_column(title, justify="left" if title == "call" else "right")
    for what, elapsed_ms, iou, sent in rows:
        table.add_row(what, f"{elapsed_ms:.0f}", f"{iou:.2f}", f"{sent:,}")
    console.print(table)


def cache_figures(metrics_port: int) -> tuple[int, int]:
    """Hits and misses so far, from Triton's own metrics."""
    time.sleep(1.5)  # they are published once a second
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    pattern = r"^sam2_embedding_cache_(hits|misses)_total (\S+)"
    figures = {name: int(float(value)) for name, value in re.findall(pattern, text, re.M)}
    return figures["hits"], figures["misses"]


if __name__ == "__main__":
    main()
