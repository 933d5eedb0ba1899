"""Train the demo model on procedural scenes: `python -m export.demo_model.train --help`."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from export.demo_model.batches import Batch, PromptBatches, ScenePool
from export.demo_model.checkpoint import TrainingState, save_checkpoint
from export.demo_model.dense_heads import DenseHeads
from export.demo_model.model import build_model, load_model, save_model
from export.demo_model.predictors import TorchPredictor
from export.demo_model.scoring import ScoredScene, heldout_scenes, mean_scores
from export.demo_model.steps import Schedule, train_step
from export.demo_model.training_run import (
    ProgressLog,
    batches_of,
    optimizer_of,
    progress_of,
    resumed,
)

_log = logging.getLogger("train-demo")
_POOL_SCENE_SIZE = 320
_QUALITY_SEED = 1  # not the scenes of the final evaluation, which use seed 0


@dataclass(frozen=True)
class TrainingOptions:
    output_dir: Path
    minutes: float = 90.0
    steps: int | None = None
    stop_after: int | None = None  # steps; the schedule stays that of the whole run
    init: Path | None = None
    seed: int = 0
    device: str = "cpu"
    learning_rate: float = 4e-4
    images: int = 4
    objects: int = 8
    pool_scenes: int = 6000
    workers: int = 1
    save_every_minutes: float = 2.0
    quality_every_minutes: float = 10.0
    quality_scenes: int = 40

    @property
    def checkpoint_path(self) -> Path:
        return self.output_dir / "checkpoint.pt"


def new_state(options: TrainingOptions) -> TrainingState:
    """A fresh run, or the checkpoint in the output folder if there is one."""
    torch.manual_seed(options.seed)
    model = load_model(options.init) if options.init else build_model(options.seed)
    model = model.to(options.device).train()
    heads = DenseHeads(model.config.vision_config.fpn_hidden_size).to(options.device)
    parameters = [*model.parameters(), *heads.parameters()]
    state = TrainingState(
        model=model,
        average=copy.deepcopy(model).eval(),
        heads=heads,
        optimizer=optimizer_of(
            parameters, options.learning_rate, weight_decay=0.02, second_moment_decay=0.99
        ),
        choices=np.random.default_rng([options.seed, 5]),
    )
    return resumed(state, options.checkpoint_path)


def _be_nice(_worker: int) -> None:
    os.nice(5)  # the optimiser goes first: scenes are made ahead of time anyway


def batches_from(options: TrainingOptions, first_step: int) -> Iterator[Batch]:
    pool = ScenePool(
        options.output_dir / "pool", options.pool_scenes, _POOL_SCENE_SIZE, options.seed
    )
    dataset = PromptBatches(
        pool, options.pool_scenes, options.seed, options.images, options.objects
    )
    return batches_of(dataset, first_step, workers=options.workers, ahead=8, begin_worker=_be_nice)


def train(options: TrainingOptions) -> TrainingState:
    """Run to the end of the schedule: `steps` if given, else `minutes` of training time."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    state = new_state(options)
    schedule = Schedule(options.learning_rate)
    batches = batches_from(options, state.step)
    progress_log = ProgressLog()
    quality: list[ScoredScene] = []
    saved = measured = state.trained_seconds

    def progress() -> float:
        return progress_of(state, options)

    while progress() < 1 and state.step != options.stop_after:
        started = time.monotonic()
        batch = next(batches).to(torch.device(options.device))
        figures = train_step(state, batch, schedule, progress())
        state.trained_seconds += time.monotonic() - started
        progress_log.add(state, figures, progress())
        if state.trained_seconds - saved > 60 * options.save_every_minutes:
            save_checkpoint(state, options.checkpoint_path)
            saved = state.trained_seconds
        if state.trained_seconds - measured > 60 * options.quality_every_minutes:
            quality = quality or list(heldout_scenes(options.quality_scenes, _QUALITY_SEED))
            _log_quality(state, quality)
            save_model(state.average, options.output_dir / "weights")
            measured = state.trained_seconds
    save_checkpoint(state, options.checkpoint_path)
    save_model(state.average, options.output_dir / "weights")
    return state


def _log_quality(state: TrainingState, scenes: list[ScoredScene]) -> None:
    scores = mean_scores(TorchPredictor(state.average), scenes)
    line = "  ".join(f"{name} {score:.3f}" for name, score in scores.items())
    _log.info("held-out mean IoU at step %d:  %s", state.step, line)


def main(  # noqa: PLR0917 - one parameter per option
    output_dir: Annotated[Path, typer.Option(help="Checkpoint, scenes and weights go here.")],
    minutes: Annotated[float, typer.Option(help="Length of the schedule.")] = 90.0,
    steps: Annotated[int | None, typer.Option(help="Length in steps, instead of minutes.")] = None,
    init: Annotated[Path | None, typer.Option(help="Folder of weights to start from.")] = None,
    seed: Annotated[int, typer.Option(help="Weights, scenes, batches.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine.")] = 4e-4,
    images: Annotated[int, typer.Option(help="Images per step.")] = 4,
    objects: Annotated[int, typer.Option(help="Objects asked for per image.")] = 8,
    pool_scenes: Annotated[int, typer.Option(help="Different training scenes.")] = 6000,
    workers: Annotated[int, typer.Option(help="Processes that make scenes.")] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads of the training process.")] = 2,
    quality_every_minutes: Annotated[float, typer.Option(help="Between held-out scores.")] = 10.0,
) -> None:
    """Train the demo model. Run the same command again to resume where it was stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    train(
        TrainingOptions(
            output_dir=output_dir,
            minutes=minutes,
            steps=steps,
            init=init,
            seed=seed,
            device=device,
            learning_rate=learning_rate,
            images=images,
            objects=objects,
            pool_scenes=pool_scenes,
            workers=workers,
            quality_every_minutes=quality_every_minutes,
        )
    )


if __name__ == "__main__":
    typer.run(main)
