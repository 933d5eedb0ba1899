"""The command line against the real server."""

import json
import sys
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from skimage import data
from triton_sam2.cli import app
from triton_sam2.cli._server_status import MODELS, inference_counts

pytestmark = pytest.mark.server


@pytest.fixture(params=["grpc", "http"])
def on_server(request, server, monkeypatch, capsys):
    """Runs the command: exit code, stdout, stderr."""
    url = f"{request.param}://{server.grpc_url if request.param == 'grpc' else server.http_url}"
    monkeypatch.setenv("TRITON_URL", url)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["triton-sam2", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            app()
        output = capsys.readouterr()
        return stopped.value.code or 0, output.out, output.err

    return run


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "coffee.jpg"
    Image.fromarray(data.coffee()).save(path, quality=92)
    return path


def test_segment_several_objects_in_every_format(on_server, photo, tmp_path):
    names = ("mask.png", "masks.npy", "masks.npz", "masks.json")
    outputs = [argument for name in names for argument in ("-o", tmp_path / name)]
    code, out, err = on_server(
        *(
            "segment",
            photo,
            "-p",
            "300,200",
            "-p",
            "90,60,1,2",
            "-p",
            "20,20,0,2",
            "--multimask",
            "--json",
        ),
        *(*outputs, "--polygons", tmp_path / "outlines.json", "--overlay", tmp_path / "seen.jpg"),
    )
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["width"], summary["height"]) == (600, 400)
    assert len(summary["objects"]) == 2
    assert len(summary["files"]) == 7
    masks = np.load(tmp_path / "masks.npy")
    assert masks.shape == (2, 3, 400, 600)
    best = np.load(tmp_path / "masks.npz")["iou_predictions"].argmax(axis=1)
    for index in range(2):
        saved = np.asarray(Image.open(tmp_path / f"mask-{index + 1}.png"))
        np.testing.assert_array_equal(saved, masks[index, best[index]] * 255)
    assert len(json.loads((tmp_path / "outlines.json").read_text())) == 2
    assert Image.open(tmp_path / "seen.jpg").size == (600, 400)


def test_status(on_server, server):
    code, out, err = on_server("status", "--metrics-url", server.metrics_url, "--json")
    assert code == 0, err
    status = json.loads(out)
    assert status["is_ready"]
    assert status["models"] == dict.fromkeys(MODELS, True)
    assert {"hits", "misses", "entries", "bytes", "evictions"} <= set(status["cache"])
    code, out, _ = on_server("status", "--metrics-url", "http://127.0.0.1:9/metrics")
    assert code == 0
    assert "sam2_decoder" in out
    assert "--metrics-url" in out


def test_warm_click_forget(on_server, server, photo, tmp_path):
    unique = tmp_path / "unique.jpg"
    unique.write_bytes(photo.read_bytes() + np.random.default_rng().bytes(16))
    code, out, err = on_server("warm", unique, photo, tmp_path / "none.jpg", "--json")
    assert code == 2
    warmed, _, missing = json.loads(out)
    assert warmed["result"].startswith("sha256:")
    assert (warmed["width"], warmed["height"]) == (600, 400)
    assert "cannot read" in missing["error"]
    before = inferences(server)
    assert on_server("segment", unique, "-p", "300,200")[0] == 0
    assert inferences(server)["sam2_encoder"] == before["sam2_encoder"]
    assert on_server("forget", unique)[0] == 0
    code, _, err = on_server("forget", warmed["result"])
    assert code == 4
    assert warmed["result"][7:20] in err


def test_batch(on_server, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes((folder / "rocket.jpg").read_bytes()[:100])
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"*": [{"points": [[200, 150]]}, {"box": [50, 50, 250, 250]}]}))
    code, out, _ = on_server(
        "batch", folder, "--prompts", prompts, "-o", tmp_path / "r.json", "--json"
    )
    assert code == 1
    assert list(json.loads(out)["errors"]) == ["broken.jpg"]
    entries = json.loads((tmp_path / "r.json").read_text())
    assert [entry["image_id"] for entry in entries] == [
        f"{name}.jpg" for name in ("astronaut", "chelsea", "coffee", "rocket") for _ in range(2)
    ]


@pytest.mark.parametrize("arguments", [["-p", "1,2,7"], ["-p", "nan,2"]])
def test_bad_prompts(on_server, photo, arguments):
    code, _, err = on_server("segment", photo, *arguments)
    assert code == 2
    assert err.startswith("error: point_")


def inferences(server):

    with urlopen(server.metrics_url, timeout=60) as response:
        return inference_counts(response.read().decode())
