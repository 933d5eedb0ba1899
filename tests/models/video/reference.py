"""Meta's predictor with weights that make every rule count, and our graphs of the same weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from export.__main__ import export_graphs
from export.checkpoint import Memory, load_checkpoint
from tests.models.video.answers import Answer
from tests.models.video.clips import clip, write_clip
from tests.models.video.local_session import LIMITS, LocalSession, OnnxGraphs
from tests.models.video.meta_predictor import (
    MetaSession,
    build_predictor,
    calibrate,
    set_options,
)
from tests.models.video.scenarios import FRAMES, LONG_FRAMES, Scenario

IMAGE_SIZE = 256
# What scenarios run with unless they say otherwise.
OPTIONS = {"fill_hole_area": 0, "non_overlap_masks": False, "max_cond_frames_in_attn": -1}


@dataclass
class Reference:
    """Meta's predictor, the graphs of its weights, and clips of both lengths."""

    predictor: Any
    onnx_dir: Path
    folders: dict[int, Path]
    files: dict[int, list[bytes]]
    graphs: OnnxGraphs
    image_size: int
    encoded: dict[bytes, Any] = field(default_factory=dict)
    _answers: dict[tuple[str, bool], list[Answer]] = field(default_factory=dict)

    def metas_answers(self, scenario: Scenario, as_cond: bool) -> list[Answer]:
        """What Meta's predictor answers; computed once."""
        key = scenario.name, as_cond
        if key not in self._answers:
            self._answers[key] = self._ask_meta(scenario, as_cond)
        return self._answers[key]

    def _ask_meta(self, scenario: Scenario, as_cond: bool) -> list[Answer]:
        options = {**OPTIONS, **scenario.options}
        set_options(self.predictor, add_all_frames_to_correct_as_cond=as_cond, **options)
        with one_thread(), torch.inference_mode():
            return scenario.play(MetaSession(self.predictor, self.folders[scenario.frames]))

    def local_session(self, scenario: Scenario, as_cond: bool, **changes: Any) -> LocalSession:
        """Our session logic over ONNX Runtime."""
        options = {**OPTIONS, **scenario.options, **changes}
        options["add_all_frames_to_correct_as_cond"] = as_cond
        return LocalSession(
            self.graphs,
            self.image_size,
            self.files[scenario.frames],
            self.encoded,
            LIMITS,
            **options,
        )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: on a busy machine several wait for one another most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def build_reference(folder: Path, image_size: int = IMAGE_SIZE) -> Reference:
    """Meta's predictor, calibrated; its weights saved as Meta does, loaded and exported as a user would."""
    predictor = build_predictor(image_size)
    files = {length: clip(length) for length in (FRAMES, LONG_FRAMES)}
    folders = {
        length: write_clip(data, folder / f"clip-{length}") for length, data in files.items()
    }
    with one_thread():
        calibrate(predictor, folders[FRAMES])
    checkpoint = folder / "sam2.1_hiera_tiny.pt"
    torch.save({"model": predictor.state_dict()}, checkpoint)
    loaded = load_checkpoint(str(checkpoint), image_size=image_size, memory=Memory())
    onnx_dir = folder / "onnx"
    onnx_dir.mkdir()
    export_graphs(loaded, onnx_dir, "fp32", "cpu", Console(quiet=True))
    return Reference(predictor, onnx_dir, folders, files, OnnxGraphs(onnx_dir), image_size)
