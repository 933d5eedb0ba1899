"""Train the demo model's memory on clips: `python -m export.demo_model.video.train --help`."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from export.demo_model.checkpoint import TrainingState, save_checkpoint
from export.demo_model.model import WEIGHTS_DIR
from export.demo_model.training_run import (
    ProgressLog,
    batches_of,
    optimizer_of,
    progress_of,
    resumed,
)
from export.demo_model.video.clip_pool import BatchShape, ClipBatch, ClipBatches, ClipPool
from export.demo_model.video.model import (
    choose_trained,
    load_video_model,
    new_video_model,
    save_video_model,
    start_at_image_features,
)
from export.demo_model.video.steps import ClipSchedule, PlaceHead, clip_loss
from export.demo_model.video.tracking import Tracking

_log = logging.getLogger("train-demo-video")
_CHOICE_STREAM = 9


@dataclass(frozen=True)
class VideoTrainingOptions:
    output_dir: Path
    minutes: float = 90.0
    steps: int | None = None
    stop_after: int | None = None  # steps; the schedule stays that of the whole run
    image_weights: Path = WEIGHTS_DIR
    init: Path | None = None  # weights with a memory to go on from
    seed: int = 0
    learning_rate: float = 1e-3
    clips: int = 2
    objects: int = 3
    pool_clips: int = 800
    pool_frames: int = 16
    workers: int = 1
    threads: int = 1
    save_every_minutes: float = 2.0
    schedule: ClipSchedule | None = None  # None: the one that fits the learning rate

    @property
    def checkpoint_path(self) -> Path:
        return self.output_dir / "checkpoint.pt"


def new_state(options: VideoTrainingOptions, pool: ClipPool) -> TrainingState:
    """A fresh run, or the checkpoint in the output folder if there is one."""
    torch.manual_seed(options.seed)
    if options.init:
        model = load_video_model(options.init)
    else:
        model = new_video_model(options.seed, options.image_weights)
        frames = pool.window(0, np.arange(options.pool_frames))
        embed = torch.from_numpy(frames.image_embed).float()
        start_at_image_features(model, Tracking(model).without_memory(embed))
    trained = choose_trained(model)
    head = PlaceHead(int(model.hidden_dim))
    parameters = [*trained.values(), *head.parameters()]
    state = TrainingState(
        model=model,
        average=copy.deepcopy(model).eval(),
        heads=head,
        optimizer=optimizer_of(
            parameters, options.learning_rate, weight_decay=0.01, second_moment_decay=0.98
        ),
        choices=np.random.default_rng([_CHOICE_STREAM, options.seed]),
    )
    return resumed(state, options.checkpoint_path)


def _be_nice(_worker: int) -> None:
    os.nice(3)  # the optimiser goes first: clips are made ahead of time anyway
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(
        "medium"
    )  # BF16 products where the CPU has them: 3 x as fast


def batches_from(
    pool: ClipPool, options: VideoTrainingOptions, frames: int, first_step: int
) -> Iterator[ClipBatch]:
    shape = BatchShape(options.clips, options.objects, frames)
    clips = ClipBatches(pool, options.seed, shape)
    return batches_of(clips, first_step, workers=options.workers, ahead=6, begin_worker=_be_nice)


class Steps:
    """Training steps: several batches at once, each in a thread of its own, and one update."""

    def __init__(self, state: TrainingState, options: VideoTrainingOptions) -> None:
        head = state.heads
        if not isinstance(head, PlaceHead):
            raise TypeError(f"heads: expected PlaceHead, got {type(head).__name__}")
        self._state, self._seed, self._head = state, options.seed, head
        self._schedule = options.schedule or ClipSchedule(options.learning_rate)
        self._tracking = Tracking(state.model)
        self._learning = [p for p in state.model.parameters() if p.requires_grad]
        self._averaged = [
            average
            for average, parameter in zip(
                state.average.parameters(), state.model.parameters(), strict=True
            )
            if parameter.requires_grad
        ]
        self._threads = ThreadPoolExecutor(
            options.threads, initializer=torch.set_num_threads, initargs=(1,)
        )

    def _gradients(
        self, number: int, batch: ClipBatch, progress: float
    ) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        choices = np.random.default_rng([_CHOICE_STREAM, self._seed, number])
        loss, figures = clip_loss(
            self._tracking,
            self._head,
            batch,
            choices,
            progress=progress,
            schedule=self._schedule,
        )
        parameters = [*self._learning, *self._head.parameters()]
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return found, figures

    def step(self, batches: Sequence[ClipBatch], progress: float) -> dict[str, float]:
        """Update what learns, and its moving average."""
        state, count = self._state, len(batches)
        rate = self._schedule.learning_rate(progress, state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        numbers = range(state.step * count, (state.step + 1) * count)
        found = list(self._threads.map(self._gradients, numbers, batches, [progress] * count))
        parameters = [*self._learning, *self._head.parameters()]
        for parameter, parts in zip(
            parameters, zip(*(f[0] for f in found), strict=True), strict=True
        ):
            parameter.grad = torch.stack(parts).mean(0)
        gradient = torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
        state.optimizer.step()
        state.step += 1
        decay = min(0.998, (1 + state.step) / (20 + state.step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averaged, self._learning, 1 - decay)
        means: dict[str, list[float]] = {}
        for _, figures in found:
            for name, value in figures.items():
                means.setdefault(name, []).append(value)
        return {
            **{name: float(np.mean(values)) for name, values in means.items()},
            "gradient": gradient.item(),
            "rate": rate,
        }


def train(options: VideoTrainingOptions) -> TrainingState:
    """Run to the end of the schedule: `steps` if given, else `minutes` of training time."""
    options.output_dir.mkdir(parents=True, exist_ok=True)
    pool = ClipPool(
        options.output_dir / "pool", options.pool_clips, options.pool_frames, options.seed
    )
    state = new_state(options, pool)
    steps = Steps(state, options)
    schedule = options.schedule or ClipSchedule(options.learning_rate)
    progress_log = ProgressLog(25)
    saved = state.trained_seconds
    batches: Iterator[ClipBatch] = iter(())
    length = 0

    def progress() -> float:
        return progress_of(state, options)

    def save() -> None:
        save_checkpoint(state, options.checkpoint_path)
        save_video_model(state.average, options.output_dir / "weights", options.image_weights)

    while progress() < 1 and state.step != options.stop_after:
        started = time.monotonic()
        if schedule.frames(progress()) != length:
            length = schedule.frames(progress())
            batches = batches_from(pool, options, length, state.step * options.threads)
        figures = steps.step(list(islice(batches, options.threads)), progress())
        state.trained_seconds += time.monotonic() - started
        progress_log.add(state, {**figures, "frames": length}, progress())
        if state.trained_seconds - saved > 60 * options.save_every_minutes:
            save()
            saved = state.trained_seconds
    save()
    return state


def main(  # noqa: PLR0917 - one parameter per option
    output_dir: Annotated[Path, typer.Option(help="Checkpoint, clips and weights go here.")],
    minutes: Annotated[float, typer.Option(help="Length of the schedule.")] = 90.0,
    steps: Annotated[int | None, typer.Option(help="Length in steps, instead of minutes.")] = None,
    init: Annotated[Path | None, typer.Option(help="Weights with a memory to go on from.")] = None,
    seed: Annotated[int, typer.Option(help="Weights, clips, batches.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine.")] = 1e-3,
    clips: Annotated[int, typer.Option(help="Clips per step.")] = 2,
    objects: Annotated[int, typer.Option(help="Objects per clip.")] = 3,
    pool_clips: Annotated[int, typer.Option(help="Different training clips, 5 MB each.")] = 800,
    workers: Annotated[int, typer.Option(help="Processes that make clips.")] = 1,
    threads: Annotated[int, typer.Option(help="Batches per step, each in a thread.")] = 2,
) -> None:
    """Train the memory. Run the same command again to resume where it was stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    train(
        VideoTrainingOptions(
            output_dir=output_dir,
            minutes=minutes,
            steps=steps,
            init=init,
            seed=seed,
            learning_rate=learning_rate,
            clips=clips,
            objects=objects,
            pool_clips=pool_clips,
            workers=workers,
            threads=threads,
        )
    )


if __name__ == "__main__":
    typer.run(main)
