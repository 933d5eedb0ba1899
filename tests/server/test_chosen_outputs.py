"""Any choice of outputs is answered, also one that needs no decoder; prompts may be there and empty."""

import numpy as np
import pytest

from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click

pytestmark = pytest.mark.server

COINS = bytes_tensor(photograph("coins.png"))
COIN = click(109, 199)
BOX = {"box": np.array([[90, 180, 130, 220]], np.float32)}
BOXES = {"box": np.array([[90, 180, 130, 220], [10, 10, 60, 60]], np.float32)}
OUTPUTS = [
    "masks",
    "mask_logits",
    "masks_rle",
    "masks_png",
    "iou_predictions",
    "low_res_masks",
    "cached_image_id",
    "original_hw",
]


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request, server):
    return RawClient(server, request.param)


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_alone_is_what_it_is_among_all(client, output):
    everything = client.infer(image=COINS, **COIN)
    by_id = {"image_id": bytes_tensor(everything["cached_image_id"][0])}
    for image in ({"image": COINS}, by_id):
        alone = client.infer(outputs=[output], **image, **COIN)
        assert set(alone) == {output}
        assert np.array_equal(alone[output], everything[output])


@pytest.mark.parametrize("prompt", [{}, COIN, BOX], ids=["no prompt", "click", "box"])
def test_id_and_size_cost_no_decoding(client, prompt):
    before = client.executions("sam2_decoder")
    answer = client.infer(outputs=["cached_image_id", "original_hw"], image=COINS, **prompt)
    assert answer["original_hw"].tolist() == [303, 384]
    assert answer["cached_image_id"][0].startswith(b"sha256:")
    assert client.executions("sam2_decoder") == before


def test_id_or_size_of_an_unknown_image_is_not_found(client):
    for output in ("cached_image_id", "original_hw"):
        with pytest.raises(RefusedError, match="NOT_FOUND: .*send the image again"):
            client.infer(outputs=[output], image_id=bytes_tensor(b"never sent"), **COIN)


@pytest.mark.parametrize("box", [BOX, BOXES], ids=["one", "two"])
def test_no_points_beside_a_box_are_as_if_they_were_not_there(client, box):
    objects = len(box["box"])
    empty = {
        "point_coords": np.zeros((objects, 0, 2), np.float32),
        "point_labels": np.zeros((objects, 0), np.int32),
    }
    expected = client.infer(image=COINS, **box)
    answer = client.infer(image=COINS, **box, **empty)
    assert answer["masks"].any()
    for output in ("masks", "iou_predictions", "low_res_masks"):
        assert np.array_equal(answer[output], expected[output])


def test_no_points_alone_are_no_prompt(client):
    with pytest.raises(RefusedError, match="INVALID_ARGUMENT: .*point_coords"):
        client.infer(
            image=COINS,
            point_coords=np.zeros((1, 0, 2), np.float32),
            point_labels=np.zeros((1, 0), np.int32),
        )
