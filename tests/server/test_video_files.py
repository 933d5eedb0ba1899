"""A whole video in one upload: the answers are those of its frames sent one by one, over gRPC and HTTP."""

from __future__ import annotations

import contextlib
import copy
import io
import threading
import time
import urllib.request
import uuid

import numpy as np
import psutil
import pytest
import tritonclient.grpc
from PIL import Image
from tritonclient.utils import np_to_triton_dtype

from tests.models.video.answers import Answer
from tests.models.video.clips import clip
from tests.models.video.movies import decoded, movie, of_declared_size, sound
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.photographs import opened, photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor
from tests.running_server import RunningServer
from tests.server.video_session import ServerSession

pytestmark = pytest.mark.server

FRAMES = 5
POINT = [[150, 110]]


class FileSession(ServerSession):
    """A session that is started with a video file; no step brings an image."""

    def __init__(self, client: RawClient, data: bytes, **options: np.ndarray) -> None:
        self._client = client
        self.session_id = uuid.uuid4().hex
        self.complete: list[bool] = []
        self.started = self.step("start", video=bytes_tensor(data), **options)
        self._files = [b""] * int(self.started["num_frames"][0])

    def image(self, frame: int) -> dict[str, np.ndarray]:
        return {}


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request, server):
    return RawClient(server, request.param)


@pytest.fixture(scope="module")
def film() -> bytes:
    """The tests' clip, at a variable rate and as a phone stores it: lying on its side."""
    upright = [np.asarray(opened(file)) for file in clip(FRAMES)]
    lying = [np.rot90(frame) for frame in upright]
    return movie(
        lying, matrix=(0, 1, -1, 0), b_frames=2, times_ms=[0, 30, 120, 130, 900], key_every=3
    )


@pytest.fixture(scope="module")
def files(film) -> list[bytes]:
    """Its frames as pictures without loss, upright."""
    pngs = []
    for frame in decoded(film):
        buffer = io.BytesIO()
        Image.fromarray(np.rot90(frame, -1)).save(buffer, "PNG")
        pngs.append(buffer.getvalue())
    return pngs


@pytest.fixture
def session(client, film):
    started = FileSession(client, film)
    yield started
    with contextlib.suppress(RefusedError):  # closed already
        started.close()


def refusal(call, *args, **kwargs) -> tuple[str, str]:
    with pytest.raises(RefusedError) as refused:
        call(*args, **kwargs)
    return refused.value.status, refused.value.message


def play(session: ServerSession) -> list[Answer]:
    """Both ways, and a correction in the middle."""
    answers = [session.points(2, 1, POINT, [1]), *session.track(2), *session.track(2, reverse=True)]
    answers += [session.points(1, 1, [[210, 150]], [0]), *session.track(0)]
    return answers


def test_the_answers_are_those_of_the_frames(client, film, files):
    by_file, by_frame = FileSession(client, film), ServerSession(client, files)
    for whole, single in zip(play(by_file), play(by_frame), strict=True):
        assert whole.frame == single.frame
        assert whole.logits.shape[1:] == np.asarray(opened(files[0])).shape[:2]
        assert np.array_equal(whole.logits, single.logits)
    assert all(by_file.complete)
    for session in (by_file, by_frame):
        session.close()


def test_what_is_known_of_a_video(session, film):
    height, width = (240, 320)
    assert session.started["num_frames"].tolist() == [FRAMES]
    assert session.started["original_hw"].tolist() == [height, width]
    assert session.started["session_bytes"][0] >= len(film)
    status = session.status()
    assert status["options"]["num_frames"] == FRAMES
    assert status["video"]["codec"] == "h264"
    assert (status["video"]["width"], status["video"]["height"]) == (width, height)
    assert status["bytes"]["video"] >= len(film)
    assert status["frames_held"] == []


def test_frame_by_frame_the_number_of_frames_is_what_was_said(client, files):
    session = ServerSession(client, files)
    assert session.step("reset")["num_frames"].tolist() == [FRAMES]
    session.close()
    session.step("start")
    assert session.step("reset")["num_frames"].tolist() == [-1]
    session.close()


NOT_VIDEOS = {
    "nothing": (b"", "0 bytes"),
    "text": (b"not a video, a text\n" * 99, "none of them"),
    "a picture": (photograph("chelsea.png"), "a PNG picture"),
    "sound alone": (sound(), "audio alone"),
    "no frames": (movie([]), "expected a video stream"),
    "cut short": (movie()[:600], "cut"),
    "60,000 x 60,000": (of_declared_size(60_000, 60_000), "max_video_pixels"),
    "noise": (b"\0\0\0\x20ftypisom" + np.random.default_rng(0).bytes(9999), "complete MP4"),
}


@pytest.mark.parametrize("name", NOT_VIDEOS)
def test_what_is_no_video_is_refused_and_starts_no_session(client, name):
    data, words = NOT_VIDEOS[name]
    session_id = bytes_tensor(uuid.uuid4().hex.encode())
    status, message = refusal(
        client.infer,
        "sam2_video",
        session_id=session_id,
        command=bytes_tensor(b"start"),
        video=bytes_tensor(data),
    )
    assert status == "INVALID_ARGUMENT"
    assert message.startswith("video: expected"), message
    assert words in message
    status, _ = refusal(
        client.infer, "sam2_video", session_id=session_id, command=bytes_tensor(b"status")
    )
    assert status == "NOT_FOUND"


def test_one_frame_of_an_odd_size(client):
    data = movie([np.full((47, 63, 3), 90, np.uint8)], codec="libvpx", container="webm")
    session = FileSession(client, data)
    assert session.points(0, 1, [[20, 20]], [1]).logits.shape == (1, 47, 63)
    status, message = refusal(session.step, "track", 1)
    assert (status, "num_frames 1, got 1" in message) == ("INVALID_ARGUMENT", True)
    session.close()


def test_what_does_not_go_with_a_video_is_refused_by_name(client, film, files):
    session = FileSession(client, film, num_frames=np.array([3], np.int32))
    assert session.started["num_frames"].tolist() == [3]
    session.points(0, 1, POINT, [1])
    status, message = refusal(session.step, "track", 1, image=bytes_tensor(files[1]))
    assert status == "INVALID_ARGUMENT"
    assert message.startswith(
        "image: not expected with frame 1 of a session that was started with a"
    )
    status, message = refusal(session.step, "track", 3)
    assert (status, message[:12]) == ("INVALID_ARGUMENT", "frame_index:")
    status, message = refusal(session.step, "track", 1, video=bytes_tensor(film))
    assert (status, message[:6]) == ("INVALID_ARGUMENT", "video:")
    session.close()
    status, message = refusal(
        FileSession, client, film, num_frames=np.array([FRAMES + 1], np.int32)
    )
    assert (status, message[:11]) == ("INVALID_ARGUMENT", "num_frames:")


def decoders() -> list[psutil.Process]:
    """Processes that decode a video for the server under test."""
    everybody = psutil.Process().children(recursive=True)
    return [p for p in everybody if p.is_running() and "video_worker.py" in " ".join(_command(p))]


def metric(server: RunningServer, name: str) -> float:
    """A metric of sam2_video's, published once a second."""
    with urllib.request.urlopen(server.metrics_url, timeout=60) as page:
        lines = page.read().decode().splitlines()
    named = [line for line in lines if line.startswith(f"sam2_video_{name}")]
    return sum(float(line.split()[-1]) for line in named if line[11 + len(name)] in " {,}")


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_killed_decoder_is_said_and_the_session_goes_on(server, client, session, files):
    whole = ServerSession(client, files)
    session.points(0, 1, POINT, [1])
    whole.points(0, 1, POINT, [1])
    status, message = refusal_of_a_kill(server, session)
    assert status == "UNAVAILABLE"
    assert "was ended from outside; try again in a moment" in message
    for ours, theirs in zip(session.track(1), whole.track(1), strict=True):
        assert np.array_equal(ours.logits, theirs.logits)
    session.close()
    whole.close()
    assert decoders() == []


def refusal_of_a_kill(server: RunningServer, session: FileSession) -> tuple[str, str]:
    """What a step says whose decoder is killed while it decodes: sooner or later a kill hits that moment."""
    for seconds in (0.5, 1, 2, 4, 8, 16, 32):
        outcome: list[tuple[str, str]] = []

        def track(outcome: list[tuple[str, str]] = outcome) -> None:
            # An HTTP client of Triton's belongs to the thread that made it.
            here = copy.copy(session)
            here._client = RawClient(server, session._client.protocol)
            try:
                here.step("track", 3)
            except RefusedError as error:
                outcome.append((error.status, error.message))

        (decoder,) = decoders()
        decoder.suspend()  # as good as a decode that takes for ever
        tracking = threading.Thread(target=track)
        tracking.start()
        time.sleep(seconds)
        decoder.kill()
        tracking.join(PATIENCE_SECONDS)
        if outcome:
            return outcome[0]
        session.step("reset")
        session.points(0, 1, POINT, [1])
    raise AssertionError("no kill came in the middle of a step")


def test_cancelling_ends_a_decode(server, session):
    session.points(0, 1, POINT, [1])
    (decoder,) = decoders()
    decoder.suspend()
    tensors = {
        "session_id": bytes_tensor(session.session_id.encode()),
        "command": bytes_tensor(b"track"),
        "frame_index": np.array([4], np.int32),
    }
    inputs = []
    for name, values in tensors.items():
        kind = np_to_triton_dtype(values.dtype)
        inputs.append(tritonclient.grpc.InferInput(name, values.shape, kind))
        inputs[-1].set_data_from_numpy(values)
    raw, done = tritonclient.grpc.InferenceServerClient(server.grpc_url), threading.Event()
    call = raw.async_infer("sam2_video", inputs, callback=lambda result, error: done.set())
    call.cancel()
    assert done.wait(PATIENCE_SECONDS)
    # Steps go in order: where the cancelled one had begun, its decoder is gone when this one is answered.
    assert len(session.status()["objects"]["1"]["tracked_forward"]) == 0
    if decoder.is_running():  # the cancellation came before the step
        decoder.resume()
    assert session.track(1)[0].logits.shape[0] == 1


def test_the_metrics_tell_of_videos(server, session, film):
    session.points(0, 1, POINT, [1])
    wait_until(lambda: metric(server, "video_decoders") == 1, "the gauge")
    wait_until(lambda: metric(server, "video_frames_total") >= 1, "the count")
    wait_until(lambda: metric(server, 'bytes{kind="videos"') >= len(film), "the bytes")
