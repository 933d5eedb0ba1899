"""The scenarios through the running server: its answers are those of Meta's own predictor."""

from collections.abc import Iterator
from typing import Any

import pytest

from export.repository import assemble_repository
from tests.models.video.answers import compare
from tests.models.video.reference import OPTIONS
from tests.models.video.scenarios import RUNS, Scenario
from tests.raw_client import RawClient
from tests.running_server import RunningServer
from tests.server.video_session import ServerSession

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.fixture(scope="module")
def client(video_reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawClient]:
    folder = tmp_path_factory.mktemp("video-server")
    assemble_repository(video_reference.onnx_dir, folder / "repository")
    with RunningServer(folder / "repository", folder / "state", "--no-probe") as server:
        yield RawClient(server, "grpc")


@pytest.mark.parametrize(
    ("scenario", "as_cond"),
    RUNS,
    ids=[f"{scenario.name}, {'corrections stick' if c else 'as Meta'}" for scenario, c in RUNS],
)
def test_the_answers_are_metas(
    client: RawClient, video_reference: Any, scenario: Scenario, as_cond: bool
) -> None:
    expected = video_reference.metas_answers(scenario, as_cond)
    options = {**OPTIONS, **scenario.options, "add_all_frames_to_correct_as_cond": as_cond}
    session = ServerSession(client, video_reference.files[scenario.frames], **options)
    difference = compare(expected, scenario.play(session))
    session.close()
    assert difference.is_within_bounds, difference
    assert all(session.complete)
