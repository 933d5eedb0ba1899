"""Requests that are nearly right: each is answered in the tool's own form, none is a fault of the front."""

import base64
import copy
import io
import json
import random

import pytest
import requests
from PIL import Image

from tests.front.conftest import log_lines
from tests.front.tools.cvat_player import HEADERS
from tests.front.tools.label_studio_player import LABEL_CONFIG, click, rectangle
from tests.front.tools.pictures import fresh_picture

pytestmark = pytest.mark.server
IMAGE = base64.b64encode(fresh_picture(601, 130, 100)).decode()
URI = f"data:image/png;base64,{IMAGE}"
BOX = (60, 30, 120, 90)
# Paths, whole requests, and what an error looks like.
TOOLS = {
    "label_studio": (
        "/tools/label_studio/predict",
        {
            "tasks": [{"id": 7, "data": {"image": URI}}],
            "label_config": LABEL_CONFIG,
            "params": {
                "context": {"result": [click(90, 60, (100, 130)), rectangle(BOX, (100, 130))]}
            },
        },
        lambda document: document["error"],
    ),
    "cvat": (
        "/api/function_invocations",
        {
            "image": IMAGE,
            "pos_points": [[90, 60]],
            "neg_points": [[5, 5]],
            "obj_bbox": [[60, 30], [120, 90]],
        },
        lambda document: document["error"],
    ),
    "x_anylabeling": (
        "/tools/x_anylabeling/v1/predict",
        {
            "model": "sam2.1",
            "image": URI,
            "params": {
                "epsilon_factor": 0.001,
                "marks": [
                    {"type": "point", "data": [90, 60], "label": 1},
                    {"type": "rectangle", "data": list(BOX), "label": 1},
                ],
            },
        },
        lambda document: document["error"]["message"],
    ),
    "qupath": (
        "/tools/qupath/sam/",
        {
            "type": "sam2_t",
            "b64img": IMAGE,
            "point_coords": [[90, 60]],
            "point_labels": [1],
            "bbox": list(BOX),
            "multimask_output": True,
        },
        lambda document: document["detail"],
    ),
    "roboflow": (
        "/tools/roboflow/sam2/segment_image",
        {
            "image": {"type": "base64", "value": IMAGE},
            "sam2_version_id": "hiera_tiny",
            "format": "json",
            "multimask_output": True,
            "prompts": {
                "prompts": [
                    {
                        "box": {"x": 90, "y": 60, "width": 60, "height": 60},
                        "points": [{"x": 90, "y": 60, "positive": True}],
                    }
                ]
            },
        },
        lambda document: document["message"],
    ),
}
WRONG = (
    *(None, True, False, 0, -1, 2, 1e308, -1e308, 10**30, 0.5, "", "a", "\u0000", "é" * 50, [], {}),
    *([[]], [[[]]], [None], [1, 2, 3], {"x": 1}, {"": None}, "9" * 400, "data:", "$", "<View/>"),
)


def places(value, path=()):
    """Every place in a document."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        if isinstance(child, dict | list):
            yield from places(child, (*path, key))
        else:
            yield (*path, key)


def mutated(document, chance):
    """A document with one place changed, gone or doubled."""
    document = copy.deepcopy(document)
    path = chance.choice([place for place in places(document) if place])
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    kind = chance.random()
    if kind < 0.15:
        del parent[path[-1]]
    elif kind < 0.25 and isinstance(parent, list):
        parent.append(parent[path[-1]])
    else:
        parent[path[-1]] = copy.deepcopy(chance.choice(WRONG))
    return document


def post(session, tools_front, tool, document):
    headers = {**HEADERS, "x-nuclio-function-name": "triton-sam2"} if tool == "cvat" else {}
    url = f"http://{tools_front.http_url}{TOOLS[tool][0]}"
    return session.post(url, json=document, headers=headers, timeout=120)


@pytest.fixture(scope="module")
def huge():
    """A picture of few bytes and more pixels than are decoded."""
    buffer = io.BytesIO()
    Image.new("1", (12_000, 9_000)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("tool", TOOLS)
def test_huge_pictures(tools_front, tool, huge):
    _, whole, error_of = TOOLS[tool]
    document = json.loads(json.dumps(whole).replace(IMAGE, huge))
    with requests.Session() as session:
        answer = post(session, tools_front, tool, document)
        assert "pixels" in error_of(answer.json())
        assert post(session, tools_front, tool, whole).status_code == 200


@pytest.mark.parametrize("tool", TOOLS)
def test_nearly_right(tools_front, tool):
    _, whole, error_of = TOOLS[tool]
    chance = random.Random(f"nearly right {tool}")
    with requests.Session() as session:
        assert post(session, tools_front, tool, whole).status_code == 200
        refused = 0
        for _ in range(80):
            document = mutated(whole, chance)
            answer = post(session, tools_front, tool, document)
            is_list = isinstance(answer.json(), list)
            if answer.status_code != 200 or (not is_list and answer.json().get("success") is False):
                refused += 1
                words = error_of(answer.json())
                assert isinstance(words, str)
                assert "its log says how" not in words, document
                assert "tell its operator" not in words, document
        assert refused > 25
        assert post(session, tools_front, tool, whole).status_code == 200
    assert [line for line in log_lines(tools_front) if line["event"] == "failure"] == []
