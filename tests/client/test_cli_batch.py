"""`triton-sam2 batch`: prompt files, broken images, and being killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from triton_sam2._errors import InvalidInputError, ServerUnavailableError
from triton_sam2._results.masks import rle_to_mask
from triton_sam2.cli._batch_images import find_images
from triton_sam2.cli._batch_prompt_file import read_prompt_file

from tests.client.fake_servers import grpc_server
from tests.client.fakes import png_of

CLIENT_FOLDER = Path(__file__).parents[2] / "client"


@pytest.fixture
def folder(tmp_path):
    """Seven images: two broken, one of them empty."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(5):
        (folder / f"{index}.png").write_bytes(png_of(40, 60 + index, shade=index))
    (folder / "broken.png").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    return folder


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (
            "json",
            {
                "0.png": [
                    {"points": [[30, 20], [1, 2]], "labels": [1, 0]},
                    {"box": [1, 2, 11, 22], "category_id": 5},
                ]
            },
        ),
        (
            "csv",
            "image,object,x,y,label,x0,y0,x1,y1,category_id\n"
            "0.png,a,30,20,1,,,,,\n0.png,b,,,,1,2,11,22,5\n0.png,a,1,2,0,,,,,\n",
        ),
    ],
)
def test_points_and_boxes(run, folder, tmp_path, ending, content):
    prompts, output = write(tmp_path / f"prompts.{ending}", content), tmp_path / "results.json"
    code, out, err = run(
        "batch", folder, "--prompts", prompts, "-o", output, "--overlays", tmp_path / "seen"
    )
    assert (code, err) == (0, "")
    assert "1 images, 2 objects" in out
    first, second = json.loads(output.read_text())
    assert (first["image_id"], first["category_id"], second["category_id"]) == ("0.png", 1, 5)
    assert first["bbox"] == [25, 15, 10, 10]
    assert second["bbox"] == [1, 2, 10, 20]
    assert second["area"] == 200
    assert rle_to_mask(first["segmentation"]).shape == (40, 60)
    overlay = np.asarray(Image.open(tmp_path / "seen" / "0.png.png"))
    assert overlay.shape == (40, 60, 3)
    assert overlay.any(axis=2).sum() == 300


def test_coco_boxes_keep_their_ids(run, folder, tmp_path, sam):
    document = {
        "images": [{"id": 42, "file_name": "1.png"}, {"id": 43, "file_name": "2.png"}],
        "annotations": [
            {
                "id": index,
                "image_id": 42,
                "category_id": index % 3,
                "bbox": [1, 2, 1 + index % 50, 3],
            }
            for index in range(70)
        ],
    }
    prompts, output = write(tmp_path / "instances.json", document), tmp_path / "results.json"
    code, _, err = run("batch", f"{folder}/*.png", "--prompts", prompts, "-o", output)
    assert code == 0, err
    entries = json.loads(output.read_text())
    assert [entry["image_id"] for entry in entries] == [42] * 70
    assert [entry["category_id"] for entry in entries] == [index % 3 for index in range(70)]
    assert [entry["bbox"][2] for entry in entries] == [1 + index % 50 for index in range(70)]
    assert [len(request.inputs["box"]) for request in sam.requests if "box" in request.inputs] == [
        32,
        32,
        6,
    ]
    assert sam.encodes.total() == 1


def test_broken_images_do_not_stop_the_rest(run, folder, tmp_path):
    prompts, output = (
        write(
            tmp_path / "p.json",
            {"*": [{"points": [[30, 20]]}], "gone.png": [{"box": [1, 2, 3, 4]}]},
        ),
        tmp_path / "r.json",
    )
    code, out, err = run("batch", folder, "--prompts", prompts, "-o", output, "--json")
    assert code == 1
    summary = json.loads(out)
    assert (summary["images"], summary["objects"]) == (5, 5)
    assert set(summary["errors"]) == {"broken.png", "empty.png", "gone.png"}
    assert "error: broken.png: image: not an image file" in err
    assert f"error: gone.png: image: {folder} has no file 'gone.png'" in err
    assert [entry["image_id"] for entry in json.loads(output.read_text())] == [
        f"{index}.png" for index in range(5)
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.json", "photos", "r.json"]


def test_a_server_that_goes_away_ends_it_and_it_resumes(run, folder, tmp_path, sam, monkeypatch):
    monkeypatch.setattr("triton_sam2._calls.flows.RetryPolicy.pauses_s", lambda self: iter(()))
    (folder / "broken.png").unlink()
    (folder / "empty.png").unlink()
    prompts, output = (
        write(tmp_path / "p.json", {"*": [{"points": [[30, 20]]}]}),
        tmp_path / "r.json",
    )
    answer, count = sam.infer, 0

    def dies(request):
        nonlocal count
        count += 1
        if count > 3:
            raise ServerUnavailableError("going down")
        return answer(request)

    sam.infer = dies
    code, _, err = run("batch", folder, "--prompts", prompts, "-o", output, "--concurrency", 1)
    assert code == 3
    assert "start it again" in err
    assert not output.exists()
    sam.infer = answer
    sam.requests.clear()
    code, out, err = run("batch", folder, "--prompts", prompts, "-o", output)
    assert code == 0, err
    assert "5 images, 3 of them before, 5 objects" in out
    assert len(sam.requests) == 2


def test_a_journal_of_another_batch_is_refused(run, folder, tmp_path):
    prompts, output = (
        write(tmp_path / "p.json", {"0.png": [{"points": [[30, 20]]}]}),
        tmp_path / "r.json",
    )
    (tmp_path / "r.json.partial").write_text('{"batch": "of something else"}\n')
    code, _, err = run("batch", folder, "--prompts", prompts, "-o", output)
    assert code == 2
    assert "another batch" in err


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.server)])
def address(request, sam):
    """A server, slow enough to be interrupted."""
    if request.param == "real":
        yield request.getfixturevalue("server").grpc_url
        return
    answer = sam.infer

    def slow(request):
        time.sleep(0.005)
        return answer(request)

    sam.infer = slow
    with grpc_server(sam) as (address, _):
        yield address


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed(address, tmp_path):
    """200 images, 5 of them broken; SIGKILL twice, then to the end: equal to an uninterrupted run."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(200):
        content = png_of(20, 30 + index % 50, shade=index) if index % 40 != 7 else b"broken"
        (folder / f"{index:03d}.png").write_bytes(content)
    prompts = write(tmp_path / "p.json", {"*": [{"points": [[12, 9]]}, {"box": [1, 2, 8, 9]}]})

    def start(name):
        return subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-c",
                    "from triton_sam2.cli import app; app()",
                    "batch",
                    str(folder),
                ),
                *(
                    "--prompts",
                    str(prompts),
                    "-o",
                    str(tmp_path / name),
                    "--url",
                    address,
                    "--json",
                ),
            ],
            env=os.environ | {"PYTHONPATH": str(CLIENT_FOLDER)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    journal = tmp_path / "resumed.json.partial"

    def killed_after(lines):
        """Whether it was killed with that much done; a starved test may come too late for that."""
        process = start("resumed.json")
        while process.poll() is None:
            if journal.exists() and len(journal.read_bytes().splitlines()) >= lines:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        _, err = process.communicate()
        if process.returncode == -signal.SIGKILL and journal.exists():
            return True
        assert process.returncode in {1, -signal.SIGKILL}, err.decode()
        (tmp_path / "resumed.json").unlink()
        return False

    assert any(killed_after(30) and killed_after(90) for _ in range(10))
    done_before = journal.read_bytes().count(b"\n") - 1
    with journal.open("ab") as file:
        file.write(b'{"image": "150.png", "entr')  # as if killed while writing
    process = start("resumed.json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert err.decode().count("error:") == 5
    summary = json.loads(out)
    assert (summary["images"], summary["resumed"], len(summary["errors"])) == (195, done_before, 5)
    start("whole.json").communicate(timeout=200)
    resumed, whole = (
        json.loads((tmp_path / name).read_text()) for name in ("resumed.json", "whole.json")
    )
    assert len(whole) == 2 * 195
    assert resumed == whole


TABLES = {
    "as we write it": "image,x,y,label\na.png,80,72,1\n",
    "blanks after commas": "image, x, y, label\na.png, 80, 72, 1\n",
    "pandas, with its index": ",image,x,y,label\n0,a.png,80.0,72.0,1.0\n",
    "capital headers": "Image,X,Y,Label\na.png,80,72,1\n",
    "semicolons and decimal commas": "image;x;y;label\r\na.png;80,0;72,0;1\r\n",
    "tabs": "image\tx\ty\tlabel\na.png\t80\t72\t1\n",
    "Excel's hint": "sep=;\nimage;x;y;label\na.png;80;72;1\n",
    "blank lines": "\n\nimage,x,y,label\n\na.png,80,72,1\n,,,\n",
    "quoted": '"image","x","y","label"\n"a.png","80","72","1"\n',
    "NaN where nothing is": "image,x,y,label,x0,y0,x1,y1,object\na.png,80,72,1,NaN,nan,NaN,NaN,NaN\n",
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_as_people_have_them(tmp_path, kind, encoding):
    path = tmp_path / "p.csv"
    path.write_bytes(TABLES[kind].encode(encoding))
    ((name, (prompt,)),) = read_prompt_file(path).items()
    assert (name, prompt.points_xy, prompt.labels) == ("a.png", [(80.0, 72.0)], [1])
    assert (prompt.box_xyxy, prompt.category_id) == (None, 1)


def test_names_with_commas_keep_them(tmp_path):
    path = write(tmp_path / "p.csv", "image;x;y\na,b.png;1,5;2\n")
    ((name, (prompt,)),) = read_prompt_file(path).items()
    assert (name, prompt.points_xy) == ("a,b.png", [(1.5, 2.0)])


def test_names_of_images(folder, tmp_path):
    nested = tmp_path / "photos" / "a"
    nested.mkdir()
    (nested / "0.png").write_bytes(png_of())
    assert "a/0.png" in find_images(str(folder)).pictures
    assert find_images(str(folder / "0.png")).pictures == ["0.png"]
    assert set(find_images(f"{folder}/**/0.png").pictures) == {"0.png", "a/0.png"}
    with pytest.raises(InvalidInputError, match="no file matches"):
        find_images(str(folder / "*.jpg"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", "{", "is not JSON"),
        ("p.json", "[]", "expected an object"),
        ("p.json", {"a": [{"point": [[1, 2]]}]}, "a: unknown key 'point'"),
        ("p.json", {"a": [{"points": [[1, 2]], "labels": []}]}, "0 labels for 1 points"),
        ("p.json", {"a": [{}]}, "object 1 has no prompt"),
        ("p.json", {"a": [{"box": [1, 2, 3]}]}, "p.json: a: "),
        (
            "p.json",
            {"images": [], "annotations": [{"bbox": [1, 2, 3, 4], "image_id": 1}]},
            "not a COCO file",
        ),
        ("p.csv", "image,x,y\na,1,\n", "line 2: expected x and y"),
        ("p.csv", "image,x,y\n,1,2\n", "line 2: no image"),
        ("p.csv", "image,x,y\na,1,2\na,one,2\n", "line 3: x: expected a number, got 'one'"),
        ("p.csv", "image,x,y\na,80,72\n\n\na,80,oops\n", "line 5: y: expected a number"),
        ("p.csv", 'image,note,x,y\na,"two\nlines",1,2\na,,1,\n', "line 4: expected x and y"),
        ("p.csv", "image,x,y\na,1,2\na,3,4,5\n", "line 3: expected 3 cells like the header, got 4"),
        ("p.csv", "image,x,y,label\na,1,2,1.5\n", "line 2: label: expected a whole number"),
        ("p.csv", "picture,x,y\na,1,2\n", "line 1: expected the columns image and x, y"),
        ("p.csv", "\nimage,x,X,y\na,1,1,2\n", "line 2: the column 'x' stands there twice"),
        (
            "p.csv",
            "image,object,x0,y0,x1,y1\na,1,1,2,3,4\na,1,1,2,3,4\n",
            "line 3: x0, y0, x1, y1: a second box",
        ),
        ("p.csv", "image,object,x,y,category_id\na,1,1,2,3\na,1,1,2,4\n", "line 3: category_id: 4"),
        ("p.json", '{"a": [], "a": []}', "'a' stands there twice"),
        ("p.json", {"a": {"points": [[1, 2]]}}, "a: expected a list of objects"),
        ("p.json", {"a": [{"points": [[1, 2]], "labels": [1.5]}]}, "a: expected a whole number"),
        (
            "p.json",
            {
                "images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}],
                "annotations": [],
            },
            "the id 1 stands for both 'a.png' and 'b.png'",
        ),
        (
            "p.json",
            {"images": [], "annotations": [{"bbox": [1, 2, 3, 4], "image_id": 9}]},
            "annotation 1: no image has the id 9",
        ),
        ("p.csv", "image,x0,y0,x1,y1\na,1,2,3,\n", "line 2: expected x and y, or x0"),
    ],
)
def test_bad_prompt_files_are_located(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(InvalidInputError, match=message):
        read_prompt_file(path)


def test_a_missing_prompt_file(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_prompt_file(tmp_path / "none.json")
