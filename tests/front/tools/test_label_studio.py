"""Label Studio's ML backend, played by its own requests: percent in, brush masks and polygons out."""

import base64
import json

import cv2
import numpy as np
import pytest
import requests

from tests.front.conftest import ALICE, log_lines
from tests.front.tools.conftest import COIN, COIN_BOX, TOKEN, best_mask
from tests.front.tools.image_site import Answer
from tests.front.tools.label_studio_player import (
    LABEL_CONFIG,
    POLYGON_CONFIG,
    brush_module,
    click,
    post,
    prediction_request,
    rectangle,
)
from tests.front.tools.pictures import DISC, fresh_picture
from tests.masks import overlap
from tests.patience import wait_until
from tests.running_front import RunningFront

pytestmark = pytest.mark.server
UPLOADED = "/data/upload/1/coins.png"


@pytest.fixture
def url(tools_front):
    return f"http://{tools_front.http_url}/tools/label_studio"


def decoded(item: dict) -> np.ndarray:
    """A brush mask by Label Studio's own converter."""
    shape = item["original_height"], item["original_width"], 4
    return brush_module().decode_rle(item["value"]["rle"]).reshape(shape)[:, :, 3]


def data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def test_it_is_up_and_set_up(url):
    for path in ("", "/", "/health"):
        answer = requests.get(url + path, timeout=60)
        assert answer.status_code == 200
        assert answer.json() == {"status": "UP", "model_class": "SegmentAnything2"}
    assert requests.get(f"{url}/metrics", timeout=60).json() == {}
    setup = {
        "project": "1.1700000000",
        "schema": LABEL_CONFIG,
        "hostname": "http://localhost:8080",
        "access_token": TOKEN,
        "extra_params": None,
    }
    assert post(url, "setup", setup).json() == {"model_version": "sam2.1"}
    event = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "project": {"id": 1}}
    assert post(url, "webhook", event).status_code == 201


def test_its_health_is_the_servers(tmp_path):
    tools = ("--tools", "label_studio,x_anylabeling")
    with RunningFront("127.0.0.1:1", tmp_path, *tools) as front:
        for tool in ("label_studio", "x_anylabeling"):
            answer = requests.get(f"http://{front.http_url}/tools/{tool}/health", timeout=60)
            assert answer.status_code == 503
            assert "not ready" in answer.text


def test_a_click_is_a_brush_mask(url, site, clicked):
    asked = len(site.asked)
    request = prediction_request(UPLOADED, [click(*COIN, clicked.original_hw)])
    answer = post(url, "predict", request)
    assert answer.status_code == 200
    ((prediction),) = answer.json()["results"]
    (item,) = prediction["result"]
    assert {name: item[name] for name in item if name not in ("id", "value", "score")} == {
        "from_name": "tag",
        "to_name": "image",
        "original_width": clicked.original_hw[1],
        "original_height": clicked.original_hw[0],
        "image_rotation": 0,
        "type": "brushlabels",
        "readonly": False,
    }
    assert item["value"]["format"] == "rle"
    assert item["value"]["brushlabels"] == ["Coin"]
    assert item["score"] == pytest.approx(clicked.iou_predictions.max(), abs=1e-5)
    assert prediction["model_version"] == "sam2.1"
    np.testing.assert_array_equal(decoded(item), best_mask(clicked) * 255)
    # Fetched with the token, from Label Studio and from nowhere else.
    assert site.asked[asked:] == [(UPLOADED, f"Token {TOKEN}")]


def test_a_rectangle_and_a_click_that_takes_away(url, boxed):
    hw = boxed.original_hw
    marks = [rectangle(COIN_BOX, hw)]
    item = post(url, "predict", prediction_request(UPLOADED, marks)).json()["results"][0]["result"][
        0
    ]
    np.testing.assert_array_equal(decoded(item), best_mask(boxed) * 255)
    marks.append(click(60, 50, hw, positive=0))
    answer = post(url, "predict", prediction_request(UPLOADED, marks)).json()
    assert not decoded(answer["results"][0]["result"][0])[50, 60]


def test_a_turned_rectangle_is_the_box_round_it(url, boxed):
    hw = boxed.original_hw
    x0, y0, x1, y1 = COIN_BOX
    # A quarter turn round its first corner, from where it lands on the same pixels.
    turned = rectangle((x1, y0, x1 + (y1 - y0), y0 + (x1 - x0)), hw, rotation=90)
    item = post(url, "predict", prediction_request(UPLOADED, [turned])).json()["results"][0][
        "result"
    ][0]
    assert overlap(decoded(item), best_mask(boxed)) > 0.98


def test_polygons_where_the_project_has_no_brush(url, clicked):
    height, width = clicked.original_hw
    request = prediction_request(UPLOADED, [click(*COIN, clicked.original_hw)], POLYGON_CONFIG)
    items = post(url, "predict", request).json()["results"][0]["result"]
    canvas = np.zeros((height, width), np.uint8)
    for item in items:
        assert item["type"] == "polygonlabels"
        assert item["value"]["polygonlabels"] == ["Coin"]
        corners = np.array(item["value"]["points"]) / 100 * [width, height]
        cv2.fillPoly(canvas, [corners.round().astype(np.int32)], 1)
    assert overlap(canvas, best_mask(clicked)) >= 0.98


def test_the_second_click_encodes_nothing(url, site, statistics):
    site.answers["/data/upload/1/disc.png"] = Answer(fresh_picture(101))
    before = statistics.executions("sam2_encoder")
    first = prediction_request("/data/upload/1/disc.png", [click(*DISC, (120, 180))])
    assert post(url, "predict", first).status_code == 200
    assert statistics.executions("sam2_encoder") == before + 1
    second = prediction_request("/data/upload/1/disc.png", [click(95, 65, (120, 180))])
    assert post(url, "predict", second).json()["results"][0]["result"]
    assert statistics.executions("sam2_encoder") == before + 1


def test_an_image_in_the_task_itself(url, photo, clicked):
    request = prediction_request(data_uri(photo), [click(*COIN, clicked.original_hw)])
    (item,) = post(url, "predict", request).json()["results"][0]["result"]
    np.testing.assert_array_equal(decoded(item), best_mask(clicked) * 255)


def test_an_image_in_a_bucket_is_asked_of_label_studio(url, site, photo, clicked):
    # Label Studio redirects to where the bucket's own URL leads; no token goes there.
    site.answers["/tasks/7/presign/?fileuri=s3%3A%2F%2Fbucket%2Fa%20coin.png"] = Answer(
        status=303, headers={"Location": "/signed.png?signature=1"}
    )
    site.answers["/signed.png?signature=1"] = Answer(photo)
    request = prediction_request("s3://bucket/a coin.png", [click(*COIN, clicked.original_hw)])
    (item,) = post(url, "predict", request).json()["results"][0]["result"]
    np.testing.assert_array_equal(decoded(item), best_mask(clicked) * 255)


def test_a_name_of_other_letters(url, site, photo, clicked):
    site.answers["/data/upload/1/%D1%84%20o.png"] = Answer(photo)
    marks = [click(*COIN, clicked.original_hw)]
    answer = post(url, "predict", prediction_request("/data/upload/1/\u0444 o.png", marks))
    assert answer.status_code == 200


def test_nothing_clicked_is_nothing_predicted(url):
    request = prediction_request(UPLOADED, [])
    request["params"]["context"] = None
    assert post(url, "predict", request).json()["results"] == []


def changed(**fields):
    request = prediction_request(UPLOADED, [click(*COIN, (303, 384))])
    return {**request, **fields}


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (changed(label_config="<View"), 400, "label_config: expected XML"),
        (
            changed(label_config="<!DOCTYPE a [<!ENTITY b 'c'>]><View>&b;</View>"),
            400,
            "declarations",
        ),
        (
            changed(label_config="<View><Image name='image' value='$image'/></View>"),
            400,
            "BrushLabels",
        ),
        (changed(label_config=LABEL_CONFIG.replace("$image", "image")), 400, "$FIELD"),
        (changed(label_config=None), 400, "label_config: expected text, got null"),
        (changed(tasks=[]), 400, "tasks[0]: expected an object, got null"),
        (changed(tasks=[{"id": 7, "data": {}}]), 400, "tasks[0].data.image: expected text"),
        (changed(params={"context": {"result": {}}}), 200, ""),
        (changed(params={"context": {"result": {"a": 1}}}), 400, "expected a list, got an object"),
        (changed(params={"context": {"result": [{"type": "keypointlabels"}]}}), 400, "[0].value"),
        (changed(params={"context": {"result": [{"type": "choices"}]}}), 400, "got none"),
        (prediction_request("data:image/png;base64,@@", [click(1, 1, (9, 9))]), 400, "base64"),
        (prediction_request(data_uri(b"no picture"), [click(1, 1, (9, 9))]), 400, "image"),
        (prediction_request("/data/upload/1/none.png", [click(1, 1, (9, 9))]), 502, "answered 404"),
        (prediction_request("http://169.254.169.254/latest", [click(1, 1, (9, 9))]), 400, "host"),
        (prediction_request("file:///etc/passwd", [click(1, 1, (9, 9))]), 400, "expected an http"),
    ],
)
def test_mistakes_are_named(url, request_, status, words):
    answer = post(url, "predict", request_)
    assert answer.status_code == status
    assert words in answer.json().get("error", "")


def test_other_mistakes(url):
    answer = requests.post(f"{url}/predict", data=b"{", timeout=60)
    assert (answer.status_code, "JSON" in answer.json()["error"]) == (400, True)
    assert requests.get(f"{url}/predict", timeout=60).status_code == 405
    assert requests.get(f"{url}/nothing", timeout=60).status_code == 404
    # And nothing is lost: the next one is served.
    assert requests.get(f"{url}/health", timeout=60).status_code == 200


def test_the_key_is_the_password(keyed_tools_front, photo, clicked):
    url = f"http://{keyed_tools_front.http_url}/tools/label_studio"
    request = prediction_request(data_uri(photo), [click(*COIN, clicked.original_hw)])
    for auth in (None, ("alice", "wrong"), (ALICE, "")):
        answer = post(url, "predict", request, auth)
        assert answer.status_code == 401
        assert "API key" in answer.json()["error"]
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert requests.get(f"{url}/health", timeout=60).status_code == 401
    assert post(url, "predict", request, ("anybody", ALICE)).status_code == 200
    # Nothing is fetched where no host is configured.
    request = prediction_request(UPLOADED, [click(1, 1, (9, 9))])
    answer = post(url, "predict", request, ("anybody", ALICE))
    assert (answer.status_code, "--label-studio-url" in answer.json()["error"]) == (400, True)


def test_it_is_counted_as_itself_and_its_images_are_in_no_log(tools_front, url, photo, clicked):
    request = prediction_request(data_uri(photo), [click(*COIN, clicked.original_hw)])
    assert post(url, "predict", request).status_code == 200
    wait_until(
        lambda: any(
            (line.get("interface"), line.get("call"), line.get("status"))
            == ("label_studio", "predict", "OK")
            for line in log_lines(tools_front)
        ),
        "a line in the log",
    )
    metrics = requests.get(tools_front.metrics_url, timeout=60).text
    assert 'interface="label_studio"' in metrics
    log = tools_front.output()
    assert "base64" not in log
    assert "coins.png" not in log
    assert TOKEN not in log
    assert json.dumps(request)[200:260] not in log
