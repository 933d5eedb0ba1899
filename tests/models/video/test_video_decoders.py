"""Videos in processes of their own: the same frames as without, ended when they must, replaced afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from google.protobuf import text_format
from open_video import OpenVideo, VideoLimits
from PIL import Image
from pixel_types import PIXEL_TYPES
from square_pictures import bicubic_square
from tritonclient.grpc import model_config_pb2
from video_decoders import VideoDecoders
from video_errors import (
    CancelledStepError,
    InvalidStepError,
    NotHeldError,
    OverloadedError,
    UnsupportedStepError,
)

from tests.models.video.movies import (
    FRAMES,
    decoded,
    movie,
    of_declared_size,
    pictures,
    with_a_large_picture_inside,
)

CONFIG = Path(__file__).parents[3] / "models/sam2_video/config.pbtxt"
SIDE = 64
MOVIE = movie(b_frames=2)


def limits(**changed: int) -> VideoLimits:
    config = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig())
    names = VideoLimits.__dataclass_fields__
    values = {name: int(config.parameters[name].string_value) for name in names}
    return VideoLimits(**values | changed)


def expected(data: bytes, number: int) -> np.ndarray:
    frame = bicubic_square(Image.fromarray(decoded(data)[number]), SIDE)
    return PIXEL_TYPES["TYPE_FP16"].of(frame.astype(np.float32))


def never() -> bool:
    return False


def story(tell: Callable[[VideoDecoders], Any], **changed: int) -> Any:
    """Runs a coroutine with decoders, of which nothing is left afterwards."""

    async def told() -> Any:
        decoders = VideoDecoders(limits(**changed), SIDE)
        try:
            return await tell(decoders)
        finally:
            decoders.shut_down()

    try:
        return asyncio.run(told())
    finally:
        workers = [c for c in psutil.Process().children() if "video_worker.py" in str(c.cmdline())]
        assert workers == []


def test_frames_are_those_of_the_file_squashed_as_metas_loader_does() -> None:
    async def tell(decoders: VideoDecoders) -> None:
        video = await decoders.open(MOVIE, never)
        assert (video.num_frames, video.original_hw) == (FRAMES, (48, 64))
        for number in (0, 1, 2, 17, 16, 15, 3, FRAMES - 1):
            picture = await decoders.read(video, number, never)
            assert np.array_equal(picture.resized, expected(MOVIE, number))
            assert picture.original_hw == (48, 64)
        assert decoders.counts.video_frames == 8
        assert decoders.counts.video_decoders_started == 1

    story(tell)


def test_backward_tracking_decodes_a_group_of_pictures_once() -> None:
    data = movie(b_frames=0, key_every=12, options={"x264-params": "scenecut=0"})

    async def tell(decoders: VideoDecoders) -> int:
        video = await decoders.open(data, never)
        for number in reversed(range(FRAMES)):
            picture = await decoders.read(video, number, never)
            assert np.array_equal(picture.resized, expected(data, number))
        return decoders.counts.video_decoded_frames

    # The last frame comes with the eleven before it; frames that are read ahead are among them.
    assert story(tell) <= FRAMES + 12


def test_more_videos_than_processes_go_on_in_turns() -> None:
    async def tell(decoders: VideoDecoders) -> None:
        videos = [await decoders.open(MOVIE, never) for _ in range(4)]
        for number in (0, 1, 9, 8):
            frames = [decoders.read(video, number, never) for video in videos]
            for picture in await asyncio.gather(*frames):
                assert np.array_equal(picture.resized, expected(MOVIE, number))
            assert decoders.processes <= 2
        assert decoders.counts.video_decoders_displaced > 0
        for video in videos:
            decoders.close(video)
        assert decoders.processes == 0

    story(tell, max_video_decoders=2)


@pytest.mark.parametrize(
    ("ended_by", "error", "words"),
    [
        (signal.SIGKILL, OverloadedError, "was ended from outside; try again in a moment"),
        (signal.SIGSEGV, InvalidStepError, "a sound file, got one that ended its decoder .SIGSEGV"),
        (signal.SIGPROF, InvalidStepError, "max_video_decode_seconds"),
    ],
)
def test_a_process_that_dies_is_replaced(ended_by: int, error: type[Exception], words: str) -> None:
    """While it is idle nobody notices; in the middle of a frame the answer says whose fault it was."""

    async def tell(decoders: VideoDecoders) -> None:
        video = await decoders.open(MOVIE, never)
        await decoders.read(video, 3, never)
        end(video, ended_by)
        picture = await decoders.read(video, 4, never)
        assert np.array_equal(picture.resized, expected(MOVIE, 4))
        pid = stopped(video)
        reading = asyncio.ensure_future(decoders.read(video, 20, never))
        await asyncio.sleep(0.2)
        os.kill(pid, ended_by)
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(error, match=words):
            await reading
        picture = await decoders.read(video, 20, never)
        assert np.array_equal(picture.resized, expected(MOVIE, 20))

    story(tell)


def test_nobody_waiting_ends_a_decode() -> None:
    async def tell(decoders: VideoDecoders) -> None:
        video = await decoders.open(MOVIE, never)
        pid, gone = stopped(video), threading.Event()
        reading = asyncio.ensure_future(decoders.read(video, 20, gone.is_set))
        await asyncio.sleep(0.1)
        gone.set()
        with pytest.raises(CancelledStepError):
            await reading
        assert not psutil.pid_exists(pid)
        with pytest.raises(CancelledStepError):
            await decoders.open(MOVIE, gone.is_set)
        assert (await decoders.read(video, 20, never)).resized.any()

    story(tell)


def test_a_session_that_ends_takes_its_process_with_it() -> None:
    async def tell(decoders: VideoDecoders) -> None:
        idle, busy = [await decoders.open(MOVIE, never) for _ in range(2)]
        pid = idle.worker_pid
        decoders.close(idle)
        assert not psutil.pid_exists(pid)
        pid = stopped(busy)
        reading = asyncio.ensure_future(decoders.read(busy, 20, never))
        await asyncio.sleep(0.1)
        decoders.close(busy)
        with pytest.raises(OverloadedError):
            await reading
        assert not psutil.pid_exists(pid)
        with pytest.raises(NotHeldError):
            await decoders.read(busy, 1, never)

    story(tell)


@pytest.mark.parametrize(
    ("data", "changed", "words"),
    [
        (b"", {}, "0 bytes"),
        (b"text", {}, "none of them"),
        (MOVIE, {"max_video_bytes": len(MOVIE) - 1}, "max_video_bytes"),
        (MOVIE, {"max_video_frames": FRAMES - 1}, "max_video_frames"),
        (MOVIE, {"max_video_pixels": 64 * 48 - 1}, "max_video_pixels"),
        (of_declared_size(60_000, 60_000), {}, "max_video_pixels"),
    ],
)
def test_what_cannot_be_opened_is_refused_and_leaves_nothing(data, changed, words) -> None:
    async def tell(decoders: VideoDecoders) -> None:
        with pytest.raises(InvalidStepError, match=words):
            await decoders.open(data, never)
        assert decoders.processes == 0

    story(tell, **changed)


def test_a_frame_that_does_not_decode_costs_no_process() -> None:
    data = with_a_large_picture_inside(5, 60_000, 60_000)

    async def tell(decoders: VideoDecoders) -> None:
        video = await decoders.open(data, never)
        pid = video.worker_pid
        for number in range(video.num_frames):
            await decoders.read(video, number, never)
        assert video.worker_pid == pid

    story(tell)


def test_memory_beyond_the_limit_is_a_refusal() -> None:
    large = movie(pictures(2, 3840, 2160), options={"preset": "ultrafast"})

    async def tell(decoders: VideoDecoders) -> None:
        with pytest.raises(InvalidStepError, match="max_video_memory_bytes"):
            await decoders.open(large, never)

    story(tell, max_video_memory_bytes=8 << 20)


def test_without_pyav_frames_can_be_sent_and_video_files_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "av.py").write_text("raise ImportError(\"No module named 'av'\")\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    async def tell(decoders: VideoDecoders) -> None:
        with pytest.raises(UnsupportedStepError, match="PyAV.*No module named 'av'.*as image"):
            await decoders.open(MOVIE, never)

    story(tell)


def test_the_process_ends_with_its_parent() -> None:
    async def tell(decoders: VideoDecoders) -> None:
        video = await decoders.open(MOVIE, never)
        worker = psutil.Process(video.worker_pid)
        assert video._worker is not None
        video._worker.end_input()
        gone, _ = psutil.wait_procs([worker], timeout=30)
        assert gone

    story(tell)


def end(video: OpenVideo, ended_by: int) -> None:
    process = psutil.Process(video.worker_pid)
    process.send_signal(ended_by)
    psutil.wait_procs([process], timeout=10)


def stopped(video: OpenVideo) -> int:
    """As good as a decode that never ends; the process's id."""
    pid = video.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid
