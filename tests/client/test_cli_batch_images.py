"""`triton-sam2 batch`: an image is its path below the folder, and nothing less."""

import json

import numpy as np
import pytest
from PIL import Image
from triton_sam2._errors import InvalidInputError
from triton_sam2._results.masks import rle_to_mask
from triton_sam2.cli._batch_images import find_images

from tests.client.fakes import png_of

CLICK = [{"points": [[30, 20]]}]


@pytest.fixture
def batch(run, tmp_path):
    """Runs a batch over a folder: exit code, results by image_id, standard error."""

    def batch(folder, prompts, *options):
        path, output = tmp_path / "prompts.json", tmp_path / "results.json"
        path.write_text(json.dumps(prompts))
        code, _, err = run("batch", folder, "--prompts", path, "-o", output, *options)
        results = {}
        for entry in json.loads(output.read_text()) if output.exists() else []:
            results.setdefault(entry["image_id"], []).append(entry)
        return code, results, err

    return batch


def photo(path, width, shade=0):
    """A picture that its width tells from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_of(40, width, shade))
    return path


def widths(results):
    return {
        name: [entry["segmentation"]["size"][1] for entry in entries]
        for name, entries in results.items()
    }


def coco(*file_names):
    return {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(file_names, start=1)],
        "annotations": [
            {"image_id": i, "category_id": 1, "bbox": [1, 2, 10, 12 + i]}
            for i in range(1, len(file_names) + 1)
        ],
    }


def test_another_folders_image_of_the_same_name_is_missing(batch, tmp_path):
    photo(tmp_path / "train/0001.png", 60)
    code, results, err = batch(tmp_path / "train", coco("train/0001.png", "val/0001.png"))
    assert code == 1
    assert widths(results) == {1: [60]}
    assert "error: val/0001.png: image: " in err
    assert "has no file 'val/0001.png'" in err


def test_names_count_from_the_folder_or_all_from_a_parent(batch, tmp_path):
    photo(tmp_path / "all/train/0001.png", 60)
    folder = tmp_path / "all/train"
    code, results, err = batch(folder, coco("0001.png", "train/0001.png"))
    assert (code, widths(results)) == (1, {1: [60]})
    assert "error: train/0001.png" in err
    for name in ("train/0001.png", "all/train/0001.png", str(folder / "0001.png"), "./0001.png"):
        code, results, err = batch(folder, coco(name))
        assert (code, widths(results)) == (0, {1: [60]}), err


def test_a_file_beside_the_folder_is_not_in_it(batch, tmp_path, monkeypatch):
    photo(tmp_path / "photos/a.png", 60)
    photo(tmp_path / "b.png", 70)
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "../b.png", "photos/../b.png", str(tmp_path / "b.png")):
        code, results, _ = batch("photos", {name: CLICK})
        assert (code, results) == (1, {}), name


def test_same_names_in_two_folders_and_two_endings(batch, tmp_path):
    folder, seen = tmp_path / "photos", tmp_path / "seen"
    names = ["a/1.png", "b/1.png", "1.png", "1.webp", "A/1.png", "a_1.png", "a/1.png.png"]
    for index, name in enumerate(names):
        photo(folder / name, 60 + index)
    for prompts in (
        {"*": CLICK},
        dict.fromkeys(names, CLICK),
        dict.fromkeys(reversed(names), CLICK),
    ):
        code, results, err = batch(folder, prompts, "--overlays", seen)
        assert code == 0, err
        assert widths(results) == {name: [60 + index] for index, name in enumerate(names)}
        for index, name in enumerate(names):
            assert Image.open(seen / f"{name}.png").size == (60 + index, 40)


def test_a_name_that_differs_in_case_is_another_name(batch, tmp_path):
    photo(tmp_path / "photos/a.png", 60)
    code, results, err = batch(tmp_path / "photos", {"A.png": CLICK})
    assert (code, results) == (1, {})
    assert "it has 'a.png', which is another path" in err


def test_two_ids_of_one_picture_keep_their_objects(batch, tmp_path, sam):
    photo(tmp_path / "photos/a.png", 60)
    code, results, err = batch(tmp_path / "photos", coco("a.png", "a.png", "./a.png"))
    assert code == 0, err
    assert {i: entries[0]["bbox"][3] for i, entries in results.items()} == {1: 13, 2: 14, 3: 15}
    assert sam.encodes.total() == 1


def test_crowds_are_prompts_unless_skipped(batch, tmp_path):
    photo(tmp_path / "photos/a.png", 60)
    prompts = coco("a.png", "a.png")
    prompts["annotations"][1]["iscrowd"] = 1
    assert set(batch(tmp_path / "photos", prompts)[1]) == {1, 2}
    assert set(batch(tmp_path / "photos", prompts, "--skip-crowds")[1]) == {1}


def test_linked_files_and_folders_are_images_of_their_own_name(batch, tmp_path):
    photos = tmp_path / "photos"
    photo(photos / "a.png", 60)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "sub").symlink_to(photos)
    (linked / "b.png").symlink_to(photos / "a.png")
    (photos / "again").symlink_to(linked)  # a circle
    code, results, err = batch(linked, {"*": CLICK})
    assert code == 0, err
    assert set(results) == {"b.png", "sub/a.png"}
    assert set(find_images(f"{linked}/**/*.png").files) == {"b.png", "sub/a.png"}


def test_a_folder_has_more_than_pictures(batch, tmp_path):
    photos = tmp_path / "photos"
    photo(photos / "a.png", 60)
    photo(photos / "no ending", 61)
    photo(photos / ".hidden.png", 62)
    photo(photos / ".cache/b.png", 63)
    for name in (".DS_Store", "._a.png", "notes.txt", "BMW.doc", "clicks.csv", "Thumbs.db"):
        (photos / name).write_bytes(b"BMW and other cars")
    code, results, err = batch(photos, {"*": CLICK})
    assert code == 0, err
    assert widths(results) == {"a.png": [60], "no ending": [61]}
    code, results, _ = batch(photos, {".hidden.png": CLICK, "notes.txt": CLICK})
    assert (code, widths(results)) == (1, {".hidden.png": [62]})


def test_pictures_that_the_server_refuses_are_not_left_out(batch, tmp_path):
    photo(tmp_path / "photos/a.png", 60)
    (tmp_path / "photos/b.heic").write_bytes(b"\0\0\0\x18ftypheic")
    code, results, err = batch(tmp_path / "photos", {"*": CLICK})
    assert (code, set(results)) == (1, {"a.png"})
    assert "error: b.heic: " in err


@pytest.mark.parametrize("overlays", ["photos", "photos/seen", "photos/sub/seen"])
def test_a_batch_never_takes_its_own_files_for_images(run, tmp_path, overlays):
    photos = tmp_path / "photos"
    photo(photos / "a.png", 60)
    photo(photos / "sub/a.png", 61)
    prompts, output = photos / "clicks.json", photos / "results.json"
    prompts.write_text(json.dumps({"*": CLICK}))
    for _ in range(3):
        code, out, err = run(
            *("batch", photos, "--prompts", prompts, "-o", output, "--json"),
            *("--overlays", tmp_path / overlays),
        )
        assert (code, json.loads(out)["images"]) == (0, 2), err
        assert [entry["image_id"] for entry in json.loads(output.read_text())] == [
            "a.png",
            "sub/a.png",
        ]


def test_brackets_in_a_folders_name_are_no_pattern(tmp_path):
    photo(tmp_path / "br [1]/a.png", 60)
    photo(tmp_path / "br [1]/x[1].png", 60)
    photo(tmp_path / "br 1/b.png", 60)
    assert find_images(f"{tmp_path}/br [1]/*.png").pictures == ["a.png", "x[1].png"]
    assert find_images(f"{tmp_path}/br [1]/x[1].png").pictures == ["x[1].png"]
    assert find_images(f"{tmp_path}/br [12]/*.png").pictures == ["br 1/b.png"]
    for nothing in ("none/*.png", "none", "x" * 5000, "a\0b"):
        with pytest.raises(InvalidInputError, match="no file matches"):
            find_images(str(tmp_path / nothing) if "\0" not in nothing else nothing)


def test_masks_lie_on_the_picture_of_their_name(batch, tmp_path):
    """By the overlays' own pixels: each is drawn on its own shade."""
    folder, seen = tmp_path / "photos", tmp_path / "seen"
    for index in range(8):
        photo(folder / f"{index}/p.png", 60, shade=index * 20)
    prompts = {f"{i}/p.png": [{"box": [i, 0, i + 3, 3]}] for i in range(8)}
    code, results, err = batch(folder, prompts, "--overlays", seen)
    assert code == 0, err
    for i in range(8):
        mask = rle_to_mask(results[f"{i}/p.png"][0]["segmentation"]) > 0
        assert mask.nonzero()[1].min() == i
        drawn = np.asarray(Image.open(seen / f"{i}/p.png.png"))
        assert (drawn[~mask] == i * 20).all()
        assert (drawn[mask] != i * 20).any()
