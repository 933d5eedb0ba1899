"""Sessions of tracked objects on the real server: what each command answers, in order and at once."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.models.video.clips import clip
from tests.models.video.scenarios import HEIGHT, WIDTH, disc
from tests.photographs import encoded, opened, photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor
from tests.server.video_session import ServerSession

pytestmark = pytest.mark.server

FRAMES = 4
POINT = {
    "point_coords": np.array([[150, 110]], np.float32),
    "point_labels": np.array([1], np.int32),
}
OBJECT = {"object_id": np.array([1], np.int64)}


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request, server):
    return RawClient(server, request.param)


@pytest.fixture(scope="module")
def files():
    return clip(FRAMES)


@pytest.fixture
def session(client, files):
    opened = ServerSession(client, files)
    yield opened
    opened.close()


def refusal(call, *args, **kwargs) -> tuple[str, str]:
    with pytest.raises(RefusedError) as refused:
        call(*args, **kwargs)
    return refused.value.status, refused.value.message


def test_an_answer_has_every_format_of_the_same_mask(session, files):
    formats = bytes_tensor(b"bitmap", b"logits", b"rle", b"png")
    answer = session.step("prompt", 0, **session.image(0), **OBJECT, **POINT, mask_format=formats)
    masks = answer["masks"]
    assert masks.shape == (1, HEIGHT, WIDTH)
    assert masks[0].any()
    assert np.array_equal(answer["mask_logits"] > 0, masks > 0)
    rle = json.loads(answer["masks_rle"][0])
    assert np.array_equal(coco_mask.decode(rle), masks[0])
    assert np.array_equal(np.asarray(opened(answer["masks_png"][0])) > 0, masks[0] > 0)
    assert answer["low_res_masks"].shape == (1, 1, 64, 64)
    assert answer["object_ids"].tolist() == [1]
    assert answer["frame_index"].tolist() == [0]
    assert answer["original_hw"].tolist() == [HEIGHT, WIDTH]
    assert answer["memory_complete"].tolist() == [True]
    held = len(files[0]) + sum(json.loads(session.step("status")["status"][0])["bytes"].values())
    assert 0 < answer["session_bytes"][0] <= held


def test_scores_alone_where_no_format_is_asked_for(session):
    session.points(0, 1, [[150, 110]], [1])
    nothing = np.empty(0, np.object_)
    answer = session.step("track", 1, **session.image(1), mask_format=nothing)
    assert answer["masks"].size == answer["mask_logits"].size == answer["masks_rle"].size == 0
    assert answer["object_score_logits"].shape == answer["iou_predictions"].shape == (1,)


def test_a_held_frame_needs_no_image_and_an_unheld_one_asks_for_it(session):
    session.points(0, 1, [[150, 110]], [1])
    first = session.step("track", 1, **session.image(1))
    again = session.step("track", 1)
    assert np.array_equal(first["masks"], again["masks"])
    status, message = refusal(session.step, "track", 2)
    assert status == "NOT_FOUND"
    assert "image" in message
    assert "frame 2" in message


def test_objects_come_in_order_of_creation(session):
    for object_id in (7, -3, 12):
        session.points(0, object_id, [[150 + object_id, 110]], [1])
    assert session.track(most=1)[1].object_ids == [7, -3, 12]
    assert session.step("remove_object", object_id=np.array([-3], np.int64))[
        "object_ids"
    ].tolist() == [7, 12]
    assert session.track(start=2)[0].object_ids == [7, 12]


def test_no_pixel_belongs_to_two_objects(client, files):
    session = ServerSession(client, files, non_overlap_masks=True)
    session.points(0, 1, [[150, 110]], [1])
    session.mask(0, 2, disc(150, 110, 60))
    for answer in session.track():
        assert (answer.masks.sum(axis=0) <= 1).all()
    session.close()


def test_a_refused_step_leaves_the_session_as_it_was(session, files):
    session.points(0, 1, [[150, 110]], [1])
    session.track(most=1)
    before = session.status()
    small = encoded(Image.new("RGB", (40, 30)), "PNG")
    attempts = {
        "another size": ("track", 2, {"image": bytes_tensor(small)}),
        "no image": ("track", 2, {"image": bytes_tensor(b"no image")}),
        "other bytes": ("track", 1, session.image(2)),
        "an unknown object": ("clear_prompts", 0, {"object_id": np.array([5], np.int64)}),
    }
    for name, (command, frame, tensors) in attempts.items():
        status, message = refusal(session.step, command, frame, **tensors)
        assert status == ("NOT_FOUND" if "object" in name else "INVALID_ARGUMENT"), message
        assert ("object_id" if "object" in name else "image") in message
    assert session.status() == before


def test_sessions_end_when_they_are_closed(client, files):
    session = ServerSession(client, files)
    session.points(0, 1, [[150, 110]], [1])
    session.close()
    status, message = refusal(session.step, "track", 1)
    assert status == "NOT_FOUND"
    assert "start it again" in message


def test_a_living_id_is_not_started_again(client, session):
    status, message = refusal(session.step, "start")
    # Triton 24.10's HTTP front end has no status of its own for it.
    assert status == {"grpc": "ALREADY_EXISTS", "http": "INVALID_ARGUMENT"}[client.protocol]
    assert "session_id" in message


def test_clicks_add_up_where_old_ones_stay(session):
    session.points(0, 1, [[150, 110]], [1])
    added = session.points(0, 1, [[210, 150]], [0], clear=False)
    other = session.points(0, 2, [[150, 110], [210, 150]], [1, 0])
    assert added.masks[0].shape == other.masks[1].shape
    assert session.status()["objects"]["1"]["prompted_frames"] == [0]


BAD = {
    "no command": ({"command": None}, "command"),
    "an unknown command": ({"command": bytes_tensor(b"fly")}, "command"),
    "a broken command": ({"command": bytes_tensor(b"\xff")}, "command"),
    "an empty id": ({"session_id": bytes_tensor(b"")}, "session_id"),
    "a long id": ({"session_id": bytes_tensor(b"a" * 257)}, "session_id"),
    "no frame": ({"frame_index": None}, "frame_index"),
    "a negative frame": ({"frame_index": np.array([-1], np.int32)}, "frame_index"),
    "a frame behind the last": ({"frame_index": np.array([FRAMES], np.int32)}, "frame_index"),
    "no object": ({"object_id": None}, "object_id"),
    "no prompt": ({"point_coords": None, "point_labels": None}, "point_coords"),
    "points without labels": ({"point_labels": None}, "point_labels"),
    "labels without points": ({"point_coords": None}, "point_coords"),
    "no points": (
        {"point_coords": np.zeros((0, 2), np.float32), "point_labels": np.zeros(0, np.int32)},
        "point_coords",
    ),
    "too many points": (
        {"point_coords": np.ones((1025, 2), np.float32), "point_labels": np.ones(1025, np.int32)},
        "max_points_per_object",
    ),
    "unequal numbers": ({"point_labels": np.ones(2, np.int32)}, "point_labels"),
    "an unknown label": ({"point_labels": np.array([-1], np.int32)}, "point_labels"),
    "not a number": ({"point_coords": np.array([[np.nan, 1]], np.float32)}, "point_coords"),
    "an inverted box": ({"box": np.array([9, 9, 1, 20], np.float32)}, "box"),
    "an infinite box": ({"box": np.array([1, 1, np.inf, 20], np.float32)}, "box"),
    "a box beside old points": (
        {"box": np.array([1, 1, 9, 9], np.float32), "clear_old_points": np.array([False])},
        "clear_old_points",
    ),
    "a mask beside points": ({"mask": disc().astype(np.uint8)}, "mask"),
    "a mask of another size": (
        {"mask": np.ones((9, 9), np.uint8), "point_coords": None, "point_labels": None},
        "mask",
    ),
    "an unknown format": ({"mask_format": bytes_tensor(b"gif")}, "mask_format"),
    "a tensor of another command": ({"reverse": np.array([True])}, "reverse"),
    "no image file": ({"image": bytes_tensor(b"nothing")}, "image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_prompts_are_refused_by_name(client, session, name):
    changes, named = BAD[name]
    tensors = {
        "session_id": bytes_tensor(session.session_id.encode()),
        "command": bytes_tensor(b"prompt"),
        "frame_index": np.array([0], np.int32),
        **OBJECT,
        **POINT,
        **session.image(0),
        **changes,
    }
    given = {key: values for key, values in tensors.items() if values is not None}
    status, message = refusal(client.infer, "sam2_video", **given)
    assert status == "INVALID_ARGUMENT" or changes.get("command", 0) is None, message
    assert named in message
    assert session.status()["objects"] == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", np.array([0], np.int32)),
        ("max_cond_frames_in_attn", np.array([1], np.int32)),
        ("fill_hole_area", np.array([-1], np.int32)),
        ("frame_index", np.array([0], np.int32)),
    ],
)
def test_bad_options_are_refused_by_name(client, name, value):
    start = {"session_id": bytes_tensor(uuid.uuid4().hex.encode())}
    start["command"] = bytes_tensor(b"start")
    status, message = refusal(client.infer, "sam2_video", **start, **{name: value})
    assert status == "INVALID_ARGUMENT"
    assert name in message


@pytest.mark.parametrize("command", ["prompt", "track", "reset", "close", "status"])
def test_every_command_needs_a_session(client, command):
    tensors = {"session_id": bytes_tensor(b"nobody"), "command": bytes_tensor(command.encode())}
    if command in ("prompt", "track"):
        tensors |= {"frame_index": np.array([0], np.int32)}
    if command == "prompt":
        tensors |= {**OBJECT, **POINT}
    status, message = refusal(client.infer, "sam2_video", **tensors)
    assert status == "NOT_FOUND"
    assert "session_id" in message


def test_nothing_is_tracked_without_a_prompt(session):
    status, message = refusal(session.step, "track", 0, **session.image(0))
    assert status == "INVALID_ARGUMENT"
    assert "prompt" in message


def play(session: ServerSession, seed: int) -> list[np.ndarray]:
    """Prompts and tracking that depend on the seed."""
    rng = np.random.default_rng(seed)
    answers = [session.points(0, n, [rng.uniform(60, 180, 2)], [1]) for n in range(1 + seed % 3)]
    answers += session.track()
    answers.append(session.points(2, 0, [rng.uniform(60, 180, 2)], [0]))
    answers += session.track(start=3, reverse=bool(seed % 2))
    session.close()
    return [answer.logits for answer in answers]


def test_twenty_sessions_at_once_are_each_as_if_alone(server, files):
    """From twenty threads, all at the same time, interleaved step by step."""
    alone = [play(ServerSession(RawClient(server, "grpc"), files), seed) for seed in range(5)]
    together = threading.Barrier(20)

    def among_others(number: int) -> list[np.ndarray]:
        session = ServerSession(RawClient(server, "grpc"), files)
        together.wait(60)
        return play(session, number % 5)

    with ThreadPoolExecutor(20) as pool:
        for number, answers in enumerate(pool.map(among_others, range(20))):
            for expected, got in zip(alone[number % 5], answers, strict=True):
                assert np.array_equal(expected > 0, got > 0), f"session {number}"


def test_photographs_of_any_kind_are_frames(client):
    """PNG, JPEG, rotated by EXIF: one frame's session."""
    data = photograph("chelsea.png")
    session = ServerSession(client, [data])
    answer = session.points(0, 1, [[200, 150]], [1])
    assert answer.logits.shape == (1, 300, 451)
    session.close()
