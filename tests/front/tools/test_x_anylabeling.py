"""X-AnyLabeling's remote server, played by its own requests: marks in pixels in, closed polygons out."""

import base64

import cv2
import numpy as np
import pytest
import requests
from scipy.ndimage import binary_fill_holes
from skimage.measure import label

from tests.front.conftest import ALICE, log_lines
from tests.front.tools.conftest import COIN, COIN_BOX, best_mask
from tests.front.tools.pictures import DISC, fresh_picture
from tests.masks import overlap
from tests.patience import wait_until

pytestmark = pytest.mark.server


@pytest.fixture
def url(tools_front):
    return f"http://{tools_front.http_url}/tools/x_anylabeling"


def point(x, y, kept=1):
    return {"type": "point", "data": [x, y], "label": kept}


def rectangle(box):
    return {"type": "rectangle", "data": list(box), "label": 1}


def payload(picture: bytes, *marks, **fields):
    """What its remote_server sends: the file's own bytes, and the sliders' values."""
    encoded = base64.b64encode(picture).decode()
    params = {"conf_threshold": 0.0, "iou_threshold": 0.0, "epsilon_factor": 0.001}
    if marks:
        params["marks"] = list(marks)
    document = {"model": "sam2.1", "image": f"data:image/jpeg;base64,{encoded}", "params": params}
    return {**document, **fields}


def predict(url, document, key=""):
    headers = {"Content-Type": "application/json", "Token": key}
    return requests.post(f"{url}/v1/predict", json=document, headers=headers, timeout=120)


def drawn(shapes, hw):
    """The shapes filled, as its own export of masks does."""
    canvas = np.zeros(hw, np.uint8)
    for shape in shapes:
        assert shape["label"] == "AUTOLABEL_OBJECT"
        assert shape["shape_type"] == "polygon"
        assert shape["points"][0] == shape["points"][-1]
        assert len(shape["points"]) >= 4
        cv2.fillPoly(canvas, [np.array(shape["points"]).round().astype(np.int32)], 1)
    return canvas


def without_specks(mask: np.ndarray) -> np.ndarray:
    """A mask as the tool's own server draws it: whole, without parts under a fifth of the mean."""
    parts = label(mask, connectivity=2)
    areas = np.bincount(parts.ravel())[1:]
    return binary_fill_holes(np.isin(parts, 1 + np.flatnonzero(areas >= 0.2 * areas.mean())))


def test_its_models(url):
    health = requests.get(f"{url}/health", timeout=60).json()
    assert health["status"] == "healthy"
    assert set(health) == {"status", "models_loaded", "timestamp"}
    answer = requests.get(f"{url}/v1/models", headers={"Token": ""}, timeout=60).json()
    assert answer["success"] is True
    ((name, model),) = answer["data"].items()
    assert [widget["name"] for widget in model["widgets"]][:3] == [
        "button_add_point",
        "button_remove_point",
        "button_add_rect",
    ]
    assert {"name": "mask_fineness_slider", "value": 10} in model["widgets"]
    assert {"display_name", "params", "capabilities", "batch_processing_mode"} <= set(model)
    one = requests.get(f"{url}/v1/models/{name}/info", timeout=60).json()
    assert one == {"success": True, "data": model}


def test_a_point_and_a_rectangle(url, photo, clicked, boxed):
    for mark, expected in ((point(*COIN), clicked), (rectangle(COIN_BOX), boxed)):
        answer = predict(url, payload(photo, mark))
        assert answer.status_code == 200
        document = answer.json()
        assert document["success"] is True
        assert (document["data"]["description"], document["data"]["replace"]) == ("", False)
        shapes = document["data"]["shapes"]
        assert shapes[0]["score"] == pytest.approx(expected.iou_predictions.max(), abs=1e-5)
        mask = without_specks(best_mask(expected))
        assert overlap(mask, best_mask(expected)) >= 0.9
        assert overlap(drawn(shapes, expected.original_hw), mask) >= 0.98


def test_fewer_corners_by_the_slider(url, photo):
    def corners(epsilon_factor):
        document = payload(photo, rectangle(COIN_BOX))
        document["params"]["epsilon_factor"] = epsilon_factor
        return len(predict(url, document).json()["data"]["shapes"][0]["points"])

    assert corners(0.02) < corners(0.001) <= corners(0)


def test_points_that_take_away_and_several_rectangles(url, photo, boxed):
    marks = [rectangle(COIN_BOX), point(*COIN), point(85, 175, 0)]
    mask = drawn(predict(url, payload(photo, *marks)).json()["data"]["shapes"], boxed.original_hw)
    assert mask[199, 109]
    assert not mask[175, 85]
    marks = [rectangle(COIN_BOX), rectangle((30, 20, 90, 80))]
    shapes = predict(url, payload(photo, *marks)).json()["data"]["shapes"]
    assert len({shape["score"] for shape in shapes}) == 2


def test_the_second_click_encodes_nothing(url, statistics):
    picture = fresh_picture(301)
    before = statistics.executions("sam2_encoder")
    assert predict(url, payload(picture, point(*DISC))).json()["success"]
    assert statistics.executions("sam2_encoder") == before + 1
    assert predict(url, payload(picture, point(95, 65))).json()["data"]["shapes"]
    assert statistics.executions("sam2_encoder") == before + 1


def test_nothing_marked_is_nothing_found(url, photo):
    assert predict(url, payload(photo)).json()["data"]["shapes"] == []


@pytest.mark.parametrize(
    ("marks", "fields", "code", "words"),
    [
        ([point(1, 2)], {"model": "sam3"}, "NOT_FOUND", "model: expected sam2.1, got 'sam3'"),
        ([point(1, 2)], {"model": None}, "INVALID_REQUEST", "model: expected text"),
        (
            [point(1, 2)],
            {"image": "data:image/png;base64,@"},
            "INVALID_REQUEST",
            "image: expected base64",
        ),
        ([point(1, 2)], {"image": "AAAA"}, "INVALID_REQUEST", "image"),
        ([point(1, 2)], {"image": None}, "INVALID_REQUEST", "image: expected an image file"),
        (
            [point(1, "2")],
            {},
            "INVALID_REQUEST",
            "params.marks[0].data: expected a number, got text",
        ),
        ([point(1, 2, 5)], {}, "INVALID_REQUEST", "params.marks[0].label: expected true or false"),
        ([{"type": "polygon"}], {}, "INVALID_REQUEST", "params.marks[0].type: expected point"),
        ([{**rectangle(COIN_BOX), "label": 0}], {}, "INVALID_REQUEST", "a rectangle to keep"),
        ([rectangle((1, 2, 3))], {}, "INVALID_REQUEST", "expected 4 numbers, got 3"),
        ([point(1, 2)], {}, "INVALID_REQUEST", "image"),
        (
            [point(1, 2)],
            {"params": [1]},
            "INVALID_REQUEST",
            "params: expected an object, got a list",
        ),
        ([point(1, 2)] * 1001, {}, "INVALID_REQUEST", "at most 1000 points"),
    ],
)
def test_mistakes_are_named(url, marks, fields, code, words):
    answer = predict(url, payload(b"a picture, were it read", *marks, **fields))
    assert answer.status_code == 200
    document = answer.json()
    assert document["success"] is False
    assert document["error"]["code"] == code
    assert words in document["error"]["message"]


def test_other_mistakes(url):
    answer = requests.post(
        f"{url}/v1/predict", data=b'{"image": "' + b"A" * 81_000_000, timeout=120
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, "TOO_LARGE")
    answer = requests.get(f"{url}/v1/models/sam3/info", timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, "NOT_FOUND")
    assert requests.get(f"{url}/health", timeout=60).status_code == 200


def test_the_key_is_its_token(keyed_tools_front, photo):
    url = f"http://{keyed_tools_front.http_url}/tools/x_anylabeling"
    for key in ("", "wrong"):
        answer = predict(url, payload(photo, point(*COIN)), key)
        # A status that is no success: the tool shows it, where it would show nothing found.
        assert answer.status_code == 401
        assert answer.json()["success"] is False
        assert answer.json()["error"]["code"] == "UNAUTHORIZED"
    assert predict(url, payload(photo, point(*COIN)), ALICE).json()["data"]["shapes"]
    wait_until(
        lambda: any(
            (line.get("interface"), line.get("tenant")) == ("x_anylabeling", "alice")
            for line in log_lines(keyed_tools_front)
        ),
        "a line in the log",
    )
