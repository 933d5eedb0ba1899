"""REST as people call it: curl -F, and pictures or JSON back."""

import base64
import io
import json
import re
import subprocess

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from triton_sam2 import SAM2TritonClient
from triton_sam2._results.drawing import upright_rgb

from tests.client.test_examples import PHOTO
from tests.front.conftest import ALICE, log_lines
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.running_front import RunningFront
from tests.running_server import ROOT
from tests.tools import needs

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def expected(server):
    """Masks of two objects, three candidates each, by Triton itself."""
    with SAM2TritonClient(server.grpc_url) as client:
        points = [[[109, 199]], [[60, 50]]]
        return client.segment(PHOTO, points, [[1], [1]], multimask_output=True)


@pytest.fixture
def rest(front):
    with httpx.Client(base_url=f"http://{front.http_url}", timeout=PATIENCE_SECONDS) as client:
        yield client


def image():
    return {"image": ("coins.png", PHOTO.read_bytes())}


@needs("curl")
def test_the_readmes_own_lines(front, tmp_path):
    blocks = re.findall(r"```sh\n([^`]*)```", (ROOT / "README.md").read_text())
    lines = [block for block in blocks if "localhost:8080/v1" in block]
    answers = []
    for block in lines:
        command = block.replace("localhost:8080", front.http_url)
        command = command.replace("all.png", str(tmp_path / "all.png"))
        done = subprocess.run(["sh", "-ec", command], cwd=ROOT, capture_output=True, check=True)
        answers.append(done.stdout)
    segmented, everything, video = answers
    assert json.loads(segmented)["objects"][0]["masks"][0]["rle"]["counts"]
    assert everything == b""
    assert Image.open(tmp_path / "all.png").format == "PNG"
    assert video.count(b'"rle"') == 2


@needs("curl")
def test_the_masks_are_tritons_own(front, expected):
    done = subprocess.run(
        [
            *("curl", "-sS", "-F", f"image=@{PHOTO}", "-F", "point=109,199"),
            *("-F", "multimask=true", f"http://{front.http_url}/v1/segment"),
        ],
        capture_output=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert (answer["height"], answer["width"]) == expected.original_hw
    masks = answer["objects"][0]["masks"]
    np.testing.assert_allclose([m["iou"] for m in masks], expected.iou_predictions[0], atol=1e-6)
    for mask, row in zip(masks, expected.masks[0], strict=True):
        np.testing.assert_array_equal(coco_mask.decode(mask["rle"]), row)


def test_then_by_id(rest, expected):
    first = rest.post("/v1/images", files=image(), data={"image_id": "rest page/é"})
    assert first.status_code == 200
    assert first.json() == {
        "image_id": "rest page/é",
        "width": expected.original_hw[1],
        "height": expected.original_hw[0],
    }
    answer = rest.post("/v1/segment", data={"image_id": "rest page/é", "point": "109,199"})
    assert answer.status_code == 200
    name = answer.headers["x-image-id"]
    assert base64.urlsafe_b64decode(name.removeprefix("base64:")).decode() == "rest page/é"
    (mask,) = answer.json()["objects"][0]["masks"]
    assert coco_mask.decode(mask["rle"]).any()
    assert rest.delete("/v1/images/rest page%2Fé").status_code == 204
    gone = rest.post("/v1/segment", data={"image_id": "rest page/é", "point": "109,199"})
    assert gone.status_code == 404
    assert "send the image" in gone.json()["error"]
    assert rest.delete("/v1/images/rest page%2Fé").status_code == 404


def test_a_png_of_one_object_and_of_two(rest, expected):
    best = expected.best().masks[:, 0]
    form = {"point": "109,199", "multimask": "true", "format": "png"}
    answer = rest.post("/v1/segment", files=image(), data=form)
    assert answer.headers["content-type"] == "image/png"
    seen = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(seen, best[0] * 255)
    form["point"] = ["109,199", "60,50,1,2"]
    answer = rest.post("/v1/segment", files=image(), data=form)
    seen = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(seen, np.where(best[1] > 0, 2, best[0]))


def test_polygons(rest, expected):
    form = {"point": "109,199", "format": "polygons"}
    (mask,) = rest.post("/v1/segment", files=image(), data=form).json()["objects"][0]["masks"]
    corners = np.concatenate([np.array(outline) for outline in mask["polygons"]])
    height, width = expected.original_hw
    assert corners.shape[1] == 2
    assert (corners >= 0).all()
    assert (corners < [width, height]).all()


def test_an_overlay(rest, expected):
    form = {"point": "109,199", "multimask": "true", "format": "overlay"}
    answer = rest.post("/v1/segment", files=image(), data=form)
    seen = np.asarray(Image.open(io.BytesIO(answer.content)))
    photo = upright_rgb(PHOTO)
    changed = (seen != photo).any(axis=2)
    mask = expected.best().masks[0, 0] > 0
    assert not changed[~mask].any()
    assert changed[mask].mean() > 0.9
    form = {"image_id": answer.headers["x-image-id"], "point": "1,1", "format": "overlay"}
    answer = rest.post("/v1/segment", data=form)
    assert answer.status_code == 400
    assert "needs the image itself" in answer.json()["error"]


def test_a_box(rest):
    form = {"box": "80,170,140,230"}
    answer = rest.post("/v1/segment", files=image(), data=form)
    assert len(answer.json()["objects"]) == 1


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"point": "5"}, 400, "point: expected X,Y[,LABEL[,OBJECT]], got '5'"),
        ({"box": "1,2"}, 400, "box: expected X0,Y0,X1,Y1, got '1,2'"),
        ({}, 400, "give at least one point X,Y or box X0,Y0,X1,Y1"),
        ({"point": "1,1,7"}, 400, "point_labels"),
        ({"point": "nan,1"}, 400, "point_coords"),
        ({"point": "1,1", "format": "gif"}, 400, "format: expected one of rle, png"),
        ({"point": "1,1", "multimask": "maybe"}, 400, "multimask: expected true or false"),
        ({"point": "1,1", "colour": "red"}, 400, "'colour': no such field"),
        ({"point": "1,1", "image_id": "x" * 300}, 400, "image_id"),
        ({"point": "1,1", "image_id": ["a", "b"]}, 400, "image_id: expected once"),
    ],
)
def test_mistakes_are_named(rest, form, status, words):
    answer = rest.post("/v1/segment", files=image(), data=form)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert "--" not in answer.json()["error"]


def test_other_mistakes(rest):
    answer = rest.post("/v1/segment", files={"image": b"not an image"}, data={"point": "1,1"})
    assert answer.status_code == 400
    assert "image" in answer.json()["error"]
    assert rest.post("/v1/segment", json={"point": "1,1"}).status_code == 415
    assert rest.post("/v1/segment", data={"point": "1,1"}).status_code == 400
    assert rest.get("/v1/segment").status_code == 405
    assert rest.get("/v1/nothing").status_code == 404
    assert rest.get("/v1/nothing").json()["error"]
    assert rest.post("/v1/images", data={"image_id": "a"}).status_code == 400


def test_its_description(rest):
    page = rest.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    document = rest.get("/openapi.json").json()
    assert set(document["paths"]) == {
        *("/v1/segment", "/v1/everything", "/v1/images", "/v1/images/{image_id}"),
        *("/v1/videos", "/v1/videos/{session_id}"),
        *("/v1/videos/{session_id}/prompt", "/v1/videos/{session_id}/track"),
    }
    form = document["paths"]["/v1/segment"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert set(form["schema"]["properties"]) == {
        *("image", "image_id", "point", "box", "multimask", "format"),
    }


def test_no_cross_origin_calls_by_default(rest):
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    for answer in (
        rest.options("/v1/segment", headers=asked),
        rest.post("/v1/segment", files=image(), data={"point": "1,1"}, headers=asked),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_cross_origin_calls_by_configuration(server, tmp_path):
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    with RunningFront(server.grpc_url, tmp_path, "--cors-origin", "https://example.org") as front:
        url = f"http://{front.http_url}/v1/segment"
        answer = httpx.options(url, headers=asked, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        asked["Origin"] = "https://example.com"
        answer = httpx.options(url, headers=asked, timeout=PATIENCE_SECONDS)
        assert "access-control-allow-origin" not in answer.headers


def test_keys(keyed_front):
    url = f"http://{keyed_front.http_url}/v1/segment"
    form = {"point": "109,199"}
    answer = httpx.post(url, files=image(), data=form, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 401
    headers = {"Authorization": f"Bearer {ALICE}"}
    answer = httpx.post(url, files=image(), data=form, headers=headers, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200
    wait_until(
        lambda: any(
            (line.get("interface"), line.get("tenant")) == ("rest", "alice")
            for line in log_lines(keyed_front)
        ),
        "a line in the log",
    )
