"""/v1/everything: what sam2_automask finds, by curl and as pictures."""

import io
import json
import subprocess

import httpx
import numpy as np
import pytest
from front.api_description import EVERYTHING
from front.rest_everything import FIELDS
from PIL import Image
from pycocotools import mask as coco_mask
from triton_sam2 import SAM2TritonClient
from triton_sam2._results.drawing import upright_rgb

from tests.client.test_examples import PHOTO
from tests.patience import PATIENCE_SECONDS
from tests.tools import needs

pytestmark = pytest.mark.server

PARAMETERS = {
    "points_per_side": "6",
    "pred_iou_thresh": "0.5",
    "stability_score_thresh": "0.5",
    "max_masks": "5",
}


@pytest.fixture(scope="module")
def expected(server):
    """The same by our client."""
    with SAM2TritonClient(server.grpc_url) as client:
        found = client.generate(
            PHOTO, **{name: json.loads(value) for name, value in PARAMETERS.items()}
        )
    assert len(found) > 1
    return found


@pytest.fixture(scope="module")
def rest(front):
    with httpx.Client(base_url=f"http://{front.http_url}", timeout=PATIENCE_SECONDS) as client:
        yield client


def post(rest, form, *, with_image=True):
    files = {"image": ("coins.png", PHOTO.read_bytes())} if with_image else None
    return rest.post("/v1/everything", files=files, data=form)


@needs("curl")
def test_a_line_of_curl(front, expected):
    fields = [word for name, value in PARAMETERS.items() for word in ("-F", f"{name}={value}")]
    done = subprocess.run(
        [
            *("curl", "-sS", "-F", f"image=@{PHOTO}", *fields),
            f"http://{front.http_url}/v1/everything",
        ],
        capture_output=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert (answer["height"], answer["width"]) == expected.original_hw
    assert len(answer["masks"]) == len(expected)
    for mask, record in zip(answer["masks"], expected, strict=True):
        assert mask.pop("rle") == record.rle
        for name, value in mask.items():
            np.testing.assert_allclose(value, record[name], rtol=1e-6)


def test_by_id_and_as_polygons(rest, expected):
    first = post(rest, PARAMETERS | {"image_id": "everything"})
    assert first.headers["x-image-id"] == "everything"
    form = PARAMETERS | {"image_id": "everything", "format": "polygons"}
    answer = post(rest, form, with_image=False).json()
    for mask, record in zip(answer["masks"], expected, strict=True):
        corners = np.concatenate([np.array(outline) for outline in mask["polygons"]])
        rows, columns = np.nonzero(record.mask)
        assert corners[:, 0].max() <= columns.max() + 1
        assert corners[:, 1].min() >= rows.min()


def test_pictures(rest, expected):
    labels = post(rest, PARAMETERS | {"format": "labels"})
    seen = np.asarray(Image.open(io.BytesIO(labels.content)))
    np.testing.assert_array_equal(seen, expected.label_image())
    overlay = post(rest, PARAMETERS | {"format": "overlay"})
    assert overlay.headers["content-type"] == "image/png"
    seen = np.asarray(Image.open(io.BytesIO(overlay.content)))
    changed = (seen != upright_rgb(PHOTO)).any(axis=2)
    any_mask = coco_mask.decode([record.rle for record in expected]).any(axis=2)
    assert not changed[~any_mask].any()


@pytest.mark.parametrize(
    ("form", "status", "words"),
    [
        ({"points_per_side": "many"}, 400, "points_per_side: expected a number"),
        ({"points_per_side": "0"}, 400, "points_per_side"),
        ({"points_per_side": "4000"}, 400, "max_points"),
        ({"pred_iou_thresh": '"high"'}, 400, "pred_iou_thresh"),
        ({"point_grids": "[[[2, 2]]]", "points_per_side": "null"}, 400, "point_grids"),
        ({"points": "1"}, 400, "'points': no such field"),
        ({"format": "png"}, 400, "format: expected one of rle, polygons, labels, overlay"),
        ({"image_id": "nobody"}, 404, "send the image again"),
        ({"image_id": "everything", "format": "overlay"}, 400, "overlay needs the image itself"),
        ({}, 400, "expected image"),
    ],
)
def test_mistakes_are_named(rest, form, status, words):
    with_image = status == 400 and "overlay" not in form.values() and bool(form)
    answer = post(rest, form or {"max_masks": "1"}, with_image=with_image)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]


def test_every_field_is_described():
    content = EVERYTHING["requestBody"]["content"]["multipart/form-data"]
    assert set(content["schema"]["properties"]) == FIELDS
