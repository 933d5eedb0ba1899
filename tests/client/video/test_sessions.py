"""Sessions as the public client keeps them: frames sent once, iterators left early, lost ones replayed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from triton_sam2 import (
    AsyncSAM2VideoClient,
    InvalidInputError,
    RetryPolicy,
    SAM2VideoClient,
    ServerUnavailableError,
    SessionExistsError,
    SessionNotFoundError,
    TrackedFrame,
    VideoState,
)
from triton_sam2._transports.grpc_stream import StreamingGrpcTransport
from triton_sam2._transports.rpc import InferRequest, Tensors

from tests.client.video.client_session import answer_of
from tests.client.video.movies import encoded, turned
from tests.models.video.answers import Answer
from tests.models.video.clips import clip
from tests.raw_client import RawClient, bytes_tensor
from tests.running_server import RunningServer
from tests.server.video_session import ServerSession

pytestmark = [pytest.mark.server, pytest.mark.slow]

FRAMES = 7
FILES = clip(FRAMES)


class Recorded(StreamingGrpcTransport):
    """Remembers which frames' images were sent; fails as it is told after the server has answered."""

    def __init__(self, client: SAM2VideoClient) -> None:
        settings = client._calls.settings
        super().__init__(settings.endpoint, settings.credentials)
        self.images: list[int] = []
        self.commands: list[str] = []
        self.failures: list[Exception] = []
        opened = self.open_stream

        def open_stream(headers):
            stream = opened(headers)
            send = stream.send

            def note_and_send(request):
                self.note(request)
                send(request)

            stream.send = note_and_send
            return stream

        self.open_stream = open_stream

    def note(self, request: InferRequest) -> None:
        self.commands.append(request.inputs["command"][0].decode())
        if "image" in request.inputs:
            self.images.append(int(request.inputs["frame_index"][0]))

    def infer(self, request: InferRequest) -> Tensors:
        self.note(request)
        answer = super().infer(request)
        if self.failures:
            raise self.failures.pop(0)
        return answer


@pytest.fixture
def client(server: RunningServer) -> Iterator[SAM2VideoClient]:
    with SAM2VideoClient(server.grpc_url) as client:
        client._transport = Recorded(client)
        yield client


def lose(server: RunningServer, state: VideoState) -> None:
    """What a restart does to a session."""
    RawClient(server, "grpc").infer(
        "sam2_video",
        session_id=bytes_tensor(state.session_id.encode()),
        command=bytes_tensor(b"close"),
    )


def click(client: SAM2VideoClient, state: VideoState, frame: int = 0, obj: int = 1, x: int = 150):
    return answer_of(
        client.add_new_points_or_box(state, frame, obj, [[x, 110]], [1], formats="logits")
    )


def track(client: SAM2VideoClient, state: VideoState, *arguments, **options) -> list[Answer]:
    frames = client.propagate_in_video(state, *arguments, formats="logits", **options)
    return [answer_of(frame) for frame in frames]


def same(expected: list[Answer], got: list[Answer]) -> bool:
    return [(a.frame, a.object_ids) for a in expected] == [
        (a.frame, a.object_ids) for a in got
    ] and all(np.array_equal(a.logits, b.logits) for a, b in zip(expected, got, strict=True))


def test_each_frame_is_sent_once(client):
    state = client.init_state(FILES)
    click(client, state, 3)
    track(client, state)
    track(client, state, 3, reverse=True)
    click(client, state, 2, 2)
    track(client, state, 0)
    assert sorted(client._transport.images) == list(range(FRAMES))
    assert client.status(state)["frames_held"] == list(range(FRAMES))
    client.close_state(state)


def test_a_frame_that_the_server_holds_no_more_is_sent_again(client):
    state = client.init_state(FILES)
    for frame in range(FRAMES):
        state.note_sent(frame)  # as if all had been sent, and forgotten since
    click(client, state)
    assert [a.frame for a in track(client, state)] == list(range(FRAMES))
    assert sorted(client._transport.images) == list(range(FRAMES))
    client.close_state(state)


def test_an_iterator_left_early_goes_on_where_it_was(client):
    state = client.init_state(FILES)
    click(client, state)
    expected = track(client, state)
    client.reset_state(state)
    click(client, state)
    got = []
    for frame in client.propagate_in_video(state, formats="logits"):
        got.append(answer_of(frame))
        if frame.frame_idx == 2:
            break
    got += track(client, state, resume=True)
    assert same(expected, got)
    assert track(client, state, resume=True) == []
    client.close_state(state)


def test_what_an_early_end_left_under_way_is_known_afterwards(client, server):
    """The frame behind the last one may have been tracked or not: the replay does what happened."""
    state = client.init_state(FILES)
    click(client, state, 1)
    frames = client.propagate_in_video(state, formats=())
    for _ in range(2):
        next(frames)
    frames.close()
    # A correction on the frame that was under way depends on whether it was tracked.
    corrected = [click(client, state, 3, x=90), *track(client, state, 3, reverse=True)]
    account = client.status(state)["objects"]["1"]["tracked_forward"]
    lose(server, state)
    with pytest.raises(SessionNotFoundError, match="start it again"):
        client.add_new_points_or_box(state, 0, 1, [[1, 1]], [1])
    # All but the end of it, and then the same.
    state.journal = state.journal[:-2]
    client.replay(state)
    again = [click(client, state, 3, x=90), *track(client, state, 3, reverse=True)]
    assert same(corrected, again)
    assert client.status(state)["objects"]["1"]["tracked_forward"] == account
    client.close_state(state)


def test_a_prompt_between_two_frames_acts_from_the_next_one_on(client, server):
    state = client.init_state(FILES)
    got = [click(client, state)]
    for frame in client.propagate_in_video(state, formats="logits"):
        got.append(answer_of(frame))
        if frame.frame_idx == 3:
            got.append(click(client, state, 3, 1, 60))
    client.close_state(state)
    raw = ServerSession(RawClient(server, "grpc"), FILES)
    expected = [raw.points(0, 1, [[150, 110]], [1]), *raw.track(most=3)]
    expected += [raw.points(3, 1, [[60, 110]], [1]), *raw.track(start=4)]
    raw.close()
    assert same(expected, got)


def test_a_lost_session_is_replayed(client, server):
    def begin(state: VideoState) -> None:
        click(client, state)
        click(client, state, 0, 2, 60)
        track(client, state, None, 3)
        client.add_new_mask(state, 2, 3, np.eye(240, 320) > 0)
        click(client, state, 3, 1, 200)
        client.remove_object(state, 2)
        track(client, state, 2, 2)
        client.clear_all_prompts_in_frame(state, 3, 1)

    def go_on(state: VideoState) -> list[Answer]:
        return [*track(client, state, 3), *track(client, state, 5, reverse=True)]

    whole, lost = client.init_state(FILES), client.init_state(FILES)
    begin(whole)
    begin(lost)
    lose(server, lost)
    with pytest.raises(SessionNotFoundError):
        track(client, lost)
    client.replay(lost)
    assert same(go_on(whole), go_on(lost))
    for state in (whole, lost):
        client.close_state(state)


def test_a_prompt_whose_answer_was_lost_did_not_happen(client):
    """Sent again it would be decoded over its own answer."""
    state = client.init_state(FILES)
    click(client, state)
    expected = click(client, state, x=60)
    client.reset_state(state)
    click(client, state)
    client._transport.failures = [ServerUnavailableError("Socket closed")]
    with pytest.raises(ServerUnavailableError, match="Socket closed"):
        click(client, state, x=200)
    assert client._transport.failures == []
    assert same([expected], [click(client, state, x=60)])
    client.close_state(state)


def test_what_was_not_taken_on_is_sent_again_and_what_may_have_been_is_not(client):
    client._calls.settings.retry = RetryPolicy(first_pause_s=0.01)
    state = client.init_state(FILES)
    busy = ServerUnavailableError(
        "session_id: 4 steps of this session wait already (max_pending_steps 4)"
    )
    broken = ServerUnavailableError("Connection reset by peer")
    client._transport.failures = [busy, busy]
    client._transport.commands.clear()
    click(client, state)
    assert client._transport.commands == ["prompt"] * 3
    client._transport.failures = [broken]
    client.reset_state(state)  # twice is as well as once: yet its outcome is made certain
    client.close_state(state)


def test_a_session_begun_at_the_second_try_is_ours(client):
    client._calls.settings.retry = RetryPolicy(first_pause_s=0.01)
    client._transport.failures = [ServerUnavailableError("Socket closed")]
    state = client.init_state(FILES)
    with pytest.raises(SessionExistsError, match="session_id"):
        client.init_state(FILES, session_id=state.session_id)
    client.close_state(state)


def test_a_session_is_taken_up_by_another_client(client, server):
    state = client.init_state(FILES, fill_hole_area=3)
    click(client, state)
    expected = track(client, state)
    client._transport.images.clear()
    with SAM2VideoClient(f"http://{server.http_url}") as other:
        taken = other.attach(state.session_id, FILES)
        assert (taken.num_frames, taken.object_ids) == (FRAMES, [1])
        assert taken.options["fill_hole_area"] == 3
        assert same(expected, track(other, taken))
        with pytest.raises(InvalidInputError, match="begun elsewhere"):
            other.replay(taken)
    assert client._transport.images == []
    client.close_state(state)
    with pytest.raises(SessionNotFoundError):
        client.attach(state.session_id, FILES)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_upload_gives_what_the_same_file_decoded_here_gives(server, protocol):
    """One numbering, upright on both sides, the same pixels; and no image travels."""
    address = server.grpc_url if protocol == "grpc" else server.http_url
    content, got = turned(encoded(20), 90), {}
    with SAM2VideoClient(f"{protocol}://{address}") as client:
        for upload in (False, True):
            state = client.init_state(content, upload=upload)
            assert state.num_frames == 20
            first = client.add_new_points_or_box(state, 9, 1, [[20, 30]], [1], formats="logits")
            got[upload] = [
                answer_of(first),
                *track(client, state),
                *track(client, state, reverse=True),
            ]
            assert state.original_hw == (96, 64)
        assert same(got[False], got[True])
        expected = track(client, state, 15)
        taken = client.attach(state.session_id)
        assert (taken.num_frames, len(track(client, taken))) == (20, 11)
        lose(server, state)
        client.replay(state)
        assert same(expected, track(client, state, 15))
        with pytest.raises(InvalidInputError, match="frame_index: expected less than"):
            client.add_new_points_or_box(state, 20, 1, [[1, 1]], [1])
        client.close_state(state)
        with pytest.raises(InvalidInputError, match="^video: expected"):
            client.init_state(b"no video" * 100, upload=True)


def test_a_camera_gives_its_frames_one_by_one(client):
    asked = itertools.count()

    def camera():
        for file in FILES:
            next(asked)
            yield file

    whole = client.init_state(FILES)
    state = client.init_state(camera())
    assert state.num_frames is None
    click(client, state)
    click(client, whole)
    assert next(asked) == 1  # one frame was taken, no more
    frames = client.propagate_in_video(state, formats="logits")
    got = [answer_of(frame) for frame in itertools.islice(frames, FRAMES)]
    assert list(frames) == []
    assert [a.frame for a in got] == list(range(FRAMES))
    assert all(a.masks.shape == (1, 240, 320) for a in got)
    with pytest.raises(InvalidInputError, match="iterator"):
        client.replay(state)
    client.close_state(state)
    client.close_state(whole)


def test_asyncio_takes_asynchronous_cameras_and_is_cancelled(server):
    async def camera() -> AsyncIterator[bytes]:
        for file in FILES:
            await asyncio.sleep(0)
            yield file

    async def play() -> list[TrackedFrame]:
        async with AsyncSAM2VideoClient(server.grpc_url) as client:
            state = await client.init_state(camera())
            await client.add_new_points_or_box(state, 0, 1, [[150, 110]], [1])
            got = []

            async def follow() -> None:
                async for frame in client.propagate_in_video(state, resume=True, formats="rle"):
                    got.append(frame)
                    if len(got) == 3:
                        await asyncio.sleep(3600)

            task = asyncio.create_task(follow())
            while len(got) < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async for frame in client.propagate_in_video(state, resume=True, formats="rle"):
                got.append(frame)
            await client.close_state(state)
            return got

    got = asyncio.run(play())
    assert [frame.frame_idx for frame in got] == list(range(FRAMES))
    assert all(frame.rle(1)["size"] == [240, 320] for frame in got)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_errors_name_what_is_wrong(server, protocol):
    address = server.grpc_url if protocol == "grpc" else server.http_url
    with SAM2VideoClient(f"{protocol}://{address}") as client:
        state = client.init_state(FILES)
        with pytest.raises(InvalidInputError, match="no object has a prompt"):
            next(client.propagate_in_video(state))
        with pytest.raises(InvalidInputError, match="frame_idx: the video ends before frame 7"):
            client.add_new_points_or_box(state, FRAMES, 1, [[1, 1]], [1])
        with pytest.raises(InvalidInputError, match="mask: expected"):
            client.add_new_mask(state, 0, 1, np.ones((3, 4)))
        click(client, state)
        with pytest.raises(InvalidInputError, match="start_frame_idx: expected less than"):
            next(client.propagate_in_video(state, FRAMES))
        assert client.remove_object(state, 5) == [1]
        with pytest.raises(InvalidInputError, match="object_id: expected an object"):
            client.remove_object(state, 5, strict=True)
        frame = client.add_new_points_or_box(state, 0, 1, [[150, 110]], [1])
        frame_idx, object_ids, masks = frame
        assert (frame_idx, object_ids, masks.shape) == (0, [1], (1, 1, 240, 320))
        client.close_state(state)
        client.close_state(state)  # that it is gone already is no error
        with pytest.raises(SessionNotFoundError):
            client.status(state)
        with pytest.raises(SessionNotFoundError):
            client.attach("nobody's")
