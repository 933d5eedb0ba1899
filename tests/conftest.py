"""One real server for the session, with the small model in the box."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running_server import ROOT, RunningServer


@pytest.fixture(scope="session")
def demo_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model repository around the small model's ONNX files."""
    from export.repository import assemble_repository

    directory = tmp_path_factory.mktemp("repository") / "demo"
    assemble_repository(ROOT / "export/demo_model/onnx", directory)
    return directory


@pytest.fixture(scope="session")
def server(
    demo_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A real Triton server with the small model; shared, so tests leave it as they find it."""
    # Without the launcher's own probes, so that tests can count what happens in the cache.
    with RunningServer(demo_repository, tmp_path_factory.mktemp("server"), "--no-probe") as running:
        yield running


@pytest.fixture(scope="session")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX files of the small model with other weights: masks differ, nothing else does."""
    import torch

    from export.checkpoint import load_checkpoint

    directory = tmp_path_factory.mktemp("other")
    model = load_checkpoint(str(ROOT / "export/demo_model/weights")).model
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.std(correction=0) * torch.randn_like(parameter))
    model.save_pretrained(directory / "weights")
    command = [sys.executable, "-m", "export", "--checkpoint", str(directory / "weights")]
    subprocess.run([*command, "--onnx-only", str(directory / "onnx")], cwd=ROOT, check=True)
    return directory / "onnx"
