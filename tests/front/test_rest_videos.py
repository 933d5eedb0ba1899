"""/v1/videos: the sessions of sam2_video by forms, frame by frame; one tenant's are not another's."""

import io
import json
import subprocess

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.front.conftest import ALICE, BOB
from tests.models.video.movies import movie
from tests.patience import PATIENCE_SECONDS
from tests.photographs import photograph
from tests.raw_client import RawClient, bytes_tensor
from tests.server.video_session import ServerSession
from tests.tools import needs

pytestmark = pytest.mark.server


def frame_files() -> list[bytes]:
    """Three frames: the coins, moved a little to the right."""
    coins = Image.open(io.BytesIO(photograph("coins.png"))).convert("RGB")
    files = []
    for number in range(3):
        frame = Image.new("RGB", coins.size)
        frame.paste(coins, (4 * number, 0))
        buffer = io.BytesIO()
        frame.save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


FRAMES = frame_files()


@pytest.fixture
def rest(front):
    with httpx.Client(base_url=f"http://{front.http_url}/v1", timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def session(rest):
    session_id = rest.post("/videos", data={"num_frames": "3"}).json()["session_id"]
    yield f"/videos/{session_id}"
    rest.delete(f"/videos/{session_id}")


def send(rest, path, frame, *, with_image=True, **form):
    files = {"image": ("frame.png", FRAMES[frame])} if with_image else None
    return rest.post(path, files=files, data={"frame": str(frame), **form})


def test_masks_are_the_models_own(server, rest, session):
    direct = ServerSession(RawClient(server, "grpc"), FRAMES)
    try:
        expected = []
        for frame, command in enumerate(("prompt", "track", "track")):
            tensors = {"image": bytes_tensor(FRAMES[frame]), "mask_format": bytes_tensor(b"rle")}
            if command == "prompt":
                tensors |= {
                    "object_id": np.array([7], np.int64),
                    "point_coords": np.array([[109, 199]], np.float32),
                    "point_labels": np.array([1], np.int32),
                }
            expected.append(direct.step(command, frame, **tensors))
    finally:
        direct.close()
    answers = [send(rest, f"{session}/prompt", 0, object="7", point="109,199").json()]
    answers += [send(rest, f"{session}/track", frame).json() for frame in (1, 2)]
    for frame, (answer, tensors) in enumerate(zip(answers, expected, strict=True)):
        assert answer["frame"] == frame
        assert [answer["height"], answer["width"]] == tensors["original_hw"].tolist()
        assert answer["memory_complete"] is True
        (found,) = answer["objects"]
        assert found["object"] == 7
        assert found["rle"] == json.loads(tensors["masks_rle"][0])
        np.testing.assert_allclose(found["iou"], tensors["iou_predictions"][0], atol=1e-5)
    assert coco_mask.decode(answers[2]["objects"][0]["rle"]).any()


def test_a_video_file(rest):
    width, height = 384, 302
    pictures = [Image.open(io.BytesIO(file)).crop((0, 0, width, height)) for file in FRAMES]
    film = movie([np.asarray(picture) for picture in pictures])
    started = rest.post("/videos", files={"video": ("clip.mp4", film)})
    assert started.status_code == 200, started.text
    facts = started.json()
    assert (facts["num_frames"], facts["width"], facts["height"]) == (3, width, height)
    session = f"/videos/{facts['session_id']}"
    try:
        first = rest.post(f"{session}/prompt", data={"frame": "0", "point": "109,199"})
        assert coco_mask.decode(first.json()["objects"][0]["rle"]).any()
        for frame in ("1", "2"):
            answer = rest.post(f"{session}/track", data={"frame": frame})
            assert answer.json()["objects"][0]["object"] == 1
        assert rest.post(f"{session}/track", data={"frame": "3"}).status_code == 400
    finally:
        assert rest.delete(session).status_code == 204
    for wrong in ({"files": {"video": ("clip.mp4", b"no video")}}, {"data": {"video": "clip.mp4"}}):
        answer = rest.post("/videos", **wrong)
        assert answer.status_code == 400
        assert "video: " in answer.json()["error"]


@needs("curl")
def test_by_curl(front, tmp_path):
    url = f"http://{front.http_url}/v1/videos"

    def curl(*arguments):
        done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, check=True)
        return done.stdout

    session = f"{url}/{json.loads(curl('-X', 'POST', url))['session_id']}"
    for number, content in enumerate(FRAMES[:2]):
        (tmp_path / f"{number}.png").write_bytes(content)
    curl(
        "-F",
        f"image=@{tmp_path}/0.png",
        "-F",
        "frame=0",
        "-F",
        "point=109,199",
        f"{session}/prompt",
    )
    seen = curl(
        *("-F", f"image=@{tmp_path}/1.png", "-F", "frame=1", "-F", "format=png"),
        f"{session}/track",
    )
    assert set(np.unique(np.asarray(Image.open(io.BytesIO(seen))))) == {0, 255}
    assert curl("-X", "DELETE", session) == b""
    assert "start it again" in json.loads(curl(session))["error"]


def test_two_objects_a_box_and_a_correction(rest, session):
    send(rest, f"{session}/prompt", 0, object="1", point="109,199")
    answer = send(rest, f"{session}/prompt", 0, with_image=False, object="2", box="40,30,80,70")
    assert [one["object"] for one in answer.json()["objects"]] == [1, 2]
    more = send(
        rest,
        f"{session}/prompt",
        0,
        with_image=False,
        object="1",
        point="60,50,0",
        keep_points="true",
        format="polygons",
    )
    assert more.json()["objects"][0]["polygons"]
    both = send(rest, f"{session}/track", 1, format="png")
    assert set(np.unique(np.asarray(Image.open(io.BytesIO(both.content))))) <= {0, 1, 2}
    status = rest.get(session).json()
    assert set(status["objects"]) == {"1", "2"}
    assert status["options"]["num_frames"] == 3


@pytest.mark.parametrize(
    ("path", "form", "words"),
    [
        ("/prompt", {"frame": "0"}, "give at least one point"),
        ("/prompt", {"point": "1,1"}, "frame: expected a whole number, got none"),
        ("/prompt", {"frame": "x", "point": "1,1"}, "frame: expected a whole number"),
        (
            "/prompt",
            {"frame": "9" * 10, "point": "1,1"},
            "frame: expected a whole number of 32",
        ),
        ("/prompt", {"frame": "0", "point": ["1,1", "2,2,1,2"]}, "prompts of one object"),
        (
            "/prompt",
            {"frame": "0", "point": "1,1", "format": "overlay"},
            "format: expected one",
        ),
        (
            "/prompt",
            {"frame": "0", "point": "1,1", "object": "1.5"},
            "object: expected a whole",
        ),
        ("/track", {"frame": "1", "point": "1,1"}, "'point': no such field"),
        ("/track", {"frame": "1", "reverse": "maybe"}, "reverse: expected true or false"),
        ("/track", {"frame": "7"}, "frame_index"),
    ],
)
def test_mistakes_are_named(rest, session, path, form, words):
    answer = rest.post(f"{session}{path}", data=form)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]


def test_other_mistakes(rest):
    assert rest.post("/videos", data={"frames": "3"}).status_code == 400
    assert rest.post("/videos", data={"num_frames": "0"}).status_code == 400
    assert rest.post("/videos", data={"non_overlap_masks": "7"}).status_code == 400
    for call in (
        lambda: rest.get("/videos/none"),
        lambda: rest.delete("/videos/none"),
        lambda: rest.post("/videos/none/track", data={"frame": "0"}),
    ):
        answer = call()
        assert answer.status_code == 404
        assert "session_id: expected a session that was started" in answer.json()["error"]


def test_anothers_session_is_not_there(keyed_front):
    url = f"http://{keyed_front.http_url}/v1/videos"
    hers = {"x-api-key": ALICE}
    his = {"x-api-key": BOB}
    session = f"{url}/{httpx.post(url, headers=hers).json()['session_id']}"
    try:
        assert httpx.get(session, headers=his).status_code == 404
        assert httpx.delete(session, headers=his).status_code == 404
        form = {"frame": "0", "point": "109,199"}
        assert httpx.post(f"{session}/prompt", headers=his, data=form).status_code == 404
        assert httpx.get(session, headers=hers).status_code == 200
    finally:
        assert httpx.delete(session, headers=hers).status_code == 204
