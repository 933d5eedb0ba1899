"""Sessions and what ends them: the process is killed, the model reloaded, the client leaves midway."""

from __future__ import annotations

import shutil
import signal
import threading

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype

from tests.models.video.clips import clip
from tests.models.video.movies import movie
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.raw_client import RawClient, RefusedError, bytes_tensor
from tests.running_server import RunningServer
from tests.server.test_stub_killed import stub_of
from tests.server.test_video_files import FileSession, decoders
from tests.server.video_session import ServerSession

pytestmark = [pytest.mark.server, pytest.mark.slow]

FRAMES = 4
MODEL = "sam2_video"
GRAPHS = ["sam2_memory_attention", "sam2_video_decoder", "sam2_memory_encoder"]
SERVER = "tritonserver"
# Whose process is killed: any model's that a step needs, the sessions' own, and the server's.
KILLED = [*GRAPHS, "sam2_encoder", "sam2_preprocess", "sam2_video", SERVER]


@pytest.fixture(scope="module")
def own_server(demo_repository, tmp_path_factory):
    """With a repository of its own, which tests change."""
    directory = tmp_path_factory.mktemp("ends")
    repository = directory / "repository"
    shutil.copytree(demo_repository, repository)
    with RunningServer(repository, directory / "state", "--explicit-models") as running:
        yield running


def play(session: ServerSession) -> list[np.ndarray]:
    answers = [session.points(0, 1, [[150, 110]], [1]), session.points(0, 2, [[90, 60]], [1])]
    return [answer.masks for answer in (*answers, *session.track())]


def answers_again(client: RawClient) -> bool:
    try:
        client.infer(
            "sam2_video", session_id=bytes_tensor(b"nobody"), command=bytes_tensor(b"status")
        )
    except RefusedError as error:
        return error.status == "NOT_FOUND"
    return False


@pytest.mark.parametrize("model", KILLED)
def test_after_a_kill_sessions_are_gone_and_replayed_ones_give_the_same_masks(own_server, model):
    client, files = RawClient(own_server, "grpc"), clip(FRAMES)
    session = ServerSession(client, files)
    before = play(session)
    restarts = own_server.state["restarts"]
    outcomes: list[str] = []
    stop = threading.Event()

    def keep_tracking() -> None:
        while not stop.is_set():
            try:
                session.step("track", 1, **session.image(1))
            except RefusedError as error:
                outcomes.append(error.status)
                return

    tracking = threading.Thread(target=keep_tracking)
    tracking.start()
    victim = (
        psutil.Process(own_server.server_pid) if model == SERVER else stub_of(own_server, model)
    )
    victim.send_signal(signal.SIGKILL)
    try:
        wait_until(lambda: own_server.state["restarts"] > restarts, "the restart")
        wait_until(lambda: answers_again(RawClient(own_server, "grpc")), "an answer")
        wait_until(lambda: bool(outcomes), "the lost session's refusal")
    finally:
        stop.set()
        tracking.join(PATIENCE_SECONDS)
    with pytest.raises(RefusedError) as refused:
        session.step("track", 1)
    assert refused.value.status == "NOT_FOUND"
    assert "start it again" in refused.value.message
    replayed = play(ServerSession(RawClient(own_server, "grpc"), files))
    assert all(np.array_equal(a, b) for a, b in zip(before, replayed, strict=True))


def test_a_client_that_leaves_midway_leaves_a_whole_session(own_server):
    """Each cancelled step happened wholly or not at all, and the next one goes on from there."""
    client, files = RawClient(own_server, "grpc"), clip(FRAMES)
    session = ServerSession(client, files)
    for number in range(4):
        session.points(0, number, [[60 + 40 * number, 90]], [1])
    expected = [answer.masks for answer in session.track()]
    session.reset()
    for number in range(4):
        session.points(0, number, [[60 + 40 * number, 90]], [1])
    before = session.status()["objects"]
    raw = tritonclient.grpc.InferenceServerClient(own_server.grpc_url)
    tensors = {
        "session_id": bytes_tensor(session.session_id.encode()),
        "command": bytes_tensor(b"track"),
        "frame_index": np.array([1], np.int32),
        **session.image(1),
    }
    inputs = []
    for name, values in tensors.items():
        inputs.append(
            tritonclient.grpc.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
        )
        inputs[-1].set_data_from_numpy(values)
    for _ in range(5):
        done = threading.Event()
        call = raw.async_infer(MODEL, inputs, callback=lambda result, error, done=done: done.set())
        call.cancel()
        assert done.wait(PATIENCE_SECONDS)
        # Steps of a session go in order: this one is answered when the cancelled one is over.
        tracked = {len(one["tracked_forward"]) for one in session.status()["objects"].values()}
        assert tracked in ({0}, {1})
    if tracked == {0}:
        assert session.status()["objects"] == before
    assert all(
        np.array_equal(a, answer.masks) for a, answer in zip(expected, session.track(), strict=True)
    )
    session.close()


def test_a_killed_process_leaves_no_decoder_of_videos_behind(own_server):
    client, film = RawClient(own_server, "grpc"), movie(b_frames=2)
    session = FileSession(client, film)
    before = [session.points(0, 1, [[30, 20]], [1]), *session.track()]
    (decoder,) = decoders()
    restarts = own_server.state["restarts"]
    stub_of(own_server, MODEL).send_signal(signal.SIGKILL)
    wait_until(lambda: not decoder.is_running(), "the decoder's end")
    wait_until(lambda: own_server.state["restarts"] > restarts, "the restart")
    wait_until(lambda: answers_again(RawClient(own_server, "grpc")), "an answer")
    session = FileSession(RawClient(own_server, "grpc"), film)
    replayed = [session.points(0, 1, [[30, 20]], [1]), *session.track()]
    assert all(np.array_equal(a.masks, b.masks) for a, b in zip(before, replayed, strict=True))
    session.close()


def replay_after(own_server, files, change) -> None:
    """What a session is told that `change` ended in the middle of a run, and that its replay is the same."""
    client = RawClient(own_server, "grpc")
    session = ServerSession(client, files)
    before = play(session)
    change()
    with pytest.raises(RefusedError) as refused:
        session.step("track", 1, **session.image(1))
    assert refused.value.status == "NOT_FOUND"
    assert "start it again" in refused.value.message
    replayed = play(ServerSession(client, files))
    assert all(np.array_equal(a, b) for a, b in zip(before, replayed, strict=True))


def test_a_reload_of_the_model_ends_its_sessions(own_server):
    admin = tritonclient.http.InferenceServerClient(own_server.http_url, network_timeout=120)

    def reload_model() -> None:
        source = own_server.repository / MODEL / "1/model.py"
        source.write_text(source.read_text() + "# changed\n")
        admin.load_model(MODEL)

    replay_after(own_server, clip(FRAMES), reload_model)


def test_other_weights_end_the_sessions_of_the_old_ones(own_server):
    """Each graph carries the fingerprint of its weights; here that alone is changed, so that the replay's
    masks can be compared."""
    admin = tritonclient.http.InferenceServerClient(own_server.http_url, network_timeout=120)

    def reload_graphs() -> None:
        for graph in (*GRAPHS, "sam2_mask_prompt"):
            path = own_server.repository / graph / "1" / "model.onnx"
            model = onnx.load(path)
            for constant in model.graph.initializer:
                if constant.name.startswith("memory_fingerprint"):
                    other = onnx.numpy_helper.to_array(constant) + 1
                    constant.CopyFrom(onnx.numpy_helper.from_array(other, constant.name))
            onnx.save(model, path)
            admin.load_model(graph)

    replay_after(own_server, clip(FRAMES), reload_graphs)
