"""The session's server with a front before it: one without keys, one with the keys of two tenants."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running_front import RunningFront
from tests.running_server import RunningServer

ALICE = "test-key-of-alice-0123456789abcdef"
BOB = "test-key-of-bob-0123456789ABCDEF_-"


@pytest.fixture(scope="session")
def front(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFront]:
    """Without keys, as on one's own machine."""
    with RunningFront(server.grpc_url, tmp_path_factory.mktemp("front")) as running:
        yield running


@pytest.fixture(scope="session")
def keyed_front(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFront]:
    """With a key each for alice and bob, at a rate that no test reaches by accident."""
    folder = tmp_path_factory.mktemp("keyed_front")
    keys = folder / "api_keys"
    keys.write_text(f"# NAME KEY [TENANT]\nalice {ALICE}\nbob {BOB} guests\n")
    options = ("--api-keys", str(keys), "--requests-per-second", "1000", "--burst", "10000")
    with RunningFront(server.grpc_url, folder, *options) as running:
        yield running


def log_lines(running: RunningFront) -> list[dict]:
    """The front's log."""
    return [json.loads(line) for line in running.output().splitlines() if line.startswith("{")]


def written_keys(folder: Path, text: str) -> str:
    """A file with API keys."""
    path = folder / "api_keys"
    path.write_text(text)
    return str(path)
