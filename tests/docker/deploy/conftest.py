"""A real server with closed administrative calls, for the tests of the deployment."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docker.deploy.gateways import ALICE, BOB, Gateway, gateway_settings, running_gateway
from tests.running_front import RunningFront
from tests.running_server import RunningServer


@dataclass(frozen=True)
class ClosedServer:
    """A server as deployed: explicit model control, administrative calls behind a key."""

    running: RunningServer
    key: str


@pytest.fixture(scope="session")
def closed_server(
    demo_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClosedServer]:
    folder = tmp_path_factory.mktemp("closed")
    key = secrets.token_hex(32)
    key_file = folder / "admin_key"
    key_file.write_text(key)
    with RunningServer(
        demo_repository,
        folder / "state",
        *("--explicit-models", "--admin-key-file", str(key_file)),
    ) as running:
        yield ClosedServer(running, key)


@pytest.fixture(scope="session")
def front(
    closed_server: ClosedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFront]:
    """The front before that server, with a rate that no test reaches by accident."""
    folder = tmp_path_factory.mktemp("front")
    keys = folder / "api_keys"
    keys.write_text(f"alice {ALICE}\nbob {BOB}\n")
    options = ("--api-keys", str(keys), "--requests-per-second", "1000", "--burst", "10000")
    with RunningFront(closed_server.running.grpc_url, folder, *options) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(front: RunningFront, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway before that front."""
    directory = tmp_path_factory.mktemp("gateway")
    settings = gateway_settings(directory, front.http_url, front.grpc_url)
    with running_gateway(settings) as started:
        yield started
