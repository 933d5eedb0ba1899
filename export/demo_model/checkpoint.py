"""The state of a training run, on disk and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from transformers import Sam2Model, Sam2VideoModel


@dataclass
class TrainingState:
    """All that the next step depends on, besides the batch, which the step number decides."""

    model: Sam2Model | Sam2VideoModel
    average: (
        Sam2Model | Sam2VideoModel
    )  # exponential moving average of the weights: what is shipped
    heads: nn.Module
    optimizer: Optimizer
    choices: np.random.Generator  # draws that are made in the loop, not in the batch
    step: int = 0
    trained_seconds: float = 0.0


def save_checkpoint(state: TrainingState, path: Path) -> None:
    """Written beside and moved into place: a run killed while saving keeps the earlier one."""
    content: dict[str, Any] = {
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "heads": state.heads.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "choices": state.choices.bit_generator.state,
        "torch_rng": torch.get_rng_state(),
        "step": state.step,
        "trained_seconds": state.trained_seconds,
    }
    if torch.cuda.is_available():
        content["cuda_rng"] = torch.cuda.get_rng_state_all()
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    unfinished.replace(path)


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Bring `state` to where the checkpoint was written."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    state.model.load_state_dict(content["model"])
    state.average.load_state_dict(content["average"])
    state.heads.load_state_dict(content["heads"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.choices.bit_generator.state = content["choices"]
    torch.set_rng_state(content["torch_rng"])
    if "cuda_rng" in content and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["cuda_rng"])
    state.step = content["step"]
    state.trained_seconds = content["trained_seconds"]
