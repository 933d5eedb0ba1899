"""Whatever is wrong with a request, it gets the right status and a message that names the tensor, over
both protocols, and the next good request succeeds."""

import numpy as np
import pytest

from tests.models.test_image_decoding import BAD_FILES as BAD_FILE_CASES
from tests.models.test_image_decoding import claims
from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click

pytestmark = pytest.mark.server

COINS = bytes_tensor(photograph("coins.png"))
CLICK = click(109, 199)
LABEL = {"point_labels": np.ones((1, 1), np.int32)}
COORDS = {"point_coords": np.ones((1, 1, 2), np.float32)}


def floats(*values, shape):
    return np.array(values, np.float32).reshape(shape)


def files() -> dict:
    """The unit tests' broken files, but for those whose limit is the test's own."""
    own = {"bomb", "too many bytes"}
    cases = {name: data for name, (data, _) in BAD_FILE_CASES.items() if name not in own}
    cases["decompression bomb"] = claims(60000, 60000)
    cases["random bytes"] = np.random.default_rng(0).bytes(100_000)
    return cases


FILES = files()

# name: (tensors, what the message must hold)
PROMPTS = {
    "no prompt": ({}, "point_coords"),
    "labels alone": (LABEL, "point_coords"),
    "points alone": (COORDS, "point_labels"),
    "unequal B": (CLICK | {"box": floats(0, 0, 9, 9, 0, 0, 9, 9, shape=(2, 4))}, "box has 2"),
    "unequal N": (COORDS | {"point_labels": np.ones((1, 2), np.int32)}, "point_labels"),
    "no object": ({"box": np.zeros((0, 4), np.float32)}, "box"),
    "too many objects": ({"box": np.zeros((257, 4), np.float32)}, "max_objects"),
    "nan coordinate": (
        LABEL | {"point_coords": floats(np.nan, 1, shape=(1, 1, 2))},
        "point_coords",
    ),
    "infinite coordinate": (
        LABEL | {"point_coords": floats(1, np.inf, shape=(1, 1, 2))},
        "point_coords",
    ),
    "infinite box": ({"box": floats(0, 0, -np.inf, 1, shape=(1, 4))}, "box"),
    "inverted box": ({"box": floats(9, 9, 1, 1, shape=(1, 4))}, "box"),
    "label 2": (COORDS | {"point_labels": np.full((1, 1), 2, np.int32)}, "point_labels"),
    "label -2": (COORDS | {"point_labels": np.full((1, 1), -2, np.int32)}, "point_labels"),
    "nan mask": ({"mask_input": np.full((1, 1, 64, 64), np.nan, np.float32)}, "mask_input"),
    "mask of another size": ({"mask_input": np.zeros((1, 1, 63, 64), np.float32)}, "mask_input"),
    "points of rank 2": ({"point_coords": np.ones((1, 2), np.float32)} | LABEL, "point_coords"),
    "points of 3 numbers": (
        {"point_coords": np.ones((1, 1, 3), np.float32)} | LABEL,
        "point_coords",
    ),
    "points of FP64": ({"point_coords": np.ones((1, 1, 2))} | LABEL, "point_coords"),
    "labels of INT64": (COORDS | {"point_labels": np.ones((1, 1), np.int64)}, "point_labels"),
    "box of 5 numbers": ({"box": np.ones((1, 5), np.float32)}, "box"),
    "unknown format": (CLICK | {"mask_format": bytes_tensor(b"svg")}, "mask_format"),
    "format not text": (CLICK | {"mask_format": bytes_tensor(b"\xff\xfe")}, "mask_format"),
    "multimask of 2": (CLICK | {"multimask_output": np.ones(2, bool)}, "multimask_output"),
    "unknown tensor": (CLICK | {"point_coord": np.ones(1, np.float32)}, "point_coord"),
}

# name: (tensors, status, what the message must hold)
IDS = {
    "neither image nor id": (CLICK, "INVALID_ARGUMENT", "image_id"),
    "unknown id": (CLICK | {"image_id": bytes_tensor(b"nobody")}, "NOT_FOUND", "image_id"),
    "empty id": (CLICK | {"image_id": bytes_tensor(b"")}, "INVALID_ARGUMENT", "image_id"),
    "10 MB id": (CLICK | {"image_id": bytes_tensor(b"x" * 10**7)}, "INVALID_ARGUMENT", "image_id"),
    "id not UTF-8": (CLICK | {"image_id": bytes_tensor(b"\xff")}, "INVALID_ARGUMENT", "image_id"),
    "two ids": (CLICK | {"image_id": bytes_tensor(b"a", b"b")}, "INVALID_ARGUMENT", "image_id"),
    "id of a number": (CLICK | {"image_id": np.ones(1, np.int32)}, "INVALID_ARGUMENT", "image_id"),
    "another image's content id": (
        CLICK | {"image": COINS, "image_id": bytes_tensor(b"sha256:" + b"0" * 64)},
        "INVALID_ARGUMENT",
        "image_id",
    ),
}


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request, server):
    return RawClient(server, request.param)


def expect(client, status, part, **tensors):
    with pytest.raises(RefusedError) as refused:
        client.infer(**tensors)
    assert refused.value.status == status, refused.value
    assert part in refused.value.message
    assert "Traceback" not in refused.value.message
    good = client.infer(image=COINS, **CLICK)
    assert good["masks"].shape == (1, 1, 303, 384)
    assert 800 < good["masks"].sum() < 4000  # the coin under the click


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_image(client, name):
    expect(client, "INVALID_ARGUMENT", "image: ", image=bytes_tensor(FILES[name]), **CLICK)


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(client, name):
    tensors, part = PROMPTS[name]
    expect(client, "INVALID_ARGUMENT", part, image=COINS, **tensors)


@pytest.mark.parametrize("name", IDS)
def test_ids(client, name):
    tensors, status, part = IDS[name]
    expect(client, status, part, **tensors)


def test_an_image_tensor_of_another_shape_or_type(client):
    expect(client, "INVALID_ARGUMENT", "image", image=np.zeros((8, 8, 3), np.uint8), **CLICK)
    expect(client, "INVALID_ARGUMENT", "image", image=bytes_tensor(b"a", b"b"), **CLICK)


def test_an_answer_beyond_the_limit_is_refused_with_a_way_out(client):
    from PIL import Image

    from tests.photographs import encoded

    large = bytes_tensor(encoded(Image.new("L", (8000, 8000)), "PNG"))
    boxes = {"image": large, "box": np.tile(floats(0, 0, 9, 9, shape=(1, 4)), (5, 1))}
    logits = bytes_tensor(b"logits")  # 5 x 64 million x 4 bytes
    expect(client, "INVALID_ARGUMENT", "ask for rle", mask_format=logits, **boxes)
    rle = client.infer(mask_format=bytes_tensor(b"rle"), **boxes)
    assert rle["masks_rle"].shape == (5, 1)
    assert rle["masks"].size == 0


def test_coordinates_outside_the_image_are_allowed(client):
    far = client.infer(image=COINS, **click(-5000, 1e6))
    assert np.isfinite(far["iou_predictions"]).all()
    farthest = client.infer(image=COINS, **click(3e38, -3e38))
    assert np.isfinite(farthest["low_res_masks"]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1)])
def test_extreme_images_are_segmented(client, size):
    from PIL import Image

    from tests.photographs import encoded

    data = bytes_tensor(encoded(Image.new("RGB", size, "white"), "PNG"))
    assert client.infer(image=data, **click(0, 0))["masks"].shape == (1, 1, size[1], size[0])
