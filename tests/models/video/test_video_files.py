"""Frames of video files by number: those of a decoder that begins at the start, whatever the order."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from frame_index import FrameIndex
from PIL import Image
from upright_frames import TO_UPRIGHT, transposition_of
from video_containers import recognise_video
from video_errors import InvalidStepError
from video_files import VideoFile

from tests.models.video.movies import (
    FRAMES,
    HEIGHT,
    WIDTH,
    decoded,
    movie,
    of_declared_size,
    pictures,
    sound,
    with_a_damaged_picture_inside,
    with_a_large_picture_inside,
)
from tests.photographs import photograph

LIMITS = {"max_pixels": 1_000_000, "max_frames": 1000}


def opened(data: bytes, **changed) -> VideoFile:
    kind = recognise_video(data[:4096], len(data))
    return VideoFile(io.BytesIO(data), kind, **LIMITS | changed)


def read(video: VideoFile, number: int) -> np.ndarray:
    *_, (found, frame) = video.frames_until(number)
    assert found == number
    return np.asarray(video.picture_of(frame))


KINDS = {
    "h264 in MP4, B frames": {"b_frames": 3},
    "h264 in MP4, open groups": {"b_frames": 3, "options": {"x264-params": "open-gop=1"}},
    "h264 in MP4, no key frames": {"options": {"x264-params": "intra-refresh=1:keyint=8"}},
    "h264 in MOV, fragments": {
        "container": "mov",
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "h264 in Matroska": {"container": "matroska", "b_frames": 2},
    "h264 in AVI, B frames": {"container": "avi", "b_frames": 3},
    "h265 in MP4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "mpeg4 in AVI": {"codec": "mpeg4", "container": "avi"},
    "mpeg4 in MP4, B frames": {"codec": "mpeg4", "b_frames": 2},
    "motion JPEG in AVI": {"codec": "mjpeg", "container": "avi"},
    "vp8 in WebM, hidden frames": {
        "codec": "libvpx",
        "container": "webm",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "vp9 in WebM, hidden frames": {
        "codec": "libvpx-vp9",
        "container": "webm",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "ffv1 in Matroska": {"codec": "ffv1", "container": "matroska"},
    "a variable rate": {"times_ms": [n * 40 + 13 * (n % 3) + 900 * (n > 9) for n in range(FRAMES)]},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_in_any_order_is_the_one_of_its_number(name):
    data = movie(**KINDS[name])
    expected, video = decoded(data), opened(data)
    assert video.facts.num_frames == len(expected) == FRAMES
    numbers = [
        *range(FRAMES),
        *reversed(range(FRAMES)),
        *random.Random(1).sample(range(FRAMES), FRAMES),
        *(FRAMES - 1, 0, 0, FRAMES - 1),
    ]
    wrong = [n for n in numbers if not np.array_equal(read(video, n), expected[n])]
    assert wrong == []


def test_a_lossless_file_gives_its_frames():
    data = movie(codec="ffv1", container="matroska", pixel_format="bgr0")
    video = opened(data)
    for number, picture in enumerate(pictures()):
        assert np.array_equal(read(video, number), picture)


def test_going_on_decodes_one_frame_and_going_back_begins_at_a_key_frame():
    video = opened(movie(b_frames=0, key_every=8, options={"x264-params": "scenecut=0"}))
    assert [len(list(video.frames_until(number))) for number in range(FRAMES)] == [1] * FRAMES
    assert len(list(video.frames_until(FRAMES - 2))) == 7  # 16 … 22
    assert len(list(video.frames_until(1))) == 2


def test_an_index_from_before_spares_reading_the_file_through():
    data = movie()
    index = FrameIndex.from_bytes(opened(data).index.to_bytes())
    video = opened(data, index=index)
    assert video.index is index
    assert np.array_equal(read(video, 13), decoded(data)[13])


@pytest.mark.parametrize("matrix", TO_UPRIGHT)
def test_frames_are_upright(matrix):
    # Lossless and full colour, so that a turned picture is the turned original.
    options = {"x264-params": "qp=0"}
    data = movie(pictures(2), matrix=matrix, pixel_format="yuv444p", options=options)
    a, b, c, d = matrix
    stored = decoded(data)[1]
    shown = np.zeros((HEIGHT, WIDTH, 3) if a else (WIDTH, HEIGHT, 3), np.uint8)
    height, width = shown.shape[:2]
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    to_x, to_y = a * xs + c * ys, b * xs + d * ys
    shown[to_y - to_y.min(), to_x - to_x.min()] = stored[ys, xs]
    video = opened(data)
    assert (video.facts.height, video.facts.width) == (height, width)
    assert np.array_equal(read(video, 1), shown)


def test_a_phone_held_upright():
    """Stored lying on its side, to be turned clockwise: 270 degrees counterclockwise."""
    data = movie(rotation=-90)
    expected = np.asarray(Image.fromarray(decoded(data)[3]).transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(read(opened(data), 3), expected)


def test_a_slanted_display_matrix_is_refused():
    with pytest.raises(InvalidStepError, match="multiple of 90 degrees"):
        transposition_of(
            np.array([46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30], "<i4").tobytes()
        )


def test_an_odd_size_and_a_single_frame():
    data = movie(pictures(1, 63, 47), codec="libvpx", container="webm")
    video = opened(data)
    assert (video.facts.num_frames, video.facts.width, video.facts.height) == (1, 63, 47)
    assert np.array_equal(read(video, 0), decoded(data)[0])


@pytest.mark.parametrize(
    ("container", "options"),
    [("matroska", {}), ("mp4", {"movflags": "frag_keyframe+empty_moov"}), ("avi", {})],
)
def test_of_a_file_that_is_cut_short_those_frames_count_that_are_there(container, options):
    data = movie(container=container, b_frames=0, container_options=options)
    expected, video = decoded(data), opened(data[: len(data) * 3 // 5])
    count = video.facts.num_frames
    assert 1 < count < FRAMES
    # The last one may be cut itself, and shows what there is of it.
    assert all(np.array_equal(read(video, n), expected[n]) for n in range(count - 1))
    assert read(video, count - 1).shape == (HEIGHT, WIDTH, 3)


def test_a_damaged_frame_is_refused_alone():
    expected = decoded(movie(codec="mjpeg", container="avi"))
    video = opened(with_a_damaged_picture_inside(5))
    # Motion JPEG in an AVI is decoded once to be counted: as players do, the rest are numbered without it.
    assert video.facts.num_frames == FRAMES - 1
    assert np.array_equal(read(video, 4), expected[4])
    assert np.array_equal(read(video, 5), expected[6])


NOT_VIDEOS = {
    "nothing": (b"", "got 0 bytes"),
    "text": (b"a text file about a video\n" * 20, "none of them"),
    "a picture": (photograph("chelsea.png"), "a PNG picture; send pictures as image"),
    "a WebP picture": (b"RIFF\0\0\0\0WEBPVP8 " + bytes(99), "a WebP picture"),
    "a HEIC picture": (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC file"),
    "an MP3": (b"ID3" + bytes(99), "an MP3 file"),
    "a playlist": (b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", "a playlist"),
    "a concat list": (b"ffconcat version 1.0\nfile /etc/passwd\n", "none of them"),
    "a transport stream": ((b"G" + bytes(187)) * 4, "MPEG transport stream"),
    "base64": (b"AAAAIGZ0eXBpc29tAAACAGlzb21pc28y" * 9, "base64 text"),
    "a path": (b"/data/video.mp4", "look like a path"),
    "sound alone": (sound(), "a file of audio alone"),
    "no frames": (movie([]), "expected a video stream, got a file without any"),
    "an index that is cut off": (movie()[:700], "complete MP4 or MOV file.*cut"),
    "noise behind a right beginning": (
        b"\0\0\0\x20ftypisom" + bytes(range(256)) * 9,
        "complete MP4",
    ),
    "a Matroska file of noise": (b"\x1a\x45\xdf\xa3" + bytes(range(256)) * 9, "complete WebM"),
    "60,000 x 60,000": (
        of_declared_size(60_000, 60_000),
        "max_video_pixels., got none or a larger",
    ),
}


@pytest.mark.parametrize("name", NOT_VIDEOS)
def test_what_is_no_video_is_refused_by_name(name):
    data, words = NOT_VIDEOS[name]
    with pytest.raises(InvalidStepError, match=f"^video: .*{words}"):
        opened(data)


def test_a_picture_that_is_larger_than_declared_is_not_decoded():
    video = opened(with_a_large_picture_inside(5, 60_000, 60_000))
    expected = decoded(movie(codec="mjpeg", container="avi"))
    assert np.array_equal(read(video, 4), expected[4])
    assert video.facts.num_frames == FRAMES - 1


def test_more_frames_than_may_be_are_refused():
    for changed in ({}, {"codec": "mpeg4", "container": "avi"}):
        with pytest.raises(InvalidStepError, match="at most 10 frames .max_video_frames"):
            opened(movie(**changed), max_frames=10)


def test_numbers_are_places_in_time_not_times():
    index = FrameIndex.of_times([90, 10, 50, 20], key_times=[10, 50, 7])
    assert [index.number_at(time) for time in (10, 20, 50, 90, 91, 0, None)] == [
        0,
        1,
        2,
        3,
        *[None] * 3,
    ]
    assert index.keys_up_to(3) == (2, 0)
    assert index.keys_up_to(1) == (0,)
    assert FrameIndex.counted(5).keys_up_to(4) == (0,)
