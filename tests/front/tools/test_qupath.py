"""QuPath's SAM extension, played by its own requests: pixels of a region in, GeoJSON out."""

import base64

import numpy as np
import pytest
import requests
from triton_sam2 import SAM2TritonClient

from tests.front.conftest import ALICE, log_lines
from tests.front.tools.conftest import COIN, COIN_BOX, best_mask
from tests.front.tools.pictures import DISC, fresh_picture
from tests.front.tools.test_pixel_polygons import filled
from tests.patience import wait_until

pytestmark = pytest.mark.server
# What the extension's dialog sends for everything in an image, with fewer points.
GENERATOR = {
    "points_per_side": 4,
    "points_per_batch": 64,
    "pred_iou_thresh": 0.3,
    "stability_score_thresh": 0.3,
    "stability_score_offset": 1.0,
    "box_nms_thresh": 0.7,
    "crop_n_layers": 0,
    "crop_nms_thresh": 0.7,
    "crop_overlap_ratio": 512 / 1500,
    "crop_n_points_downscale_factor": 1,
    "min_mask_region_area": 0,
}


@pytest.fixture
def url(tools_front):
    """As it is typed into the dialog."""
    return f"http://{tools_front.http_url}/tools/qupath/sam/"


def payload(picture: bytes, **fields):
    return {"type": "sam2_l", "b64img": base64.b64encode(picture).decode(), **fields}


def send(url, document, **headers):
    headers = {"accept": "application/json", **headers}
    return requests.post(url, json=document, headers=headers, timeout=120)


def drawn(feature, hw):
    """A feature as geometry libraries fill it."""
    geometry = feature["geometry"]
    polygons = geometry["coordinates"]
    return filled([polygons] if geometry["type"] == "Polygon" else polygons, hw)


def test_its_weights(url):
    for asked in ("sam2_l", "sam2_bp", "sam2_s", "sam2_t"):
        (weights,) = requests.get(f"{url}weights/?type={asked}", timeout=60).json()
        assert weights["type"] == asked
        assert weights.keys() == {"type", "name", "url"}
    assert requests.get(f"{url}weights/?type=vit_h", timeout=60).json() == []
    assert len(requests.get(f"{url}weights/", timeout=60).json()) == 4
    assert requests.get(f"{url}version/", timeout=60).status_code == 200


def test_points(url, photo, clicked):
    (weights,) = requests.get(f"{url}weights/?type=sam2_l", timeout=60).json()
    fields = {"point_coords": [[109, 199]], "point_labels": [1], "multimask_output": True}
    answer = send(url, payload(photo, checkpoint_url=weights["url"], **fields))
    assert answer.status_code == 200
    features = answer.json()
    assert len(features) == 3
    for index, feature in enumerate(features):
        assert feature["type"] == "Feature"
        properties = feature["properties"]
        assert (properties["object_idx"], properties["label"]) == (index, "object")
        assert properties["sam_model"] == "sam2_l"
        assert properties["quality"] == pytest.approx(clicked.iou_predictions[0, index], abs=1e-5)
        # Exact: not by 0.98 and more, but every pixel.
        np.testing.assert_array_equal(drawn(feature, clicked.original_hw), clicked.masks[0, index])


def test_a_box_and_a_point_that_takes_away(server, url, photo):
    x0, y0, x1, y1 = (int(edge) for edge in COIN_BOX)
    with SAM2TritonClient(server.grpc_url) as client:
        expected = client.segment(photo, [[85, 175]], [0], box=[x0, y0, x1, y1])
    fields = {"bbox": [x0, y0, x1, y1], "point_coords": [[85, 175]], "point_labels": [0]}
    (feature,) = send(url, payload(photo, multimask_output=False, **fields)).json()
    mask = drawn(feature, expected.original_hw)
    np.testing.assert_array_equal(mask, best_mask(expected))


def test_everything_in_an_image(server, url, photo):
    with SAM2TritonClient(server.grpc_url) as client:
        expected = client.generate(photo, multimask_output=False, **GENERATOR)
    assert len(expected) > 1
    document = payload(photo, output_type="Single Mask", include_image_edge=False, **GENERATOR)
    features = send(f"{url}automask/", document).json()
    assert len(features) == len(expected)
    for feature, record in zip(features, expected, strict=True):
        np.testing.assert_array_equal(drawn(feature, expected.original_hw), record.mask)
        assert feature["properties"]["quality"] == pytest.approx(record["predicted_iou"], abs=1e-5)


def test_the_same_region_again_encodes_nothing(url, statistics):
    picture = fresh_picture(401)
    x, y = (int(value) for value in DISC)
    fields = {"point_coords": [[x, y]], "point_labels": [1]}
    before = statistics.executions("sam2_encoder")
    assert send(url, payload(picture, **fields)).status_code == 200
    assert statistics.executions("sam2_encoder") == before + 1
    fields["point_coords"] = [[95, 65]]
    assert send(url, payload(picture, **fields)).json()
    document = payload(picture, output_type="Multi-mask (all)", **GENERATOR)
    assert send(f"{url}automask/", document).status_code == 200
    assert statistics.executions("sam2_encoder") == before + 1


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("", {}, 400, "point_coords, bbox: expected at least one point or box"),
        ("", {"type": "vit_l", "bbox": [1, 2, 3, 4]}, 404, "choose a SAM2 model"),
        ("", {"type": None, "bbox": [1, 2, 3, 4]}, 400, "type: expected text, got null"),
        (
            "",
            {"checkpoint_url": "https://a/b.pt", "bbox": [1, 2, 3, 4]},
            404,
            "checkpoint_url: expected",
        ),
        ("", {"bbox": [1, 2, 3]}, 400, "bbox: expected 4 numbers, got 3"),
        ("", {"point_coords": [[1, 2]]}, 400, "point_labels: expected one for each of 1"),
        (
            "",
            {"point_coords": [["1", 2]], "point_labels": [1]},
            400,
            "point_coords[0]: expected a number",
        ),
        (
            "",
            {"point_coords": [[1, 2]], "point_labels": [2]},
            400,
            "point_labels[0]: expected true",
        ),
        (
            "",
            {"bbox": [1, 2, 3, 4], "multimask_output": "yes"},
            400,
            "multimask_output: expected true",
        ),
        ("", {"bbox": [1, 2, 3, 4], "b64mask": "AAAA"}, 400, "b64mask: expected none"),
        ("", {"bbox": [1, 2, 3, 4], "b64img": "@"}, 400, "b64img: expected base64"),
        ("", {"bbox": [1, 2, 3, 4], "b64img": "AAAA"}, 400, "image"),
        ("automask/", {"points_per_side": 1.5}, 400, "points_per_side: expected a whole number"),
        (
            "automask/",
            {"pred_iou_thresh": "a"},
            400,
            "pred_iou_thresh: expected a number, got text",
        ),
        ("automask/", {"points_per_side": -1}, 400, "points_per_side"),
        ("automask/", {"type": "sam3"}, 404, "type: expected one of sam2_l"),
        ("automask/", {"b64img": None}, 400, "b64img: expected an image file"),
    ],
)
def test_mistakes_are_named(url, path, fields, status, words):
    answer = send(url + path, payload(fresh_picture(402), **fields))
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_other_mistakes(url):
    assert send(url, [1]).status_code == 400
    answer = requests.post(url, data=b'{"b64img": "' + b"A" * 81_000_000, timeout=120)
    assert (answer.status_code, "max_request_bytes" in answer.json()["detail"]) == (413, True)
    assert requests.get(f"{url}weights/", timeout=60).status_code == 200


def test_it_cannot_send_a_key(keyed_tools_front, photo):
    """So it is for a front without keys; whoever puts one before it may add the header."""
    url = f"http://{keyed_tools_front.http_url}/tools/qupath/sam/"
    document = payload(photo, point_coords=[[int(COIN[0]), int(COIN[1])]], point_labels=[1])
    answer = send(url, document)
    assert (answer.status_code, "API key" in answer.json()["detail"]) == (401, True)
    assert send(url, document, **{"X-API-Key": ALICE}).status_code == 200
    wait_until(
        lambda: any(
            (line.get("interface"), line.get("tenant")) == ("qupath", "alice")
            for line in log_lines(keyed_tools_front)
        ),
        "a line in the log",
    )
