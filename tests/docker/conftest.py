from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.launcher import Launcher
from tests.docker.small_repository import write_repository

StartLauncher = Callable[..., Launcher]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture
def start(tmp_path: Path, repository: Path) -> Iterator[StartLauncher]:
    """Starts launchers, each with a state directory of its own, and ends them after the test."""
    started: list[Launcher] = []

    def _start(*options: str, repository: Path = repository, **named: Any) -> Launcher:
        launcher = Launcher(repository, tmp_path / f"run{len(started)}", *options, **named)
        started.append(launcher)
        return launcher

    yield _start
    for launcher in started:
        launcher.end()
