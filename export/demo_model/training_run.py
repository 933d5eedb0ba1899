"""What training on stills and on clips have in common: the optimizer, batches, progress, resuming."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from export.demo_model.checkpoint import TrainingState, load_checkpoint

_log = logging.getLogger("train-demo")
_VERY_MANY_STEPS = 10_000_000


class Length(Protocol):
    """How long a run is: so many steps, or where that is None so many minutes of training time."""

    @property
    def steps(self) -> int | None: ...

    @property
    def minutes(self) -> float: ...


def progress_of(state: TrainingState, length: Length) -> float:
    """How far a run is, from 0 to 1."""
    if length.steps is not None:
        return state.step / length.steps
    return state.trained_seconds / (60 * length.minutes)


def optimizer_of(
    parameters: Sequence[nn.Parameter],
    learning_rate: float,
    *,
    weight_decay: float,
    second_moment_decay: float,
) -> torch.optim.Optimizer:
    """AdamW, which leaves biases and norms undecayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, second_moment_decay))


def resumed(state: TrainingState, checkpoint_path: Path) -> TrainingState:
    """A fresh state, brought to where the run's checkpoint was written if there is one."""
    if checkpoint_path.exists():
        load_checkpoint(state, checkpoint_path)
        _log.info("resumed at step %d", state.step)
    return state


def batches_of(
    dataset: Dataset[Any],
    first_step: int,
    *,
    workers: int,
    ahead: int,
    begin_worker: Callable[[int], None],
) -> Iterator[Any]:
    """Batches by their number, from `first_step` on, made by `workers` processes, `ahead` by each."""
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(first_step, _VERY_MANY_STEPS),
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),  # its own: or a resumed run would draw once more than it should
    )
    return iter(loader)


class ProgressLog:
    """Means of the figures since the last line, one line every so many steps."""

    def __init__(self, every: int = 100) -> None:
        self._every, self._figures = every, dict[str, list[float]]()
        self._since = time.monotonic()

    def add(self, state: TrainingState, figures: dict[str, float], progress: float) -> None:
        """One step's figures."""
        for name, value in figures.items():
            self._figures.setdefault(name, []).append(value)
        if state.step % self._every:
            return
        means = "  ".join(f"{n} {np.mean(v):.3g}" for n, v in sorted(self._figures.items()))
        pace = (time.monotonic() - self._since) / self._every * 1000
        _log.info("%3.0f %%  step %d  %s  %.0f ms/step", 100 * progress, state.step, means, pace)
        self._figures, self._since = {}, time.monotonic()
