"""Coins followed through a clip: serve the small model in the box, click each coin once, track, draw.

Run it from the repository's root as `just demo-video`. The clip is made here, from the coins' photograph; so
it is known where each coin is, and how well it was followed is a figure.
"""

import time
from fractions import Fraction

import numpy as np
from demo.moving_coins import Clip, moving_coins
from demo.server import REPOSITORY, ROOT, running_server
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from triton_sam2 import SAM2VideoClient, TrackedFrame
from triton_sam2._results.drawing import draw_masks
from triton_sam2._results.movies import MovieWriter

from export.repository import assemble_repository

OUTPUT_DIR = ROOT / "demo-output"
SHOWN_FRAMES = 6
FRAMES_PER_SECOND = 12
GAP_PX = 4


def main() -> None:
    console = Console(highlight=False)
    console.print(
        "[bold]The memory of the small model in the box is not trained yet.[/] The clicked frame is right,"
        " the frames behind it are not followed: all parts run, nothing tracks. `just export tiny && just"
        " serve` has Meta's own memory."
    )
    clip = moving_coins(ROOT / "client/examples/images/coins.png")
    assemble_repository(ROOT / "export/demo_model/onnx", REPOSITORY)
    with (
        running_server() as state,
        SAM2VideoClient(f"grpc://127.0.0.1:{state['grpc_port']}") as client,
    ):
        started = time.perf_counter()
        tracked = track(client, clip)
        elapsed_s = time.perf_counter() - started
    console.print(
        f"{len(clip.frames)} frames, {clip.visible.shape[1]} coins, one click each on frame 0:"
        f" {len(clip.frames) / elapsed_s:.1f} frames a second."
    )
    console.print(agreement(clip, tracked))
    drawn = [
        draw_masks(pixels, frame.masks[:, 0])
        for pixels, frame in zip(clip.frames, tracked, strict=True)
    ]
    OUTPUT_DIR.mkdir(exist_ok=True)
    strip(clip, drawn).save(OUTPUT_DIR / "tracked.png")
    with MovieWriter(OUTPUT_DIR / "tracked.mp4", Fraction(FRAMES_PER_SECOND)) as movie:
        for pixels in drawn:
            movie.write(pixels)
    for name in ("tracked.png", "tracked.mp4"):
        console.print(f"[bold green]Written:[/] {(OUTPUT_DIR / name).relative_to(ROOT)}")


def track(client: SAM2VideoClient, clip: Clip) -> list[TrackedFrame]:
    """A click at each coin's centre on the first frame, then all frames."""
    state = client.init_state(clip.frames)
    for number, visible in enumerate(clip.visible[0], 1):
        rows, columns = np.nonzero(visible)
        centre = [columns.mean(), rows.mean()]
        client.add_new_points_or_box(state, 0, number, [centre], [1], formats=())
    tracked = list(client.propagate_in_video(state))
    client.close_state(state)
    return tracked


def agreement(clip: Clip, tracked: list[TrackedFrame]) -> Table:
    """The mean IoU of each coin with what is visible of it: on the clicked frame, and on the others."""
    table = Table()
    for title in ("coin", "clicked frame", "tracked frames"):
        table.add_column(title, justify="right")
    for row in range(clip.visible.shape[1]):
        ious = [
            iou(frame.masks[row, 0] > 0, visible[row])
            for frame, visible in zip(tracked, clip.visible, strict=True)
            if visible[row].any()
        ]
        table.add_row(str(row + 1), f"{ious[0]:.2f}", f"{np.mean(ious[1:]):.2f}")
    return table


def strip(clip: Clip, drawn: list[NDArray[np.uint8]]) -> Image.Image:
    """Frames of the clip in a row, and below each the same with its masks."""
    shown = np.linspace(0, len(drawn) - 1, SHOWN_FRAMES).round().astype(int)
    height, width = clip.frames.shape[1:3]
    picture = Image.new(
        "RGB", (SHOWN_FRAMES * (width + GAP_PX) - GAP_PX, 2 * height + GAP_PX), "white"
    )
    for column, number in enumerate(shown):
        left = column * (width + GAP_PX)
        picture.paste(Image.fromarray(clip.frames[number]), (left, 0))
        picture.paste(Image.fromarray(drawn[number]), (left, height + GAP_PX))
    return picture


def iou(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Of two masks; 1 if both are empty."""
    union = (mask | other).sum()
    return float((mask & other).sum() / union) if union else 1.0


if __name__ == "__main__":
    main()
