"""Where shared memory is full an answer that has no room is refused: it neither hangs nor names a region.

The server's regions are small and would have to grow by more than any machine has.
"""

import io
import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import RunningServer
from tests.server.video_session import ServerSession

pytestmark = pytest.mark.server

COINS = bytes_tensor(photograph("coins.png"))
OBJECTS = 60
BOXES = np.tile(np.array([[90, 180, 130, 220]], np.float32), (OBJECTS, 1))
REGION_MB, GROWTH_MB = 8, 1 << 24


@pytest.fixture(scope="module")
def full_server(demo_repository, tmp_path_factory) -> Iterator[RunningServer]:
    options = ("--no-probe", "--shm-mb", str(REGION_MB), "--shm-growth-mb", str(GROWTH_MB))
    with RunningServer(demo_repository, tmp_path_factory.mktemp("full"), *options) as server:
        yield server


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("mask_format", [b"bitmap", b"logits"])
def test_a_large_answer_is_refused_and_small_ones_go_on(full_server, protocol, mask_format):
    client = RawClient(full_server, protocol)
    small = client.infer(image=COINS, **click(109, 199))
    with pytest.raises(RefusedError) as refused:
        client.infer(image=COINS, box=BOXES, mask_format=bytes_tensor(mask_format))
    assert refused.value.status == "UNAVAILABLE"
    assert "no shared memory left" in refused.value.message
    assert "rle" in refused.value.message
    assert full_server.state["shm_prefix"] not in refused.value.message
    again = client.infer(image=COINS, **click(109, 199))
    assert np.array_equal(again["masks"], small["masks"])


def test_the_way_out_that_the_message_gives_is_one(full_server):
    client = RawClient(full_server, "grpc")
    answer = client.infer(image=COINS, box=BOXES[:20], mask_format=bytes_tensor(b"rle"))
    assert answer["masks_rle"].shape == (20, 1)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_so_is_a_large_answer_of_automatic_masks(full_server, protocol):
    client = RawClient(full_server, protocol)
    # Every candidate of 8 x 8 points: 192 bitmaps of 116 kB.
    everything = json.dumps(
        {
            "points_per_side": 8,
            "pred_iou_thresh": 0,
            "stability_score_thresh": 0,
            "box_nms_thresh": 1,
        }
    )
    tensors = {"image": COINS, "parameters": bytes_tensor(everything.encode())}
    with pytest.raises(RefusedError) as refused:
        client.infer("sam2_automask", **tensors, mask_format=bytes_tensor(b"bitmap"))
    assert refused.value.status == "UNAVAILABLE"
    assert "no shared memory left" in refused.value.message
    assert full_server.state["shm_prefix"] not in refused.value.message
    found = client.infer("sam2_automask", ["masks_rle"], **tensors)["masks_rle"]
    assert len(found) > 8_000_000 // (303 * 384), "the refused answer would have been too small"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_video_step_without_room_leaves_its_session_as_it_was(full_server, protocol):
    frame = photograph("coins.png")
    picture = Image.open(io.BytesIO(frame)).resize((2048, 2048))
    large = io.BytesIO()
    picture.save(large, "PNG")
    session = ServerSession(RawClient(full_server, protocol), [large.getvalue()])
    prompt = {
        "point_coords": np.array([[700, 1300]], np.float32),
        "point_labels": np.array([1], np.int32),
        "object_id": np.array([1], np.int64),
        **session.image(0),
    }
    with pytest.raises(RefusedError) as refused:
        session.step("prompt", 0, **prompt, mask_format=bytes_tensor(b"logits"))
    assert refused.value.status == "UNAVAILABLE"
    assert "no shared memory left" in refused.value.message
    assert full_server.state["shm_prefix"] not in refused.value.message
    assert not session.status()["objects"]
    answer = session.step("prompt", 0, **prompt, mask_format=bytes_tensor(b"rle"))
    assert answer["object_ids"].tolist() == [1]
    session.close()
