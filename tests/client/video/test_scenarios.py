"""The scenarios through the public client: what it sends, and leaves out, changes nothing.

What they are held against are requests that carry every image (tests/server/video_session.py), whose answers
are Meta's (tests/server/test_video_scenarios.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from triton_sam2 import AsyncSAM2VideoClient, SAM2VideoClient

from export.repository import assemble_repository
from tests.client.video.client_session import ClientSession, answer_of
from tests.models.video.answers import Answer, compare
from tests.models.video.clips import clip
from tests.models.video.reference import OPTIONS
from tests.models.video.scenarios import FRAMES, LONG_FRAMES, SCENARIOS, Scenario
from tests.raw_client import RawClient
from tests.running_server import RunningServer
from tests.server.video_session import ServerSession

pytestmark = [pytest.mark.server, pytest.mark.slow]

# Against Meta's predictor itself; the others only against requests that are held against it elsewhere.
HANDFUL = {
    "box and click",
    "mask, backward",
    "correction, then from the start",
    "removed object",
    "cleared prompts",
}


@pytest.fixture(scope="module")
def files() -> dict[int, list[bytes]]:
    return {length: clip(length) for length in (FRAMES, LONG_FRAMES)}


def assert_equal(expected: list[Answer], got: list[Answer]) -> None:
    for one, two in zip(expected, got, strict=True):
        assert (one.frame, one.object_ids, one.scores) == (two.frame, two.object_ids, two.scores)
        assert np.array_equal(one.logits, two.logits)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_client_changes_nothing(
    server: RunningServer, files: dict[int, list[bytes]], scenario: Scenario
) -> None:
    raw = ServerSession(RawClient(server, "grpc"), files[scenario.frames], **scenario.options)
    expected = scenario.play(raw)
    raw.close()
    with SAM2VideoClient(server.grpc_url) as client:
        session = ClientSession(client, files[scenario.frames], **scenario.options)
        got = scenario.play(session)
        session.close()
    assert_equal(expected, got)


def test_http_and_asyncio_give_the_same(
    server: RunningServer, files: dict[int, list[bytes]]
) -> None:
    over: dict[str, list[Answer]] = {}
    for url in (f"grpc://{server.grpc_url}", f"http://{server.http_url}"):
        with SAM2VideoClient(url) as client:
            session = ClientSession(client, files[FRAMES])
            over[url[:4]] = [session.points(0, 1, [[150, 110]], [1]), *session.track()]
            session.close()

    async def awaited() -> list[Answer]:
        async with AsyncSAM2VideoClient(server.grpc_url) as client:
            state = await client.init_state(files[FRAMES])
            first = await client.add_new_points_or_box(
                state, 0, 1, [[150, 110]], [1], formats="logits"
            )
            frames = client.propagate_in_video(state, formats="logits")
            got = [answer_of(first), *[answer_of(frame) async for frame in frames]]
            await client.close_state(state)
            return got

    over["asyncio"] = asyncio.run(awaited())
    assert [answer.frame for answer in over["grpc"]] == [0, *range(FRAMES)]
    assert_equal(over["grpc"], over["http"])
    assert_equal(over["grpc"], over["asyncio"])


@pytest.fixture(scope="module")
def reference_server(
    video_reference: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("video-client")
    assemble_repository(video_reference.onnx_dir, folder / "repository")
    with RunningServer(folder / "repository", folder / "state", "--no-probe") as running:
        yield running


@pytest.mark.parametrize("name", sorted(HANDFUL))
def test_the_answers_are_metas(
    reference_server: RunningServer, video_reference: Any, name: str
) -> None:
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == name)
    expected = video_reference.metas_answers(scenario, True)
    with SAM2VideoClient(reference_server.grpc_url) as client:
        folder = video_reference.folders[scenario.frames]
        session = ClientSession(client, folder, **OPTIONS | dict(scenario.options))
        difference = compare(expected, scenario.play(session))
        session.close()
    assert difference.is_within_bounds, difference
