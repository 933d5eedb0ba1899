"""One front with all tools before the session's server, one with keys; a host that has images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from front.tools.settings import TOOL_NAMES
from triton_sam2 import SAM2TritonClient, Segmentation

from tests.client.test_examples import PHOTO
from tests.front.conftest import ALICE, BOB
from tests.front.tools.image_site import Answer, ImageSite
from tests.raw_client import RawClient
from tests.running_front import RunningFront
from tests.running_server import RunningServer

TOKEN = "0123456789abcdef0123456789abcdef01234567"
COIN = (109.0, 199.0)
COIN_BOX = (80.0, 170.0, 140.0, 230.0)


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A picture of coins, as a file."""
    return PHOTO.read_bytes()


@pytest.fixture(scope="session")
def site(photo: bytes) -> Iterator[ImageSite]:
    """Label Studio, as far as its images go."""
    with ImageSite() as site:
        site.answers["/data/upload/1/coins.png"] = Answer(photo, authorization=f"Token {TOKEN}")
        yield site


@pytest.fixture(scope="session")
def tools_front(
    server: RunningServer, site: ImageSite, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFront]:
    """All tools, without keys."""
    folder = tmp_path_factory.mktemp("tools_front")
    options = ("--tools", ",".join(TOOL_NAMES), "--label-studio-url", site.url)
    environment = {"LABEL_STUDIO_API_KEY": TOKEN}
    with RunningFront(server.grpc_url, folder, *options, environment=environment) as running:
        yield running


@pytest.fixture(scope="session")
def keyed_tools_front(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFront]:
    """All tools, with a key each for alice and bob; images are fetched from nowhere."""
    folder = tmp_path_factory.mktemp("keyed_tools_front")
    keys = folder / "api_keys"
    keys.write_text(f"alice {ALICE}\nbob {BOB}\n")
    options = ("--tools", ",".join(TOOL_NAMES), "--api-keys", str(keys), "--burst", "10000")
    with RunningFront(server.grpc_url, folder, *options) as running:
        yield running


@pytest.fixture(scope="session")
def statistics(server: RunningServer) -> RawClient:
    """Triton's own, past the front."""
    return RawClient(server, "grpc")


@pytest.fixture(scope="session")
def clicked(server: RunningServer, photo: bytes) -> Segmentation:
    """Three masks of one click on a coin, by Triton itself."""
    with SAM2TritonClient(server.grpc_url) as client:
        return client.segment(photo, [COIN], [1], multimask_output=True)


@pytest.fixture(scope="session")
def boxed(server: RunningServer, photo: bytes) -> Segmentation:
    """The masks of a box round a coin, by Triton itself."""
    with SAM2TritonClient(server.grpc_url) as client:
        return client.segment(photo, box=np.array(COIN_BOX, np.float32), multimask_output=True)


def best_mask(result: Segmentation) -> np.ndarray:
    """The mask of the highest predicted IoU of the first object."""
    return result.best().masks[0, 0]
