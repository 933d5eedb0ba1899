"""Sessions: order, fairness, commit or nothing, bounds and ends; over graphs that take no time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from session_steps import StepLimits
from session_table import SessionTable, TableLimits
from tracking import TrackingOptions
from video_commands import Command
from video_errors import (
    CancelledStepError,
    InvalidStepError,
    NotHeldError,
    OverloadedError,
    SessionExistsError,
)
from video_service import Step, VideoService
from video_settings import ServiceLimits

from tests.models.video.fake_graphs import HW, FakeGraphs

STEP_LIMITS = StepLimits(
    max_objects_per_session=3,
    max_prompted_frames=2,
    max_points_per_object=4,
    max_objects_per_call=2,
    frame_bytes_per_session=1000,
    frame_files_per_session=40,
    session_features=2,
)
TABLE_LIMITS = TableLimits(
    max_sessions=3,
    tenant_percent=50,
    session_idle_seconds=60,
    memory_budget_bytes=10_000_000,
    memory_window_frames=6,
    memory_history_frames=20,
    pointer_window_frames=30,
)
SERVICE_LIMITS = ServiceLimits(
    max_session_id_bytes=256,
    max_pending_steps=4,
    max_concurrent_steps=2,
    max_pending_bytes=1000,
    tenant_percent=50,
)


class FakeVideo:
    """A video of five frames, which nobody decodes."""

    num_frames, original_hw, size_bytes = 5, HW, 1000

    def __init__(self) -> None:
        self.is_closed = False

    def dispose(self) -> None:
        self.is_closed = True


class World:
    """A service over fake graphs, with a clock that stands still."""

    def __init__(
        self,
        table: TableLimits = TABLE_LIMITS,
        service: ServiceLimits = SERVICE_LIMITS,
        step: StepLimits = STEP_LIMITS,
    ) -> None:
        self.now = 0.0
        self.graphs = FakeGraphs()
        self.videos: list[FakeVideo] = []
        self.table = SessionTable(table, lambda: self.now)
        self.service = VideoService(
            self.table, self.graphs.run, self.graphs.encode, service, step, open_video=self.open
        )

    async def open(self, data: bytes, is_cancelled: Any) -> Any:
        self.videos.append(FakeVideo())
        if data == b"no video":
            raise InvalidStepError("video: expected one")
        return self.videos[-1]

    async def do(self, session_id: str, name: str, cancelled: Any = None, **given: Any) -> Any:
        async def show(command: Command, answer: Any, state: Any, session: Any) -> Any:
            return answer

        command = Command(session_id, name, **given)
        return await self.service.run(Step(command, cancelled or (lambda: False), show))

    async def click(self, session_id: str, frame: int = 0, object_id: int = 1, **given: Any) -> Any:
        return await self.do(
            session_id,
            "prompt",
            frame_index=frame,
            object_id=object_id,
            image=b"%d" % frame,
            point_coords=np.array([[3 + object_id, 4]], np.float32),
            point_labels=np.array([1], np.int32),
            **given,
        )

    async def track(self, session_id: str, frame: int, **given: Any) -> Any:
        return await self.do(session_id, "track", frame_index=frame, image=b"%d" % frame, **given)

    def held(self, session_id: str) -> Any:
        """All that a session remembers, to compare."""
        state = self.table.find(session_id).state
        return (
            {
                object_id: {
                    name: dict(store) if isinstance(store, dict) else store
                    for name, store in vars(memory.copy()).items()
                    if not name.startswith(("forgotten", "tracked"))
                }
                | {
                    "forward": list(memory.tracked_forward),
                    "backward": list(memory.tracked_backward),
                }
                for object_id, memory in state.objects.items()
            },
            list(state.files),
            list(state.features),
        )


def test_steps_of_a_session_go_in_order_of_arrival() -> None:
    async def story() -> list[int]:
        world, order = World(), []
        await world.do("a", "start")
        await world.click("a")

        async def noted(frame: int) -> None:
            await world.track("a", frame)
            order.append(frame)

        await asyncio.gather(*(noted(frame) for frame in (3, 1, 2, 4)))
        return order

    assert asyncio.run(story()) == [3, 1, 2, 4]


def test_a_session_that_asks_for_much_waits_after_every_step() -> None:
    async def story() -> list[str]:
        world = World(service=replace(SERVICE_LIMITS, max_concurrent_steps=1))
        order: list[str] = []
        for session_id in "ab":
            await world.do(session_id, "start")
            await world.click(session_id)

        async def noted(session_id: str, frame: int) -> None:
            await world.track(session_id, frame)
            order.append(session_id)

        many = [noted("a", frame) for frame in (1, 2, 3)]
        await asyncio.gather(*many, noted("b", 1), noted("b", 2))
        return order

    assert asyncio.run(story()) == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize("graph", ["encode", "sam2_memory_attention", "sam2_video_decoder"])
def test_a_step_that_fails_leaves_nothing_behind(graph: str) -> None:
    async def story() -> None:
        world = World()
        await world.do("a", "start")
        await world.click("a")
        await world.track("a", 1)
        before = world.held("a")

        async def fail(what: str) -> None:
            if what == graph:
                raise RuntimeError("broken")

        world.graphs.before = fail
        with pytest.raises(RuntimeError, match="broken"):
            await world.track("a", 2)
        assert world.held("a") == before
        world.graphs.before = None
        await world.track("a", 2)

    asyncio.run(story())


def test_a_step_cancelled_midway_stops_and_leaves_nothing_behind() -> None:
    async def story() -> list[str]:
        world = World()
        await world.do("a", "start")
        await world.click("a")
        await world.track("a", 1)
        before, world.graphs.calls = world.held("a"), []
        gone = False

        async def leave(what: str) -> None:
            nonlocal gone
            gone = gone or what == "sam2_memory_attention"

        world.graphs.before = leave
        with pytest.raises(CancelledStepError):
            await world.track("a", 2, cancelled=lambda: gone)
        assert world.held("a") == before
        return world.graphs.calls

    calls = asyncio.run(story())
    assert "sam2_memory_attention" in calls
    assert "sam2_video_decoder" not in calls


def test_too_many_steps_of_a_session_are_refused() -> None:
    async def story() -> list[Any]:
        world = World()
        await world.do("a", "start")
        await world.click("a")
        steps = (world.track("a", frame) for frame in range(1, 7))
        return await asyncio.gather(*steps, return_exceptions=True)

    outcomes = asyncio.run(story())
    assert [isinstance(o, OverloadedError) for o in outcomes] == [False] * 4 + [True] * 2
    assert "max_pending_steps" in str(outcomes[-1])


def test_too_many_waiting_bytes_are_refused() -> None:
    async def story() -> Any:
        world = World()
        await world.do("a", "start")
        with pytest.raises(OverloadedError, match="max_pending_bytes"):
            await world.do("a", "track", frame_index=0, image=b"0" * 1001)
        return world.service.pending_steps

    assert asyncio.run(story()) == 0


def test_the_next_frame_is_encoded_while_one_is_tracked() -> None:
    async def story() -> list[str]:
        world = World()
        await world.do("a", "start")
        await world.click("a")
        world.graphs.calls = []
        await asyncio.gather(world.track("a", 1), world.track("a", 2))
        assert world.service.counts.encoded_ahead == 1
        return world.graphs.calls

    calls = asyncio.run(story())
    second_encode = [n for n, what in enumerate(calls) if what == "encode"][1]
    assert second_encode < len(calls) - 1 - calls[::-1].index("sam2_memory_attention")
    assert calls.count("encode") == 2


def test_sessions_expire_and_their_ids_are_free_again() -> None:
    async def story() -> None:
        world = World()
        await world.do("a", "start")
        with pytest.raises(SessionExistsError):
            await world.do("a", "start")
        world.now = 61
        with pytest.raises(NotHeldError, match="60 idle seconds"):
            await world.click("a")
        await world.do("a", "start")
        assert world.table.counts.expired_sessions == 1

    asyncio.run(story())


def test_a_session_too_many_is_refused() -> None:
    async def story() -> None:
        world = World()
        for session_id in "abc":
            await world.do(session_id, "start")
        with pytest.raises(OverloadedError, match="max_sessions"):
            await world.do("d", "start")
        await world.do("b", "close")
        await world.do("d", "start")

    asyncio.run(story())


def test_replaced_weights_end_the_session() -> None:
    async def story() -> None:
        world = World()
        await world.do("a", "start")
        await world.click("a")
        world.graphs.matches = False
        with pytest.raises(NotHeldError, match="reloaded with other weights"):
            await world.track("a", 1)
        with pytest.raises(NotHeldError, match="start it again"):
            await world.track("a", 1)
        assert world.table.counts.retired_sessions == 1

    asyncio.run(story())


def test_a_long_stream_keeps_so_many_memories_and_pointers() -> None:
    async def story() -> list[int]:
        world = World()
        await world.do("a", "start")
        await world.click("a")
        sizes = []
        for frame in range(1, 200):
            answer = await world.track("a", frame)
            assert answer.memory_complete
            sizes.append(world.table.size_bytes)
        memory = world.table.find("a").state.objects[1]
        assert len(memory.non_cond) == 20
        assert len(memory.pointers) == 30
        assert len(world.table.find("a").state.files) == 40
        # Frames are forgotten where a prompt would have needed them, and the answer says so.
        answer = await world.click("a", 40, object_id=1)
        assert not answer.memory_complete
        return sizes

    sizes = asyncio.run(story())
    assert max(sizes[60:]) - min(sizes[60:]) <= 3 * 128 + 200


def test_the_budget_takes_memories_then_files_then_the_session_idle_longest() -> None:
    async def story() -> None:
        measured = World()
        await measured.do("a", "start")
        await measured.click("a")
        for frame in range(1, 16):
            await measured.track("a", frame)
        full = measured.table.size_bytes
        files = measured.table.find("a").state.files_bytes
        world = World(replace(TABLE_LIMITS, memory_budget_bytes=2 * full))
        for session_id in "abc":
            world.now += 1
            await world.do(session_id, "start")
            await world.click(session_id)
            for frame in range(1, 16):
                await world.track(session_id, frame)
            assert world.table.size_bytes <= 2 * full
        assert len(world.table.find("a").state.objects[1].non_cond) == 6
        assert world.table.counts.evicted_memories > 0
        assert files > 0
        small = World(replace(TABLE_LIMITS, memory_budget_bytes=full + full // 8))
        for session_id in "abc":
            small.now += 1
            await small.do(session_id, "start")
            await small.click(session_id)
            for frame in range(1, 16):
                await small.track(session_id, frame)
            assert small.table.size_bytes <= full + full // 8
        assert small.table.counts.evicted_files > 0
        assert small.table.counts.evicted_sessions > 0
        with pytest.raises(NotHeldError):
            small.table.find("a")

    asyncio.run(story())


def test_a_step_that_fits_no_budget_is_refused() -> None:
    async def story() -> None:
        world = World(replace(TABLE_LIMITS, memory_budget_bytes=100))
        await world.do("a", "start")
        with pytest.raises(OverloadedError, match="memory_budget_bytes"):
            await world.click("a")
        assert world.table.size_bytes == 0

    asyncio.run(story())


def test_limits_of_a_session_are_named() -> None:
    async def story() -> None:
        world = World()
        await world.do("a", "start")
        for object_id in range(3):
            await world.click("a", object_id=object_id)
        with pytest.raises(InvalidStepError, match="max_objects_per_session"):
            await world.click("a", object_id=3)
        await world.click("a", 1, object_id=0)
        with pytest.raises(InvalidStepError, match="max_prompted_frames"):
            await world.click("a", 2, object_id=0)
        for _ in range(3):
            await world.click("a", 1, object_id=0, clear_old_points=False)
        with pytest.raises(InvalidStepError, match="max_points_per_object"):
            await world.click("a", 1, object_id=0, clear_old_points=False)

    asyncio.run(story())


def test_objects_of_one_shape_share_calls_and_those_of_another_do_not() -> None:
    async def story() -> list[tuple[str, int]]:
        world = World(step=replace(STEP_LIMITS, max_objects_per_call=3))
        await world.do("a", "start")
        await world.click("a", 0, object_id=1)
        await world.click("a", 0, object_id=2)
        await world.click("a", 1, object_id=1)
        await world.click("a", 0, object_id=3)
        world.graphs.batches = []
        await world.track("a", 2)
        return world.graphs.batches

    batches = asyncio.run(story())
    attention = sorted(n for graph, n in batches if graph == "sam2_memory_attention")
    assert attention == [1, 2]
    assert [n for graph, n in batches if graph == "sam2_video_decoder"] == [3]
    assert [n for graph, n in batches if graph == "sam2_memory_encoder"][-1] == 3


def test_memories_of_prompts_are_encoded_before_their_features_go() -> None:
    async def story() -> Any:
        world = World(step=replace(STEP_LIMITS, frame_bytes_per_session=0))
        await world.do("a", "start", options=TrackingOptions(num_frames=9))
        for frame in (0, 1):
            await world.click("a", frame)
        for frame in (2, 3):
            await world.click("a", frame, object_id=2)
        return await world.track("a", 4)

    assert list(asyncio.run(story()).outputs) == [1, 2]


def test_a_frame_that_is_prompted_for_all_objects_needs_no_image_again() -> None:
    async def story() -> list[str]:
        world = World(step=replace(STEP_LIMITS, session_features=1, frame_bytes_per_session=0))
        await world.do("a", "start")
        await world.click("a", 0)
        await world.track("a", 1)
        with pytest.raises(NotHeldError, match="frame 0"):
            await world.do(
                "a", "prompt", frame_index=0, object_id=1, box=np.array([1, 1, 5, 5], np.float32)
            )
        await world.do("a", "track", frame_index=0)
        return world.graphs.calls

    assert asyncio.run(story()).count("encode") == 2


def track_without_image(world: World, frame: int) -> Any:
    return world.do("a", "track", frame_index=frame)


async def click_without_image(world: World, frame: int) -> Any:
    point = {"point_coords": np.array([[3, 4]], np.float32), "point_labels": np.ones(1, np.int32)}
    return await world.do("a", "prompt", frame_index=frame, object_id=1, **point)


def test_a_session_with_a_video_needs_no_images_and_knows_its_length() -> None:
    async def story() -> None:
        world = World()
        await world.do("a", "start", video=b"video")
        assert world.table.find("a").options.num_frames == 5
        assert world.table.size_bytes == 1000
        await click_without_image(world, 0)
        for frame in (1, 2, 4, 3):
            await track_without_image(world, frame)
        with pytest.raises(InvalidStepError, match="num_frames 5, got 5"):
            await track_without_image(world, 5)
        with pytest.raises(InvalidStepError, match="image: not expected"):
            await world.track("a", 0)
        assert world.table.find("a").state.files == {}
        await world.do("a", "reset")
        assert world.table.find("a").state.video is world.videos[0]
        await world.do("a", "close")
        assert world.videos[0].is_closed

    asyncio.run(story())


def test_the_next_frame_of_a_video_is_encoded_ahead() -> None:
    async def story() -> list[str]:
        world = World()
        await world.do("a", "start", video=b"video")
        await click_without_image(world, 0)
        world.graphs.calls = []
        await asyncio.gather(*(track_without_image(world, frame) for frame in (1, 2)))
        assert world.service.counts.encoded_ahead == 1
        return world.graphs.calls

    assert asyncio.run(story()).count("encode") == 2


def test_fewer_frames_may_be_asked_for_and_not_more() -> None:
    async def story() -> None:
        world = World()
        await world.do("a", "start", video=b"video", options=TrackingOptions(num_frames=3))
        assert world.table.find("a").options.num_frames == 3
        with pytest.raises(InvalidStepError, match="num_frames: expected at most the video's 5"):
            await world.do("b", "start", video=b"video", options=TrackingOptions(num_frames=6))
        assert world.videos[1].is_closed
        assert len(world.table) == 1

    asyncio.run(story())


def test_a_video_that_cannot_be_opened_starts_nothing() -> None:
    async def story() -> None:
        world = World()
        with pytest.raises(InvalidStepError, match="video: expected"):
            await world.do("a", "start", video=b"no video")
        assert len(world.table) == 0
        with pytest.raises(CancelledStepError):
            await world.do("a", "start", lambda: bool(world.videos[1:]), video=b"video")
        assert len(world.table) == 0
        assert world.videos[1].is_closed
        await world.do("a", "start")
        with pytest.raises(SessionExistsError):
            await world.do("a", "start", video=b"video")
        assert len(world.videos) == 2  # not opened in vain

    asyncio.run(story())


def test_videos_count_in_the_budget_and_go_with_their_session() -> None:
    async def story() -> None:
        world = World(replace(TABLE_LIMITS, memory_budget_bytes=2500))
        for session_id in "abc":
            world.now += 1
            await world.do(session_id, "start", video=b"video")
        assert [video.is_closed for video in world.videos] == [True, False, False]
        with pytest.raises(NotHeldError):
            await world.do("a", "status")
        world.now += 61
        world.table.expire()
        assert all(video.is_closed for video in world.videos)
        small = World(replace(TABLE_LIMITS, memory_budget_bytes=999))
        with pytest.raises(OverloadedError, match="memory_budget_bytes"):
            await small.do("a", "start", video=b"video")
        assert len(small.table) == 0
        assert small.videos[0].is_closed

    asyncio.run(story())


def test_the_bytes_of_a_waiting_video_count() -> None:
    async def story() -> None:
        world = World()
        with pytest.raises(OverloadedError, match="video: as many bytes.*max_pending_bytes"):
            await world.do("a", "start", video=b"0" * 1001)

    asyncio.run(story())
