"""One real server for the session, with the small model in the box."""

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

# Before any test imports them: these report to their makers unless told otherwise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import pytest
from hypothesis import settings

from tests import tools
from tests.running_server import ROOT, RunningServer

# An example may take as long as it takes: no test counts on this machine's speed.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Below pytest's own summary, one line: what was skipped here, and what brings it."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    reasons = [str(report.longrepr[2]) for report in reporter.stats.get("skipped", [])]
    if line := tools.skipped_line([reason.removeprefix("Skipped: ") for reason in reasons]):
        reporter.write_line(line, yellow=True)


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
def paintera_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that has what Paintera asks for, round the small model."""
    from tests.paintera import small_repository

    folder = tmp_path_factory.mktemp("paintera")
    with RunningServer(small_repository(folder), folder / "state", "--no-probe") as running:
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
    target = ["--no-video", "--onnx-only", str(directory / "onnx")]
    subprocess.run([*command, *target], cwd=ROOT, check=True)
    return directory / "onnx"


@pytest.fixture(scope="session")
def video_reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Meta's own video predictor and our graphs of the same weights; half a minute in the making."""
    pytest.importorskip("sam2.build_sam", reason="needs rf-sam-2, hydra-core and iopath")
    from tests.models.video.reference import build_reference

    return build_reference(tmp_path_factory.mktemp("video-reference"))
