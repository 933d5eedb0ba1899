"""Roboflow's routes for SAM 2, by its own client where that has them, and by plain requests."""

import base64
import io
import json

import cv2
import numpy as np
import pytest
import requests
from inference_sdk import InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError
from PIL import Image
from pycocotools import mask as coco_mask
from triton_sam2 import SAM2TritonClient

from tests.front.conftest import ALICE, BOB, log_lines
from tests.front.tools.conftest import COIN, COIN_BOX, best_mask
from tests.front.tools.image_site import Answer
from tests.front.tools.pictures import DISC, fresh_picture
from tests.masks import overlap
from tests.patience import wait_until

pytestmark = pytest.mark.server


def point(x, y, positive=True):
    return {"points": [{"x": x, "y": y, "positive": positive}]}


def centred(box):
    x0, y0, x1, y1 = box
    return {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "width": x1 - x0, "height": y1 - y0}


@pytest.fixture
def url(tools_front):
    return f"http://{tools_front.http_url}/tools/roboflow"


@pytest.fixture
def client(url):
    """Roboflow's own, told another address and nothing else."""
    return InferenceHTTPClient(api_url=url, api_key="none")


@pytest.fixture(scope="module")
def pixels(photo):
    """The photograph as its client sends arrays: colours, blue first."""
    return np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"))[:, :, ::-1]


@pytest.fixture(scope="module")
def sent(server, pixels):
    """What its client makes of an array (a JPEG file), by Triton itself."""
    picture = cv2.imencode(".jpg", pixels)[1].tobytes()
    with SAM2TritonClient(server.grpc_url) as client:
        return client.segment(
            picture,
            [[COIN], [(60, 50)]],
            [[1], [1]],
            multimask_output=True,
        )


def payload(picture: bytes, prompts=None, **fields):
    image = {"type": "base64", "value": base64.b64encode(picture).decode()}
    return {"api_key": None, "image": image, "prompts": prompts, **fields}


def segment(url, document, path="segment_image", **parts):
    return requests.post(f"{url}/sam2/{path}", json=document, timeout=120, **parts)


def drawn(polygons, hw):
    canvas = np.zeros(hw, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.array(polygon).round().astype(np.int32)], 1)
    return canvas


def without_holes(mask):
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), outlines, -1, 1, -1)


def test_its_own_client(client, pixels, sent):
    prompts = [point(*COIN), point(60, 50)]
    answer = client.sam2_segment_image(pixels, prompts=prompts, sam2_version_id="hiera_large")
    assert answer["time"] > 0
    best = sent.best()
    assert len(answer["predictions"]) == 2
    for row, prediction in enumerate(answer["predictions"]):
        assert prediction["format"] == "polygon"
        assert prediction["confidence"] == pytest.approx(best.iou_predictions[row, 0], abs=1e-4)
        mask = drawn(prediction["masks"], sent.original_hw)
        assert overlap(mask, without_holes(best.masks[row, 0])) >= 0.98


def test_a_box_by_its_centre(url, photo, boxed):
    (prediction,) = segment(url, payload(photo, [{"box": centred(COIN_BOX)}])).json()["predictions"]
    mask = drawn(prediction["masks"], boxed.original_hw)
    assert overlap(mask, without_holes(best_mask(boxed))) >= 0.98


def test_the_ways_to_write_prompts_and_masks_as_rle(url, photo, clicked, boxed):
    one = point(*COIN)
    for prompts in ({"prompts": [one]}, [one], one):
        answer = segment(url, payload(photo, prompts, format="rle")).json()
        (prediction,) = answer["predictions"]
        assert prediction["format"] == "rle"
        np.testing.assert_array_equal(coco_mask.decode(prediction["masks"]), best_mask(clicked))
    # With a box and without, in the order in which they came.
    mixed = [one, {"box": centred(COIN_BOX)}, one]
    predictions = segment(url, payload(photo, mixed, format="rle")).json()["predictions"]
    expected = (best_mask(clicked), best_mask(boxed), best_mask(clicked))
    for prediction, mask in zip(predictions, expected, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(prediction["masks"]), mask)


def test_arrays_and_an_earlier_mask(server, url, photo, clicked):
    answer = segment(url, payload(photo, [point(*COIN)], format="binary"))
    assert answer.headers["content-type"] == "application/octet-stream"
    arrays = np.load(io.BytesIO(answer.content))
    np.testing.assert_array_equal(arrays["masks"][0] > 0, best_mask(clicked) > 0)
    assert arrays["low_res_masks"].shape[0] == 1
    with SAM2TritonClient(server.grpc_url) as client:
        expected = client.segment(
            photo, [COIN], [1], mask_input=arrays["low_res_masks"], multimask_output=False
        )
    fields = {"mask_input": arrays["low_res_masks"].tolist(), "multimask_output": False}
    (prediction,) = segment(url, payload(photo, [point(*COIN)], format="rle", **fields)).json()[
        "predictions"
    ]
    mask = coco_mask.decode(prediction["masks"])
    assert overlap(mask, expected.masks[0, 0]) > 0.99


def test_embed_and_then_segment_encodes_once(url, statistics):
    picture = fresh_picture(501)
    before = statistics.executions("sam2_encoder")
    answer = segment(url, payload(picture, image_id="disc-501"), "embed_image").json()
    assert (answer["image_id"], answer["time"] > 0) == ("disc-501", True)
    assert statistics.executions("sam2_encoder") == before + 1
    assert segment(url, payload(picture), "embed_image").json()["image_id"].startswith("sha256:")
    for x in (DISC[0], 95):
        document = payload(picture, [point(x, 60)], image_id="disc-501", save_logits_to_cache=True)
        assert segment(url, document).json()["predictions"]
    assert statistics.executions("sam2_encoder") == before + 1


def test_an_image_by_its_address(url, site, photo, clicked):
    site.answers["/coins.png"] = Answer(photo)
    document = payload(photo, [point(*COIN)], format="rle")
    document["image"] = {"type": "url", "value": f"{site.url}/coins.png"}
    (prediction,) = segment(url, document).json()["predictions"]
    np.testing.assert_array_equal(coco_mask.decode(prediction["masks"]), best_mask(clicked))
    for value in ("http://169.254.169.254/latest", "file:///etc/passwd", "http://localhost:1/a"):
        document["image"]["value"] = value
        answer = segment(url, document)
        assert (answer.status_code, "expected an http" in answer.json()["message"]) == (400, True)


@pytest.mark.parametrize(
    ("prompts", "fields", "status", "words"),
    [
        (None, {}, 400, "prompts: expected at least one object"),
        ([], {}, 400, "prompts: expected at least one object"),
        ([{}], {}, 400, "prompts[0]: expected a box or points, got neither"),
        ([{"points": [{"x": 1, "y": 2}]}], {}, 400, "prompts[0].points[0].positive: expected true"),
        (
            [{"box": {"x": 1, "y": 2, "width": 3}}],
            {},
            400,
            "prompts[0].box.height: expected a number",
        ),
        ([{"box": {"x": 1, "y": 2, "width": -3, "height": 1}}], {}, 400, "at least 0"),
        ([point(1, 2)] * 65, {}, 400, "prompts: expected at most 64 elements"),
        ("a", {}, 400, "prompts: expected a list, got text"),
        ([point(1, 2)], {"format": "gif"}, 400, "format: expected one of json, rle, binary"),
        ([point(1, 2)], {"sam2_version_id": "hiera_huge"}, 404, "sam2_version_id: expected one of"),
        ([point(1, 2)], {"multimask_output": 2}, 400, "multimask_output: expected true or false"),
        ([point(1, 2)], {"mask_input": [[1.0]]}, 400, "mask_input: expected [1, 1, s, s]"),
        ([point(1, 2)], {"mask_input": [[1.0], [1.0, 2.0]]}, 400, "lists of equal lengths"),
        ([point(1, 2)], {"image": None}, 400, "image: expected an object, got null"),
        ([point(1, 2)], {"image": {"type": "numpy", "value": "AAAA"}}, 400, "base64 or url"),
        ([point(1, 2)], {"image": {"type": "base64", "value": "@"}}, 400, "expected base64"),
        ([point(1, 2)], {"image": {"type": "base64", "value": "AAAA"}}, 400, "image"),
    ],
)
def test_mistakes_are_named(url, prompts, fields, status, words):
    answer = segment(url, payload(b"a picture, were it read", prompts, **fields))
    assert answer.status_code == status
    assert words in answer.json()["message"]


def test_mistakes_as_its_own_client_tells_them(client, pixels, url):
    with pytest.raises(HTTPCallErrorError) as raised:
        client.sam2_segment_image(pixels, prompts=[point(1, 2)], sam2_version_id="hiera_huge")
    assert raised.value.status_code == 404
    assert "sam2_version_id: expected one of" in raised.value.api_message
    answer = requests.post(
        f"{url}/sam2/segment_image", data=b'{"image": "' + b"A" * 81_000_000, timeout=120
    )
    assert (answer.status_code, "max_request_bytes" in answer.json()["message"]) == (413, True)


def test_the_key_in_the_body_the_address_and_a_header(keyed_tools_front, photo, pixels):
    url = f"http://{keyed_tools_front.http_url}/tools/roboflow"
    # As its client sends it unless told otherwise: in the body.
    own = InferenceHTTPClient(api_url=url, api_key=ALICE)
    assert own.sam2_segment_image(pixels, prompts=[point(*COIN)])["predictions"]
    document = payload(photo, [point(*COIN)])
    assert segment(url, document, params={"api_key": ALICE}).status_code == 200
    assert segment(url, document, headers={"Authorization": f"Bearer {BOB}"}).status_code == 200
    for key in (None, "", "wrong", 5, [ALICE]):
        answer = segment(url, {**document, "api_key": key})
        assert (answer.status_code, "API key" in answer.json()["message"]) == (401, True)
    assert requests.post(f"{url}/sam2/segment_image", data=b"{", timeout=60).status_code == 400
    with pytest.raises(HTTPCallErrorError) as raised:
        InferenceHTTPClient(api_url=url, api_key="wrong").sam2_segment_image(pixels, [point(1, 2)])
    assert raised.value.status_code == 401
    wait_until(
        lambda: (
            {
                line.get("tenant")
                for line in log_lines(keyed_tools_front)
                if line.get("interface") == "roboflow"
            }
            >= {"alice", "bob"}
        ),
        "lines in the log",
    )
    log = keyed_tools_front.output()
    assert ALICE not in log
    assert json.dumps(document)[60:120] not in log
