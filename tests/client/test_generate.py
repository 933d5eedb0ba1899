"""`generate` and what comes back: Meta's records, COCO, a label image, pictures; and the command line."""

import asyncio
import io
import json

import numpy as np
import pytest
from PIL import Image
from triton_sam2 import (
    AsyncSAM2TritonClient,
    GeneratedMasks,
    ImageNotFoundError,
    InvalidInputError,
    NoImageError,
    NotRequestedError,
    SAM2TritonClient,
)
from triton_sam2.cli._batch_journal import Journal, file_identity
from triton_sam2.cli._commands import commands
from typer.testing import CliRunner

from tests.client.fake_servers import grpc_server
from tests.client.fakes import AsyncFakeSam, FakeSam, png_of

PHOTO = png_of(40, 60)


@pytest.fixture
def sam():
    return FakeSam()


@pytest.fixture
def client(sam):
    return SAM2TritonClient(_transport=sam)


def test_records_have_metas_keys_and_values(client):
    masks = client.generate(PHOTO)
    assert len(masks) == 3
    assert [record["area"] for record in masks] == [2400, 2200, 2000]
    record = masks[1]
    assert list(record) == [
        "segmentation",
        "area",
        "bbox",
        "predicted_iou",
        "stability_score",
        "point_coords",
        "crop_box",
    ]
    assert record["segmentation"].dtype == bool
    assert record["segmentation"].shape == (40, 60)
    assert record["segmentation"].sum() == record["area"]
    assert record["bbox"] == [5, 0, 54, 39]
    assert record["point_coords"] == [[6.0, 2.0]]
    assert record["crop_box"] == [0, 0, 60, 40]
    assert masks[-1]["predicted_iou"] == pytest.approx(0.8)
    assert [record["area"] for record in masks[:2]] == [2400, 2200]
    with pytest.raises(KeyError):
        record["mask"]
    with pytest.raises(IndexError):
        masks[3]


@pytest.mark.parametrize("formats", ["rle", "bitmap", "png"])
def test_any_format_gives_all_forms(client, formats):
    record = client.generate(PHOTO, formats=formats)[2]
    expected = np.zeros((40, 60), np.uint8)
    expected[:, 10:] = 1
    np.testing.assert_array_equal(record.mask, expected)
    assert record.rle["size"] == [40, 60]
    with Image.open(io.BytesIO(record.png)) as png:
        np.testing.assert_array_equal(np.asarray(png), expected * 255)


def test_figures_alone_have_no_masks(client):
    masks = client.generate(PHOTO, formats=())
    assert masks.area.tolist() == [2400, 2200, 2000]
    with pytest.raises(NotRequestedError, match="formats"):
        masks[0]["segmentation"]


def test_parameters_travel_as_json_under_their_names(client, sam):
    client.generate(
        PHOTO,
        points_per_side=None,
        point_grids=[np.array([[0.5, 0.25]])],
        pred_iou_thresh=np.float64(0.88),
        max_masks=1,
    )
    sent = json.loads(sam.requests[-1].inputs["parameters"][0])
    assert sent == {
        "points_per_side": None,
        "point_grids": [[[0.5, 0.25]]],
        "pred_iou_thresh": 0.88,
        "max_masks": 1,
    }
    assert sam.requests[-1].model == "sam2_automask"


def test_defaults_are_the_servers(client, sam):
    client.generate(PHOTO)
    assert set(sam.requests[-1].inputs) == {"image"}


def test_a_parameter_that_is_no_number_is_refused_here(client):
    with pytest.raises(InvalidInputError, match="points_per_side"):
        client.generate(PHOTO, points_per_side={1, 2})


def test_the_current_image_goes_by_its_id_and_again_once_forgotten(client, sam):
    client.set_image(PHOTO)
    client.generate()
    assert "image" not in sam.requests[-1].inputs
    sam.sizes.clear()
    assert len(client.generate()) == 3
    assert "image" in sam.requests[-1].inputs


def test_an_image_that_is_sent_becomes_the_current_one(client):
    masks = client.generate(PHOTO, image_id="slide 7")
    assert masks.image_id == client.image_id == "slide 7"
    assert client.original_hw == (40, 60)
    with pytest.raises(InvalidInputError, match="image_id"):
        client.generate(client.image, image_id="other")


def test_without_an_image_there_is_nothing_to_generate(client, sam):
    with pytest.raises(NoImageError):
        client.generate()
    sam.sizes["known"] = (4, 4)
    client.set_image(image_id="known")
    sam.sizes.clear()
    with pytest.raises(ImageNotFoundError):
        client.generate()


def test_the_label_image_shows_small_masks_above_large_ones(client):
    labels = client.generate(PHOTO).label_image()
    assert labels.dtype == np.uint16
    assert labels[0].tolist() == [1] * 5 + [2] * 5 + [3] * 50


def test_no_masks_are_a_result_too(client):
    masks = client.generate(PHOTO, max_masks=0)
    assert len(masks) == 0
    assert list(masks) == []
    assert masks.masks.shape == (0, 40, 60)
    assert not masks.label_image().any()
    assert masks.to_coco() == []
    assert masks.overlay(PHOTO).shape == (40, 60, 3)


def test_more_masks_than_labels_are_refused():
    many = 65536
    tensors = {"area": np.ones(many, np.int32)}
    with pytest.raises(InvalidInputError, match="65535"):
        GeneratedMasks("id", (2, 2), tensors).label_image()


def test_coco_has_cocos_own_box(client):
    entries = client.generate(PHOTO).to_coco(image_id=7)
    assert entries[1]["bbox"] == [5.0, 0.0, 55.0, 40.0]
    assert entries[1]["image_id"] == 7
    assert entries[1]["score"] == pytest.approx(0.85)


def test_the_overlay_colours_every_mask(client):
    seen = client.generate(PHOTO).overlay(PHOTO)
    columns = {tuple(seen[20, x]) for x in (2, 7, 30)}
    assert len(columns) == 3
    assert (0, 0, 0) not in columns


def test_files(client, tmp_path):
    masks = client.generate(PHOTO)
    with Image.open(masks.save(tmp_path / "cells.tif")) as tif:
        np.testing.assert_array_equal(np.asarray(tif), masks.label_image())
    with Image.open(masks.save(tmp_path / "cells.png")) as png:
        np.testing.assert_array_equal(np.asarray(png), masks.label_image())
    np.testing.assert_array_equal(np.load(masks.save(tmp_path / "a.npy")), masks.label_image())
    assert len(json.loads(masks.save(tmp_path / "a.json").read_text())) == 3
    with pytest.raises(InvalidInputError, match="ending"):
        masks.save(tmp_path / "a.gif")


def test_asyncio_has_the_same():
    async def run():
        async with AsyncSAM2TritonClient(_transport=AsyncFakeSam()) as client:
            first = await client.generate(PHOTO, max_masks=2)
            return len(first), len(await client.generate())

    assert asyncio.run(run()) == (2, 3)


def everything(address, *arguments):
    return CliRunner().invoke(commands, ["everything", *map(str, arguments), "--url", address])


def test_the_command_writes_results_overlay_and_labels(tmp_path):
    photo = tmp_path / "photo.png"
    photo.write_bytes(PHOTO)
    with grpc_server(FakeSam()) as (address, _):
        done = everything(
            *(address, photo, "-o", tmp_path / "out.json", "--overlay", tmp_path / "seen.png"),
            *("--labels", tmp_path / "cells.tif", "-s", "max_masks=2"),
        )
    assert done.exit_code == 0, done.output
    entries = json.loads((tmp_path / "out.json").read_text())
    assert [entry["area"] for entry in entries] == [2400, 2200]
    assert entries[0]["image_id"] == "photo.png"
    assert entries[0]["stability_score"] == 1
    with Image.open(tmp_path / "cells.tif") as labels:
        assert np.unique(np.asarray(labels)).tolist() == [1, 2]
    assert (tmp_path / "seen.png").exists()


def test_a_folder_is_resumed_and_a_broken_image_reported(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for shade, name in enumerate(("a.png", "b.png")):
        (folder / name).write_bytes(png_of(40, 60, shade))
    (folder / "c.png").write_bytes(b"no image")
    output, sam = tmp_path / "out.json", FakeSam()
    with grpc_server(sam) as (address, _):
        done = everything(address, folder, "-o", output, "--overlay", tmp_path / "seen")
        assert done.exit_code == 1
        assert "c.png" in done.output
        assert {entry["image_id"] for entry in json.loads(output.read_text())} == {"a.png", "b.png"}
        assert {path.name for path in (tmp_path / "seen").iterdir()} == {"a.png.png", "b.png.png"}
        # As if it had been killed after the first image.
        targets = [str((tmp_path / "seen").absolute()), "None"]
        journal = Journal(output, json.dumps([[str(folder)], {}, targets], sort_keys=True))
        journal.add("a.png", file_identity(folder / "a.png"), [])
        journal.close()
        (folder / "c.png").unlink()
        asked = len(sam.requests)
        done = everything(address, folder, "-o", output, "--overlay", tmp_path / "seen", "--json")
    assert json.loads(done.stdout)["resumed"] == 1
    assert len(sam.requests) == asked + 1


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["-s", "points_per_side"], "--set"),
        (["-s", "points_per_side=many"], "JSON"),
        (["-s", "=3"], "--set"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, part):
    (tmp_path / "a.png").write_bytes(PHOTO)
    done = everything("localhost:1", tmp_path / "a.png", "-o", tmp_path / "o.json", *options)
    assert isinstance(done.exception, InvalidInputError)
    assert part in str(done.exception)


def test_two_images_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(PHOTO)
    done = everything("localhost:1", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "o.json")
    assert "both be called" in str(done.exception)
