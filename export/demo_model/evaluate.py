"""Measure the demo model, or a server that serves it: `python -m export.demo_model.evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export.demo_model.baselines import score_baselines
from export.demo_model.photos import coins_scene
from export.demo_model.predictors import Predictor
from export.demo_model.scoring import ScoredScene, heldout_scenes, score_scene
from export.demo_model.server_predictor import open_predictor

# bars of the demo model: mean IoU that it should reach on held-out scenes
BARS = {"centre click": 0.87, "random click": 0.82, "box": 0.89}
COINS_BAR, WORST_COIN_BAR = 0.92, 0.8
SIZE_BINS = ((0.003, 0.01), (0.01, 0.04), (0.04, 1.0))  # share of the image


@dataclass
class Scores:
    """IoU of every object by every method, in the same order throughout."""

    areas: list[float] = field(default_factory=list)  # share of the image
    ious: dict[str, list[float]] = field(default_factory=dict)

    def add(self, scene: ScoredScene, ious: Mapping[str, Sequence[float]]) -> None:
        self.areas.extend(float(mask.mean()) for mask in scene.masks)
        for name, values in ious.items():
            self.ious.setdefault(name, []).extend(values)

    def mean(self, name: str, least: float = 0.0, most: float = 1.0) -> float:
        """Mean IoU over objects of a size; NaN if there are none."""
        areas, ious = np.array(self.areas), np.array(self.ious[name])
        chosen = ious[(areas >= least) & (areas < most)]
        return float(chosen.mean()) if len(chosen) else float("nan")


def with_best_flood_fill(scores: Scores) -> Scores:
    """Of the flood fills, only the tolerance with the highest mean: the strongest opponent."""
    fills = [name for name in scores.ious if name.startswith("flood fill")]
    best = max(fills, key=scores.mean, default=None)
    kept = {name: v for name, v in scores.ious.items() if name not in fills or name == best}
    return Scores(scores.areas, kept)


def add_baselines_of(earlier: Scores, scores: Scores) -> Scores:
    """The classical methods of an earlier run on the same objects beside today's scores."""
    if earlier.areas != scores.areas:
        raise ValueError("earlier scores: expected those of the same scenes, got other objects")
    methods = {name: ious for name, ious in earlier.ious.items() if name not in scores.ious}
    return Scores(scores.areas, {**scores.ious, **methods})


def score(predictor: Predictor, scenes: Sequence[ScoredScene], baselines: bool) -> Scores:
    scores = Scores()
    for scene in track(scenes, "Segmenting", console=Console(stderr=True), transient=True):
        opponents = score_baselines(scene) if baselines else {}
        scores.add(scene, {**score_scene(predictor, scene), **opponents})
    return with_best_flood_fill(scores)


def report(scenes: Scores, coins: Scores) -> Table:
    """One row per method, one column per size of object, then the coins photograph."""
    table = Table(title=f"Mean IoU: {len(scenes.areas)} objects of held-out scenes; coins")
    table.add_column("prompt or method")
    headings = ["all"] + [
        f"{100 * least:g}-{100 * most:g} %" if most < 1 else f"> {100 * least:g} %"
        for least, most in SIZE_BINS
    ]
    for heading in [*headings, "bar", "coins", "worst coin"]:
        table.add_column(heading, justify="right")
    for name in scenes.ious:
        sizes = [scenes.mean(name)] + [scenes.mean(name, *size_bin) for size_bin in SIZE_BINS]
        on_coins = next((n for n in coins.ious if n == name), None)
        if on_coins is None and name.startswith("flood fill"):
            on_coins = next((n for n in coins.ious if n.startswith("flood fill")), None)
        cells = [f"{value:.3f}" for value in sizes]
        cells.append(f"{BARS[name]:.2f}" if name in BARS else "")
        if on_coins is None:
            cells += ["", ""]
        else:
            cells += [f"{coins.mean(on_coins):.3f}", f"{min(coins.ious[on_coins]):.3f}"]
        table.add_row(name, *cells)
    table.caption = (
        f"sizes in % of the image; bars for the coins by centre click: {COINS_BAR:.2f}, "
        f"worst {WORST_COIN_BAR:.2f}; flood fill with its best tolerance"
    )
    return table


def main(  # noqa: PLR0917 - one parameter per option
    weights: Annotated[Path | None, typer.Option(help="Folder of weights for torch.")] = None,
    url: Annotated[str | None, typer.Option(help="A running server instead of torch.")] = None,
    scenes: Annotated[int, typer.Option(help="Held-out scenes.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the held-out stream.")] = 0,
    baselines: Annotated[bool, typer.Option(help="Classical methods, too.")] = True,
    baselines_from: Annotated[
        Path | None, typer.Option(help="An earlier --json: take the classical methods from it.")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write every IoU here.")] = None,
) -> None:
    """Score held-out scenes and the coins photograph, and print one table."""
    predictor = open_predictor(weights, url)
    compute = baselines and baselines_from is None
    heldout = score(predictor, list(heldout_scenes(scenes, seed)), compute)
    coins = score(predictor, [coins_scene()], compute)
    if baselines_from is not None:
        earlier = json.loads(baselines_from.read_text(encoding="utf-8"))
        heldout = add_baselines_of(Scores(**earlier["scenes"]), heldout)
        coins = add_baselines_of(Scores(**earlier["coins"]), coins)
    Console(width=110).print(report(heldout, coins))
    if json_path is not None:
        document = {
            name: {"areas": scores.areas, "ious": scores.ious}
            for name, scores in (("scenes", heldout), ("coins", coins))
        }
        json_path.write_text(json.dumps(document) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
