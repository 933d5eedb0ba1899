"""Measure tracking on held-out clips: `python -m export.demo_model.video.evaluate --help`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export.demo_model.model import WEIGHTS_DIR
from export.demo_model.server_predictor import open_predictor
from export.demo_model.video.baselines import CSRT, follow_by_baselines, has_csrt
from export.demo_model.video.heldout import OCCLUDED, OPEN, HeldoutClip, heldout_clips
from export.demo_model.video.model import load_video_model
from export.demo_model.video.scoring import (
    ClipScores,
    Correction,
    Mean,
    correct_worst,
    difference_over_clips,
    mean_over_clips,
    score_tracked,
)
from export.demo_model.video.server_tracker import ServerTracker
from export.demo_model.video.trackers import ClipTracker, TorchTracker

TRACKER = "tracked by its memory"
# bars of the demo model: mean J that it should reach, and the share of frames without an object on which
# it says so
BARS = {OPEN: 0.80, OCCLUDED: 0.70}
ABSENT_BAR = 0.9


@dataclass
class Scores:
    """Every method's scores of the same clips, and what corrections gained."""

    methods: dict[str, list[ClipScores]] = field(default_factory=dict)
    corrections: list[list[Correction]] = field(default_factory=list)  # by clip


def measure(
    tracker: ClipTracker,
    clips: Sequence[HeldoutClip],
    baselines: dict[str, list[ClipScores]],
    corrected_clips: int,
) -> Scores:
    """Follow all clips, and correct objects of the first few; `baselines` are those of the same clips."""
    scores = Scores({TRACKER: [], **baselines})
    for clip in track(clips, "Tracking", console=Console(stderr=True), transient=True):
        tracked = tracker.track(clip.pictures, clip.clicks)
        scores.methods[TRACKER].append(score_tracked(clip, tracked))
        if len(scores.corrections) < corrected_clips:
            scores.corrections.append(correct_worst(tracker, clip, tracked))
    return scores


def measure_baselines(
    clips: Sequence[HeldoutClip], weights: Path | None, url: str | None
) -> dict[str, list[ClipScores]]:
    """All baselines on all clips, from the image model's clicks."""
    predictor = open_predictor(weights, url)
    scores: dict[str, list[ClipScores]] = {}
    for clip in track(clips, "Baselines", console=Console(stderr=True), transient=True):
        found = follow_by_baselines(predictor, clip.pictures, clip.clicks)
        for name, tracked in found.items():
            scores.setdefault(name, []).append(score_tracked(clip, tracked))
    return scores


def read_baselines(path: Path, clips: Sequence[HeldoutClip]) -> dict[str, list[ClipScores]]:
    """The baselines of an earlier `--json`, of the same clips."""
    content = json.loads(path.read_text("utf-8"))["methods"]
    methods = {
        name: [ClipScores(**clip) for clip in found]
        for name, found in content.items()
        if name != TRACKER
    }
    for name, found in methods.items():
        counts = [int(clip.present[1:].sum()) for clip in clips]
        if [len(one.ious) for one in found] != counts:
            raise ValueError(f"{path}: {name}: expected scores of these clips, got others")
    return methods


def _ious(clips: Sequence[ClipScores], group: str | None = None, kind: str | None = None) -> Mean:
    kept = [c for c in clips if group in (None, c.group) and kind in (None, c.kind)]
    return mean_over_clips([clip.ious for clip in kept])


def _shares(clips: Sequence[ClipScores], of: str) -> Mean:
    return mean_over_clips([[float(told) for told in getattr(clip, of)] for clip in clips])


def table_of(scores: Scores) -> Table:
    """One row per method: J with its interval, by group and kind of clips, and presence."""
    first = scores.methods[TRACKER]
    count = len(first)
    table = Table(title=f"Mean J over frames and objects, with 95 % intervals over {count} clips")
    table.add_column("method")
    kinds = sorted({clip.kind for clip in first if clip.group == OCCLUDED})
    for heading in [OPEN, OCCLUDED, *kinds, "told present", "told absent"]:
        table.add_column(heading, justify="right")
    for name, clips in scores.methods.items():
        table.add_row(
            name,
            *(str(_ious(clips, group=group)) for group in (OPEN, OCCLUDED)),
            *(f"{_ious(clips, kind=kind).value:.3f}" for kind in kinds),
            f"{_shares(clips, 'told_present').value:.3f}",
            str(_shares(clips, "told_absent")),
        )
    absent = _shares(first, "told_absent").count
    table.caption = (
        f"bars: {BARS[OPEN]:.2f} without, {BARS[OCCLUDED]:.2f} with occlusion, {ABSENT_BAR:.2f} told "
        f"absent; objects show on {sum(len(c.ious) for c in first)} object frames, not on {absent}"
    )
    return table


def leads_of(scores: Scores) -> Table:
    """How much better the memory is than each baseline, on the same frames."""
    table = Table(title="Lead of the memory, with 95 % intervals over clips")
    for heading in ("over", OPEN, OCCLUDED):
        table.add_column(heading)
    own = scores.methods[TRACKER]
    for name, clips in scores.methods.items():
        if name == TRACKER:
            continue
        cells = []
        for group in (OPEN, OCCLUDED):
            chosen = [i for i, clip in enumerate(own) if clip.group == group]
            lead = difference_over_clips(
                [own[i] for i in chosen], [clips[i] for i in chosen], lambda clip: clip.ious
            )
            cells.append(str(lead))
        table.add_row(name, *cells)
    return table


def corrections_of(scores: Scores) -> str:
    """One line: J before and after a click on each object's worst frame."""
    before = mean_over_clips([[one.before for one in clip] for clip in scores.corrections])
    after = mean_over_clips([[one.after for one in clip] for clip in scores.corrections])
    gain = mean_over_clips([[one.after - one.before for one in c] for c in scores.corrections])
    return (
        f"One click on the worst frame, then tracking again ({before.count} objects): J {before} before, "
        f"{after} after, gain {gain}"
    )


def main(  # noqa: PLR0917 - one parameter per option
    weights: Annotated[Path | None, typer.Option(help="Folder of weights for torch.")] = None,
    url: Annotated[str | None, typer.Option(help="A running server instead of torch.")] = None,
    clips: Annotated[int, typer.Option(help="Held-out clips.")] = 48,
    seed: Annotated[int, typer.Option(help="Of the held-out stream.")] = 0,
    baselines: Annotated[bool, typer.Option(help="What the memory has to beat, too.")] = True,
    baselines_from: Annotated[
        Path | None, typer.Option(help="An earlier --json: take the baselines from it.")
    ] = None,
    corrected_clips: Annotated[int, typer.Option(help="Clips with a click on worst frames.")] = 12,
    threads: Annotated[int, typer.Option(help="CPU threads of torch.")] = 2,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write all figures here.")
    ] = None,
) -> None:
    """Track held-out clips by one click per object, and print tables."""
    torch.set_num_threads(threads)
    if url is not None and weights is not None:
        raise typer.BadParameter("--url and --weights: choose one")
    tracker: ClipTracker = (
        ServerTracker(url) if url else TorchTracker(load_video_model(weights or WEIGHTS_DIR))
    )
    chosen = list(heldout_clips(clips, seed))
    opponents: dict[str, list[ClipScores]] = {}
    if baselines_from is not None:
        opponents = read_baselines(baselines_from, chosen)
    elif baselines:
        opponents = measure_baselines(chosen, weights, url)
    scores = measure(tracker, chosen, opponents, corrected_clips)
    console = Console(width=180)
    console.print(table_of(scores))
    if opponents:
        console.print(leads_of(scores))
    if baselines and baselines_from is None and not has_csrt():
        console.print(
            f"left out: {CSRT} (this OpenCV has no contributed modules; with "
            "opencv-contrib-python-headless in its place it is measured too)"
        )
    if corrected_clips:
        console.print(corrections_of(scores))
    if json_path is not None:
        json_path.write_text(json.dumps(asdict(scores)), "utf-8")


if __name__ == "__main__":
    typer.run(main)
