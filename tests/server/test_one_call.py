"""The road of one request: image bytes to masks, then clicks that send an id and no image."""

import io
import json
import uuid

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from triton_sam2 import SAM2TritonClient

from tests.masks import overlap
from tests.photographs import encoded, opened, photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click

pytestmark = pytest.mark.server

COINS = photograph("coins.png")
COIN_XY = (109, 199)


@pytest.fixture(scope="module", params=["grpc", "http"])
def client(request, server):
    return RawClient(server, request.param)


def fresh(data: bytes) -> bytes:
    """The same picture as other bytes: no cache knows it, and decoders ignore what follows a PNG's end."""
    return data + uuid.uuid4().bytes


def test_bytes_and_a_click_bring_back_the_coins_mask(client):
    answer = client.infer(image=bytes_tensor(COINS), **click(*COIN_XY))
    assert answer["masks"].dtype == np.uint8
    assert answer["masks"].shape == (1, 1, 303, 384)
    assert answer["masks"][0, 0, COIN_XY[1], COIN_XY[0]] == 1
    assert answer["low_res_masks"].shape == (1, 1, 64, 64)
    assert answer["iou_predictions"].shape == (1, 1)
    assert answer["original_hw"].tolist() == [303, 384]
    assert answer["cached_image_id"][0].startswith(b"sha256:")


def test_the_next_click_sends_an_id_and_encodes_nothing(client):
    data = bytes_tensor(fresh(COINS))
    before = client.executions("sam2_encoder")
    first = client.infer(image=data, **click(*COIN_XY))
    by_id = bytes_tensor(first["cached_image_id"][0])
    again = client.infer(image_id=by_id, **click(*COIN_XY))
    for name, values in first.items():
        assert np.array_equal(values, again[name]), name
    other = client.infer(image_id=by_id, **click(180, 170))
    assert not np.array_equal(other["masks"], first["masks"])
    assert client.executions("sam2_encoder") == before + 1


def test_every_format_holds_the_same_mask(client):
    formats = bytes_tensor(b"bitmap", b"logits", b"rle", b"png")
    answer = client.infer(
        image=bytes_tensor(COINS),
        mask_format=formats,
        multimask_output=np.array([True]),
        **click(*COIN_XY),
    )
    assert answer["masks"].shape == answer["mask_logits"].shape == (1, 3, 303, 384)
    for candidate in range(3):
        mask = answer["masks"][0, candidate]
        assert np.array_equal(answer["mask_logits"][0, candidate] > 0, mask.astype(bool))
        assert np.array_equal(coco_mask.decode(json.loads(answer["masks_rle"][0, candidate])), mask)
        png = Image.open(io.BytesIO(answer["masks_png"][0, candidate]))
        assert np.array_equal(np.asarray(png) > 0, mask.astype(bool))


def test_what_was_not_asked_for_comes_back_empty(client):
    for wanted, present in (((b"rle",), "masks_rle"), ((), None)):
        answer = client.infer(
            image=bytes_tensor(COINS), mask_format=bytes_tensor(*wanted), **click(*COIN_XY)
        )
        for name in ("masks", "mask_logits", "masks_rle", "masks_png"):
            assert (answer[name].size > 0) == (name == present), name
        assert answer["low_res_masks"].size


def test_names_of_the_clients_own_choice(client):
    name = bytes_tensor(f"slide 7/α {client.protocol}".encode())
    first = client.infer(image=bytes_tensor(COINS), image_id=name, **click(*COIN_XY))
    assert first["cached_image_id"][0] == name[0]
    again = client.infer(image_id=name, **click(*COIN_XY))
    assert np.array_equal(first["masks"], again["masks"])
    other = client.infer(image=bytes_tensor(photograph("cell.png")), image_id=name, **click(9, 9))
    assert other["original_hw"].tolist() == [660, 550]
    assert client.infer(image_id=name, **click(9, 9))["original_hw"].tolist() == [660, 550]


def test_forgetting_an_image_forgets_all_its_names(client):
    data = bytes_tensor(fresh(COINS))
    content_id = client.infer(image=data, **click(9, 9))["cached_image_id"]
    name = bytes_tensor(b"a second name")
    client.infer(image=data, image_id=name, **click(9, 9))
    forgotten = client.infer(
        "sam2_embedding", ["cached_image_id"], image_id=name, forget=np.array([True])
    )
    assert forgotten["cached_image_id"][0] == name[0]
    for gone in (name, bytes_tensor(content_id[0])):
        with pytest.raises(RefusedError, match="NOT_FOUND: .*image_id: .*send the image again"):
            client.infer(image_id=gone, **click(9, 9))


def test_warming_brings_back_no_embeddings(client):
    data = bytes_tensor(fresh(COINS))
    outputs = ["cached_image_id", "original_hw"]
    warmed = client.infer("sam2_embedding", outputs, image=data)
    assert set(warmed) == set(outputs)
    before = client.executions("sam2_encoder")
    client.infer(image_id=bytes_tensor(warmed["cached_image_id"][0]), **click(9, 9))
    assert client.executions("sam2_encoder") == before


def test_a_cached_click_is_less_than_a_kilobyte_on_the_wire(server):
    from tritonclient.grpc import InferInput
    from tritonclient.grpc._utils import _get_inference_request

    tensors = {"image_id": bytes_tensor(b"sha256:" + b"0" * 64), **click(*COIN_XY)}
    types = {"image_id": "BYTES", "point_coords": "FP32", "point_labels": "INT32"}
    inputs = []
    for name, values in tensors.items():
        inputs.append(InferInput(name, values.shape, types[name]))
        inputs[-1].set_data_from_numpy(values)
    request = _get_inference_request(
        model_name="sam2",
        inputs=inputs,
        model_version="",
        request_id="",
        outputs=None,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    assert len(request.SerializeToString()) <= 1024


def test_the_python_client_does_the_same_over_both_protocols(server, client):
    for url in (server.grpc_url, f"http://{server.http_url}"):
        with SAM2TritonClient(url) as sam2:
            masks, iou = sam2.segment(COINS, [list(COIN_XY)], [1])
            expected = client.infer(image=bytes_tensor(COINS), **click(*COIN_XY))
            assert np.array_equal(masks, expected["masks"])
            assert np.array_equal(iou, expected["iou_predictions"])
            sam2.set_image(COINS)
            assert np.array_equal(sam2.predict([list(COIN_XY)], [1]).masks, masks)


ORIENTATIONS = range(1, 9)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_coordinates_are_those_of_the_upright_picture(client, orientation):
    """However a camera stores it, the picture people see is the same, and so is the mask of a click on it."""
    upright = opened(COINS)
    stored = upright.transpose(FROM_UPRIGHT[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    answer = client.infer(image=bytes_tensor(encoded(stored, "PNG", exif=exif)), **click(*COIN_XY))
    expected = client.infer(image=bytes_tensor(COINS), **click(*COIN_XY))
    assert answer["original_hw"].tolist() == [303, 384]
    assert np.array_equal(answer["masks"], expected["masks"])


# How a camera that notes this orientation stores an upright picture.
FROM_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}

AS_OTHER_FILES = {
    "jpeg": ("L", "JPEG", {"quality": 95}),
    "progressive jpeg": ("RGB", "JPEG", {"quality": 95, "progressive": True}),
    "cmyk jpeg": ("CMYK", "JPEG", {"quality": 95}),
    "rgb png": ("RGB", "PNG", {}),
    "16-bit png": ("I;16", "PNG", {}),
    "palette png": ("P", "PNG", {}),
    "alpha png": ("RGBA", "PNG", {}),
    "webp": ("RGB", "WEBP", {"quality": 95}),
    "bmp": ("RGB", "BMP", {}),
    "tiff": ("L", "TIFF", {}),
    "16-bit tiff": ("I;16", "TIFF", {}),
}


@pytest.mark.parametrize("name", AS_OTHER_FILES)
def test_the_same_picture_in_another_file_gives_the_same_mask(client, name):
    mode, file_format, options = AS_OTHER_FILES[name]
    picture = opened(COINS)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    answer = client.infer(
        image=bytes_tensor(encoded(picture, file_format, **options)), **click(*COIN_XY)
    )
    expected = client.infer(image=bytes_tensor(COINS), **click(*COIN_XY))
    assert overlap(answer["masks"], expected["masks"]) > 0.97
