"""The command line against a fake server, in this process."""

import json

import numpy as np
import pytest
from PIL import Image
from triton_sam2._errors import InvalidInputError
from triton_sam2.cli._prompts import read_prompts
from triton_sam2.cli._server_status import cache_figures, inference_counts

from tests.client.fakes import png_of


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png_of(40, 60, shade=100))
    return path


def test_segment_writes_mask_and_overlay(run, photo, tmp_path):
    mask_path, overlay_path = tmp_path / "mask.png", tmp_path / "overlay.png"
    code, out, _ = run(
        "segment", photo, "--point", "30,20", "-o", mask_path, "--overlay", overlay_path
    )
    assert code == 0
    assert "object 1: 100 pixels (4.2%), predicted IoU 0.500" in out
    mask = np.asarray(Image.open(mask_path))
    expected = np.zeros((40, 60), np.uint8)
    expected[15:25, 25:35] = 255
    np.testing.assert_array_equal(mask, expected)
    overlay = np.asarray(Image.open(overlay_path))
    assert overlay.shape == (40, 60, 3)
    assert ((overlay != 100).any(axis=2) == (expected > 0)).all()


def test_several_objects(run, photo, tmp_path, sam):
    code, out, _ = run(
        "segment",
        photo,
        "-p",
        "30,20",
        "-p",
        "12,12,1,2",
        "-p",
        "1,1,0,2",
        "-o",
        tmp_path / "mask.png",
    )
    assert code == 0
    assert "object 2" in out
    assert (tmp_path / "mask-1.png").exists()
    assert (tmp_path / "mask-2.png").exists()
    np.testing.assert_array_equal(sam.requests[0].inputs["point_labels"], [[1, -1], [1, 0]])


def test_a_box(run, photo, sam):
    code, _, _ = run("segment", photo, "--box", "1,2,30,20")
    assert code == 0
    np.testing.assert_array_equal(sam.requests[0].inputs["box"], [[1, 2, 30, 20]])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--point", "1;2"], 2, "--point: expected X,Y[,LABEL[,OBJECT]], got '1;2'"),
        (["--box", "1,2,3"], 2, "--box: expected X0,Y0,X1,Y1"),
        (["--point", "1,2,5"], 2, "point_labels"),
        ([], 2, "give at least one"),
        (["--point", "1,2", "-o", "/nowhere/mask.png"], 2, "cannot write /nowhere/mask.png"),
        (["--point", "1,2", "--url", "ftp://x"], 2, "url"),
        (["--point", "1,2", "--url", "127.0.0.1:9"], 3, "no Triton server answers gRPC"),
        (["--unknown"], 2, "No such option"),
    ],
)
def test_errors_are_readable(run, photo, arguments, code, message):
    got_code, _, err = run("segment", photo, *arguments)
    assert message in err
    assert got_code == code


def test_a_file_that_is_no_image(run, tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("hello")
    code, _, err = run("segment", path, "-p", "1,2")
    assert (code, err) == (2, "error: image: not an image file\n")


def test_help_has_an_example(run):
    code, out, _ = run("segment", "--help")
    assert code == 0
    assert "triton-sam2 segment photo.jpg" in " ".join(out.split())


@pytest.mark.parametrize(
    ("points", "boxes", "message"),
    [
        (["1,2,1,2"], [], "no point for object 1"),
        (["1,2,1,3"], ["1,2,3,4", "1,2,3,4"], "2 boxes for 3 objects"),
        (["1,2,1,0"], [], "OBJECT"),
        (["1,2,0.5"], [], "LABEL"),
        (["1,2,nan"], [], "LABEL"),
    ],
)
def test_prompts_that_do_not_fit_together(points, boxes, message):
    with pytest.raises(InvalidInputError, match=message):
        read_prompts(points, boxes)


def test_boxes_with_points_for_one_of_them():
    prompts = read_prompts(["5,6,0,2"], ["1,2,3,4", "5,6,7,8"])
    assert prompts.point_coords == [[], [(5.0, 6.0)]]
    assert prompts.point_labels == [[], [0]]
    assert prompts.box == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_metrics_are_read():
    text = (
        "# HELP sam2_embedding_cache_hits_total Requests\n"
        "sam2_embedding_cache_hits_total 12\nsam2_embedding_cache_bytes 5e+06\n"
        'nv_inference_count{model="sam2_encoder",version="1"} 7\nnv_gpu{uuid="x"} NaN\n'
    )
    assert cache_figures(text) == {"hits": 12, "bytes": 5e6}
    assert inference_counts(text) == {"sam2_encoder": 7}


def test_status_of_a_server_that_is_not_there(run):
    for scheme in ("grpc", "http"):
        code, _, err = run("status", "--url", f"{scheme}://127.0.0.1:9")
        assert code == 3
        assert f"no Triton server answers {scheme.upper().replace('GRPC', 'gRPC')}" in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--header", "key"], "--header: expected NAME:VALUE"),
        (["--tls", "ca"], "--tls: expected ca="),
        (["--tls", "ca=/nowhere/ca.pem", "--url", "grpcs://x"], "ca_file: no file"),
    ],
)
def test_connection_options_are_checked(run, photo, option, message):
    code, _, err = run("warm", photo, *option)
    assert code == 2
    assert message in err


def test_warm_prints_ids_and_forget_takes_files(run, photo, sam):
    code, out, _ = run("warm", photo)
    assert code == 0
    assert out.startswith(f"{photo}: sha256:")
    assert run("forget", photo)[0] == 0
    assert not sam.sizes
    code, _, err = run("forget", photo)
    assert code == 4
    assert "unknown" in err


def test_polygons_and_json(run, photo, tmp_path):
    path = tmp_path / "outlines.json"
    code, out, _ = run("segment", photo, "-p", "30,20", "--polygons", path, "--json")
    assert code == 0
    assert json.loads(out)["objects"] == [{"bbox": [25, 15, 10, 10], "area": 100, "score": 0.5}]
    ((outline,),) = json.loads(path.read_text())
    assert sorted(outline) == [[25, 15], [25, 24], [34, 15], [34, 24]]
