"""CVAT's interactor, played by its own requests: pixels in, a mask and its bounds out."""

import numpy as np
import pytest
import requests
from cvat_sdk.masks import decode_mask
from cvat_sdk.models import LabeledShapeRequest

from tests.front.conftest import ALICE, log_lines
from tests.front.tools.conftest import COIN, COIN_BOX, best_mask
from tests.front.tools.cvat_player import HEADERS, function_facts, invoke, payload, shape_points
from tests.front.tools.pictures import DISC, fresh_picture
from tests.patience import wait_until

pytestmark = pytest.mark.server


@pytest.fixture
def url(tools_front):
    return f"http://{tools_front.http_url}"


def drawn(answer: dict, hw: tuple[int, int]) -> np.ndarray:
    """The mask that CVAT keeps, by its own class of shapes and its own decoder."""
    shape = LabeledShapeRequest(
        type="mask", frame=0, label_id=1, points=[float(value) for value in shape_points(answer)]
    )
    return decode_mask(shape.points, image_width=hw[1], image_height=hw[0])


def test_its_function(url):
    for root in (url, f"{url}/tools/cvat"):
        functions = requests.get(f"{root}/api/functions", headers=HEADERS, timeout=60).json()
        ((name, description),) = functions.items()
        one = requests.get(f"{root}/api/functions/{name}", headers=HEADERS, timeout=60)
        assert one.json() == description
    assert function_facts(description) == {
        "id": "triton-sam2",
        "kind": "interactor",
        "labels": [],
        "state": "ready",
        "description": "Interactive segmentation with Segment Anything 2.1",
        "name": "Segment Anything 2.1",
        "min_pos_points": 1,
        "min_neg_points": 0,
        "startswith_box": False,
        "startswith_box_optional": True,
        "animated_gif": "",
        "version": 2,
    }


def test_a_click_and_a_box(url, photo, clicked, boxed):
    answer = invoke(url, payload(photo, pos_points=[list(COIN)]))
    assert answer.status_code == 200
    answer = answer.json()
    np.testing.assert_array_equal(drawn(answer, clicked.original_hw), best_mask(clicked))
    # No more than the object: the page would have to read the whole frame's rows otherwise.
    x0, y0, x1, y1 = answer["bounds"]
    assert (len(answer["mask"]), len(answer["mask"][0])) == (y1 - y0 + 1, x1 - x0 + 1)
    assert (y1 - y0 + 1) * (x1 - x0 + 1) < best_mask(clicked).size
    x0, y0, x1, y1 = COIN_BOX
    for corners in ([[x0, y0], [x1, y1]], [[x1, y1], [x0, y0]]):
        answer = invoke(url, payload(photo, obj_bbox=corners)).json()
        np.testing.assert_array_equal(drawn(answer, boxed.original_hw), best_mask(boxed))


def test_clicks_that_take_away(url, photo, boxed):
    x0, y0, x1, y1 = COIN_BOX
    fields = {
        "obj_bbox": [[x0, y0], [x1, y1]],
        "pos_points": [list(COIN)],
        "neg_points": [[85, 175]],
    }
    mask = drawn(invoke(url, payload(photo, threshold=0.5, **fields)).json(), boxed.original_hw)
    assert mask[199, 109]
    assert not mask[175, 85]


def test_the_second_click_encodes_nothing(url, statistics):
    picture = fresh_picture(201)
    before = statistics.executions("sam2_encoder")
    assert invoke(url, payload(picture, pos_points=[list(DISC)])).status_code == 200
    assert statistics.executions("sam2_encoder") == before + 1
    assert invoke(url, payload(picture, pos_points=[[95, 65]])).json()["mask"]
    assert statistics.executions("sam2_encoder") == before + 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "obj_bbox: expected at least one point or box"),
        ({"pos_points": [[1, 2, 3]]}, "pos_points[0]: expected 2 numbers, got 3"),
        ({"pos_points": [["a", 2]]}, "pos_points[0]: expected a number, got text"),
        ({"pos_points": "1,2"}, "pos_points: expected a list, got text"),
        ({"neg_points": [[1, None]]}, "neg_points[0]: expected a number, got null"),
        ({"pos_points": [[1, 2]] * 1001}, "at most 1000 elements"),
        ({"pos_points": [[1, 2]], "obj_bbox": [[1, 2]]}, "obj_bbox: expected 2 corners, got 1"),
        ({"pos_points": [[1, 2]], "image": "@@@"}, "image: expected base64"),
        ({"pos_points": [[1, 2]], "image": None}, "image: expected an image file"),
        ({"pos_points": [[1, 2]], "image": "AAAA"}, "image"),
    ],
)
def test_mistakes_are_named(url, photo, fields, words):
    answer = invoke(url, payload(photo, **fields))
    assert answer.status_code == 500
    assert words in answer.json()["error"]


def test_other_mistakes(url, photo):
    answer = invoke(url, payload(photo, pos_points=[list(COIN)]), "yolo")
    assert (answer.status_code, answer.json()["error"]) == (
        500,
        "function: expected triton-sam2, got 'yolo'",
    )
    answer = requests.get(f"{url}/api/functions/yolo", headers=HEADERS, timeout=60)
    assert answer.status_code == 500
    assert invoke(url, [1, 2]).status_code == 500
    headers = {**HEADERS, "x-nuclio-function-name": "triton-sam2"}
    url = f"{url}/api/function_invocations"
    answer = requests.post(
        url, headers=headers, data=b'{"image": "' + b"A" * 81_000_000, timeout=120
    )
    assert (answer.status_code, "max_request_bytes" in answer.json()["error"]) == (500, True)


def test_the_key_in_the_hosts_name(keyed_tools_front, photo):
    """CVAT_NUCLIO_HOST may carry a user and a password: its HTTP library sends them."""
    host = keyed_tools_front.http_url
    answer = invoke(f"http://{host}", payload(photo, pos_points=[list(COIN)]))
    # Not 401: CVAT would hand it on to its page, which would take its user for logged out.
    assert (answer.status_code, "API key" in answer.json()["error"]) == (500, True)
    assert requests.get(f"http://{host}/api/functions", timeout=60).status_code == 500
    answer = invoke(f"http://cvat:{ALICE}@{host}", payload(photo, pos_points=[list(COIN)]))
    assert answer.status_code == 200
    wait_until(
        lambda: any(
            (line.get("interface"), line.get("tenant"), line.get("status"))
            == ("cvat", "alice", "OK")
            for line in log_lines(keyed_tools_front)
        ),
        "a line in the log",
    )
    assert ALICE not in keyed_tools_front.output()


def test_it_is_not_there_unless_asked_for(front):
    for path in ("/api/functions", "/tools/cvat/api/functions", "/tools/label_studio/health"):
        assert requests.get(f"http://{front.http_url}{path}", timeout=60).status_code == 404
