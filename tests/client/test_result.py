"""Results' helpers, on tables of tiny masks with exact expected values."""

import builtins
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from triton_sam2 import InvalidInputError, MissingExtraError, Segmentation
from triton_sam2._results.drawing import draw_masks, object_color, upright_rgb
from triton_sam2._results.masks import mask_to_polygons, mask_to_rle, rle_box_xywh, rle_to_mask
from triton_sam2._transports.rpc import bytes_tensor


def disc(height, width, x, y, radius):
    rows, columns = np.mgrid[:height, :width]
    return ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).astype(np.uint8)


@pytest.fixture
def result():
    """Two objects with three candidates each on an image of 30×50 pixels."""
    masks = np.stack([[disc(30, 50, 12 + 20 * b, 14, 3 + m) for m in range(3)] for b in range(2)])
    return Segmentation.from_tensors(
        {
            "masks": masks,
            "iou_predictions": np.array([[0.1, 0.8, 0.3], [0.9, 0.2, 0.4]], np.float32),
            "low_res_masks": np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4),
            "cached_image_id": bytes_tensor("cat"),
            "original_hw": np.array([30, 50], np.int32),
        }
    )


def test_best_takes_the_highest_iou_of_each_object(result):
    best = result.best()
    np.testing.assert_array_equal(best.iou_predictions, np.array([[0.8], [0.9]], np.float32))
    np.testing.assert_array_equal(best.masks[:, 0], [result.masks[0, 1], result.masks[1, 0]])
    np.testing.assert_array_equal(
        best.low_res_masks[:, 0], [result.low_res_masks[0, 1], result.low_res_masks[1, 0]]
    )
    assert (best.image_id, best.original_hw) == ("cat", (30, 50))
    np.testing.assert_array_equal(best.best().masks, best.masks)


def test_a_result_cannot_be_changed(result):
    with pytest.raises(AttributeError):
        result.image_id = "dog"


def test_polygons_filled_are_the_masks(result):
    polygons = result.polygons()
    assert [len(outlines) for outlines in polygons] == [1, 1]
    for outlines, mask in zip(polygons, result.best().masks[:, 0], strict=True):
        assert outlines[0].dtype == np.float32
        filled = cv2.fillPoly(np.zeros((30, 50), np.uint8), [outlines[0].astype(np.int32)], 1)
        np.testing.assert_array_equal(filled, mask)


SPECKS = {
    "a pixel": [(5, 10)],
    "two": [(5, 10), (5, 11)],
    "three in a row": [(5, 10), (5, 11), (5, 12)],
    "a diagonal": [(5, 10), (6, 11), (7, 12)],
    "in the corner": [(0, 0)],
}


@pytest.mark.parametrize("kind", SPECKS)
@pytest.mark.parametrize("tolerance_px", [0, 1.5, 30])
def test_outlines_have_three_points_or_more(kind, tolerance_px):
    mask = np.zeros((60, 60), np.uint8)
    for at in SPECKS[kind]:
        mask[at] = 1
    assert mask_to_polygons(mask, tolerance_px) == []
    mask[20:40, 20:40] = 1
    (outline,) = mask_to_polygons(mask, tolerance_px)
    assert len(outline) >= 3
    assert outline.min() == 20
    (rle,) = coco_mask.frPyObjects([outline.reshape(-1).tolist()], 60, 60)
    assert coco_mask.area(rle) == 19 * 19


def test_polygons_of_a_small_square_and_of_nothing():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:6] = 1
    (outline,) = mask_to_polygons(mask, 0)
    assert {tuple(point) for point in outline.tolist()} == {(2, 1), (5, 1), (5, 3), (2, 3)}
    assert mask_to_polygons(np.zeros((6, 8), np.uint8), 0) == []


def test_tolerance_shortens_outlines():
    mask = disc(100, 100, 50, 50, 40)
    exact, rough = mask_to_polygons(mask, 0)[0], mask_to_polygons(mask, 2)[0]
    assert len(rough) < len(exact) / 2


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [([], [0, 0, 0, 0]), ([(2, 3)], [3, 2, 1, 1]), ([(1, 4), (5, 0)], [0, 1, 5, 5])],
)
def test_boxes_of_masks(pixels, expected):
    mask = np.zeros((6, 8), np.uint8)
    for row, column in pixels:
        mask[row, column] = 1
    assert rle_box_xywh(mask_to_rle(mask)) == expected


def test_coco_entries(result):
    entries = result.to_coco(image_id=7, category_id=3)
    assert [entry["category_id"] for entry in entries] == [3, 3]
    assert entries[0]["image_id"] == 7
    assert entries[0]["bbox"] == [8, 10, 9, 9]
    assert entries[0]["area"] == int(result.masks[0, 1].sum())
    assert entries[0]["score"] == pytest.approx(0.8)
    np.testing.assert_array_equal(rle_to_mask(entries[0]["segmentation"]), result.masks[0, 1])
    assert result.to_coco()[0]["image_id"] == "cat"
    json.dumps(entries)


def test_rle_from_the_server_is_handed_on(result):
    texts = np.empty((2, 3), object)
    for at in np.ndindex(2, 3):
        texts[at] = json.dumps(mask_to_rle(result.masks[at])).encode()
    tensors = {name: value for name, value in result.tensors.items() if name != "masks"} | {
        "masks_rle": texts
    }
    from_rle = Segmentation.from_tensors(tensors)
    np.testing.assert_array_equal(from_rle.masks, result.masks)
    assert from_rle.to_coco() == result.to_coco()


def test_pycocotools_measures_our_rle(result):
    from pycocotools import mask as coco

    rles = [entry["segmentation"] for entry in result.to_coco()]
    best = result.best().masks[:, 0].astype(bool)
    assert coco.area(rles).tolist() == [int(mask.sum()) for mask in best]
    expected = (best[0] & best[1]).sum() / (best[0] | best[1]).sum()
    assert coco.iou([rles[0]], [rles[1]], [0])[0, 0] == pytest.approx(expected)


def test_pycocotools_evaluates_our_results_file(result, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    entries = result.to_coco(image_id=1)
    truth = {
        "info": {},
        "images": [{"id": 1, "height": 30, "width": 50}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {**entry, "id": index + 1, "iscrowd": 0} for index, entry in enumerate(entries)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(entries))
    coco = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_supervision_takes_our_masks(result):
    supervision = pytest.importorskip("supervision")
    best = result.best()
    masks = best.masks[:, 0].astype(bool)
    detections = supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks), mask=masks, confidence=best.iou_predictions[:, 0]
    )
    assert detections.area.tolist() == [int(mask.sum()) for mask in masks]
    x, y, width, height = result.to_coco()[0]["bbox"]
    assert detections.xyxy[0].tolist() == [
        x,
        y,
        x + width - 1,
        y + height - 1,
    ]  # its corners are pixels
    scene = np.zeros((30, 50, 3), np.uint8)
    drawn = supervision.MaskAnnotator(
        opacity=1, color_lookup=supervision.ColorLookup.INDEX
    ).annotate(scene, detections)
    np.testing.assert_array_equal(drawn.any(axis=2), masks.any(axis=0))


def test_supervision_reads_our_polygons(result):
    supervision = pytest.importorskip("supervision")
    for outlines, mask in zip(result.polygons(), result.best().masks[:, 0], strict=True):
        filled = supervision.polygon_to_mask(outlines[0].astype(int), (50, 30))
        np.testing.assert_array_equal(filled.astype(np.uint8), mask)


def test_overlay_leaves_the_rest_alone(result):
    image = np.full((30, 50, 3), 100, np.uint8)
    drawn = result.overlay(image)
    masks = result.best().masks[:, 0].astype(bool)
    assert (drawn[~masks.any(axis=0)] == 100).all()
    assert (image == 100).all()
    np.testing.assert_array_equal(drawn[14, 12], np.round(50 + np.array(object_color(0)) / 2))
    np.testing.assert_array_equal(drawn[14, 12 - 4], object_color(0))  # the outline is solid


def test_overlay_follows_the_exif_orientation(result):
    stored = np.zeros((50, 30, 3), np.uint8)
    stored[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view: the first pixel comes to the top right
    buffer = io.BytesIO()
    Image.fromarray(stored).save(buffer, "PNG", exif=exif)
    upright = upright_rgb(buffer.getvalue())
    assert upright.shape == (30, 50, 3)
    assert upright[0, 49].tolist() == [255] * 3
    assert result.overlay(buffer.getvalue()).shape == (30, 50, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_every_kind_of_picture_can_be_drawn_on(mode):
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.full((4, 6), 0x8000, np.uint16)).save(buffer, "PNG")
    else:
        grey = Image.new("RGB", (6, 4), (128, 128, 128))
        (grey.quantize(2) if mode == "P" else grey.convert(mode)).save(buffer, "TIFF")
    pixels = upright_rgb(buffer.getvalue())
    assert pixels.shape == (4, 6, 3)
    assert abs(pixels.astype(int) - 128).max() <= 1


def test_an_overlay_on_another_picture_is_refused(result):
    with pytest.raises(InvalidInputError, match="30, 50"):
        result.overlay(np.zeros((31, 50, 3), np.uint8))
    with pytest.raises(InvalidInputError, match="cannot draw"):
        result.overlay(b"no picture")


def test_colors_of_objects_are_far_apart():
    colors = np.array([object_color(index) for index in range(8)], int)
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 999 * np.eye(8, dtype=int)
    assert distances.min() > 60
    assert draw_masks(np.zeros((2, 2, 3), np.uint8), np.ones((8, 2, 2), np.uint8)).shape == (
        2,
        2,
        3,
    )


def test_save_in_each_format(result, tmp_path):
    paths = result.save(tmp_path / "mask.png")
    assert [path.name for path in paths] == ["mask-1.png", "mask-2.png"]
    for path, mask in zip(paths, result.best().masks[:, 0], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), mask * 255)
    np.testing.assert_array_equal(np.load(result.save(tmp_path / "m.npy")[0]), result.masks)
    with np.load(result.save(str(tmp_path / "m.npz"))[0]) as arrays:
        assert set(arrays) == {"masks", "iou_predictions", "low_res_masks"}
        np.testing.assert_array_equal(arrays["masks"], result.masks)
    assert json.loads((result.save(tmp_path / "m.json")[0]).read_text()) == result.to_coco()


def test_save_says_what_it_can_write(result, tmp_path):
    with pytest.raises(InvalidInputError, match=r"\.png, \.npy, \.npz, \.json"):
        result.save(tmp_path / "mask.gif")
    with pytest.raises(InvalidInputError, match="cannot write"):
        result.save(tmp_path / "none" / "mask.npy")


@pytest.mark.parametrize(("method", "library"), [("polygons", "cv2"), ("to_coco", "pycocotools")])
def test_a_missing_extra_is_named(result, monkeypatch, method, library):
    real_import = builtins.__import__

    def no_library(name, *arguments, **options):
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr("importlib.import_module", no_library)
    with pytest.raises(MissingExtraError, match=rf"{library}.*triton-sam2\[client\]"):
        getattr(result, method)()
