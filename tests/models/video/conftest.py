"""Meta's predictor with weights that make every rule count, and our graphs of the same weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.models.video.answers import Answer
from tests.models.video.clips import clip, write_clip
from tests.models.video.local_session import LIMITS, LocalSession, OnnxGraphs
from tests.models.video.meta_predictor import (
    MetaSession,
    build_predictor,
    set_options,
    shift_scores,
)
from tests.models.video.scenarios import FRAMES, LONG_FRAMES, SCENARIOS, Scenario

IMAGE_SIZE = 256
# The options of ours that Meta's predictor has in its constructor, under other names or with other defaults.
META_OPTIONS = ("fill_hole_area", "non_overlap_masks", "max_cond_frames_in_attn")


@dataclass
class Reference:
    """Meta's predictor, the graphs of its weights, and clips of both lengths."""

    predictor: Any
    onnx_dir: Path
    folders: dict[int, Path]
    files: dict[int, list[bytes]]
    graphs: OnnxGraphs
    encoded: dict[bytes, Any] = field(default_factory=dict)

    def metas_answers(self, scenario: Scenario, as_cond: bool) -> list[Answer]:
        """What Meta's predictor answers."""
        chosen = {"fill_hole_area": 8, "non_overlap_masks": False, "max_cond_frames_in_attn": -1}
        set_options(
            self.predictor,
            add_all_frames_to_correct_as_cond=as_cond,
            **{name: scenario.options.get(name, value) for name, value in chosen.items()},
        )
        return scenario.play(MetaSession(self.predictor, self.folders[scenario.frames]))

    def local_session(self, scenario: Scenario, as_cond: bool, **changes: Any) -> LocalSession:
        """Our session logic over ONNX Runtime."""
        options = {"add_all_frames_to_correct_as_cond": as_cond, **scenario.options, **changes}
        return LocalSession(
            self.graphs, IMAGE_SIZE, self.files[scenario.frames], self.encoded, LIMITS, **options
        )


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Built, calibrated on one scenario so that a part of its scores is negative, saved and exported."""
    pytest.importorskip("sam2.build_sam", reason="needs rf-sam-2, hydra-core and iopath")
    from export.__main__ import export_graphs
    from export.checkpoint import Memory, load_checkpoint

    folder = tmp_path_factory.mktemp("video-reference")
    torch.set_grad_enabled(False)
    predictor = build_predictor(IMAGE_SIZE)
    files = {length: clip(length) for length in (FRAMES, LONG_FRAMES)}
    folders = {n: write_clip(data, folder / f"clip-{n}") for n, data in files.items()}
    calibration = [
        score
        for scenario in SCENARIOS[:6]
        for answer in scenario.play(MetaSession(predictor, folders[scenario.frames]))
        for score in answer.scores
        if score is not None and abs(score) != 10
    ]
    shift_scores(predictor, calibration)
    checkpoint = folder / "sam2.1_hiera_tiny.pt"
    torch.save({"model": predictor.state_dict()}, checkpoint)
    loaded = load_checkpoint(str(checkpoint), image_size=IMAGE_SIZE, memory=Memory())
    onnx_dir = folder / "onnx"
    onnx_dir.mkdir()
    export_graphs(loaded, onnx_dir, "fp32", "cpu", Console(quiet=True))
    return Reference(predictor, onnx_dir, folders, files, OnnxGraphs(onnx_dir))
