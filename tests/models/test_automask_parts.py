"""The generator's parts against Meta's own functions and against naive ones."""

import numpy as np
import pytest
import torch
from automask_settings import LEAST_VALUES, parse_settings
from candidates import Candidate, PlaneView, box_of, look_at, mask_of, with_mask
from generator_parameters import GeneratorParameters, InvalidParameterError
from mask_answer import answer_tensors, parse_formats
from mask_encoding import InvalidOutputError, OutputLimits
from mask_planes import RunLengths
from mask_selection import MaskSelection
from point_crops import PointCrop, lay_out
from pycocotools import mask as coco_mask
from region_filter import mend_regions
from sam2.utils import amg
from suppression import suppress_boxes, suppress_masks
from torch.nn import functional as F

from tests.automask_reference import GENERATOR, batched_nms
from tests.running_server import ROOT

RNG = np.random.default_rng(0)


def unhindered() -> None:
    """Nobody cancels."""


@pytest.mark.parametrize("hw", [(100, 100), (303, 384), (1000, 37), (3, 5)])
@pytest.mark.parametrize(
    ("layers", "factor", "ratio"), [(0, 1, 0.34), (1, 2, 512 / 1500), (2, 3, 0.9)]
)
def test_crops_and_points_are_metas(hw, layers, factor, ratio):
    parameters = GeneratorParameters(
        points_per_side=10,
        crop_n_layers=layers,
        crop_n_points_downscale_factor=factor,
        crop_overlap_ratio=ratio,
    )
    boxes, layer_of = amg.generate_crop_boxes(hw, layers, ratio)
    grids = amg.build_all_layer_point_grids(10, layers, factor)
    try:
        crops = lay_out(parameters, hw, 10_000, 100)
    except InvalidParameterError:
        assert any(x1 <= x0 or y1 <= y0 for x0, y0, x1, y1 in boxes)
        return
    assert [list(crop.box_xyxy) for crop in crops] == boxes
    for crop, layer in zip(crops, layer_of, strict=True):
        expected = grids[layer] * np.array(crop.hw)[None, ::-1]
        np.testing.assert_array_equal(crop.points_xy, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"points_per_side": 101}, "max_points"),
        ({"crop_n_layers": 3, "points_per_side": 8}, "max_crops"),
        ({"crop_n_layers": 16}, "max_crops"),
        (
            {"crop_n_layers": 1, "crop_n_points_downscale_factor": 33},
            "crop_n_points_downscale_factor",
        ),
        ({"points_per_side": None, "point_grids": [np.zeros((10_001, 2))]}, "point_grids"),
    ],
)
def test_limits_are_named(changes, part):
    with pytest.raises(InvalidParameterError, match=part):
        lay_out(GeneratorParameters(**changes), (50, 60), 10_000, 21)


def test_an_image_too_small_for_its_crops_is_refused():
    with pytest.raises(InvalidParameterError, match="crop_n_layers.*1x1"):
        lay_out(GeneratorParameters(crop_n_layers=1), (1, 1), 10_000, 21)


def random_boxes(count: int) -> np.ndarray:
    corners = RNG.integers(0, 60, (count, 2))
    return np.concatenate([corners, corners + RNG.integers(0, 40, (count, 2))], 1).astype(
        np.float32
    )


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_box_suppression_is_the_references(threshold):
    for count in (0, 1, 40, 200):
        boxes = random_boxes(count)
        scores = (RNG.integers(0, 20, count) / 20).astype(np.float32)  # many are equal
        expected = batched_nms(
            torch.from_numpy(boxes), torch.from_numpy(scores), torch.zeros(count), threshold
        )
        kept = suppress_boxes(boxes, scores, threshold, unhindered)
        assert kept.tolist() == expected.tolist()


def counts_of(mask: np.ndarray) -> bytes:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


@pytest.mark.parametrize(
    ("iou", "containment"), [(0.5, None), (None, 0.7), (0.6, 0.9), (None, None)]
)
def test_mask_suppression_is_the_naive_one(iou, containment):
    masks = []
    for x0, y0, x1, y1 in random_boxes(30).astype(int):
        mask = np.zeros((100, 100), bool)
        mask[y0 : y1 + 1, x0 : x1 + 1] = RNG.random((y1 - y0 + 1, x1 - x0 + 1)) < 0.8
        masks.append(mask)
    scores = RNG.random(30).astype(np.float32)
    kept = []
    for index in np.argsort(-scores):
        shared = [(masks[index] & masks[other]).sum() for other in kept]
        pairs = [(masks[index].sum(), masks[other].sum()) for other in kept]
        too_alike = iou is not None and any(
            s / (a + b - s) > iou for s, (a, b) in zip(shared, pairs, strict=True)
        )
        inside = containment is not None and any(
            s / max(min(a, b), 1) > containment for s, (a, b) in zip(shared, pairs, strict=True)
        )
        if not too_alike and not inside:
            kept.append(index)
    found = suppress_masks(
        [counts_of(mask) for mask in masks],
        (100, 100),
        scores,
        unhindered,
        iou_threshold=iou,
        containment_threshold=containment,
    )
    assert found.tolist() == kept


def test_suppression_asks_whether_anybody_waits():
    def gone() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        suppress_boxes(random_boxes(3), np.ones(3, np.float32), 0.5, gone)
    with pytest.raises(TimeoutError):
        suppress_masks([counts_of(np.ones((2, 2)))], (2, 2), np.ones(1, np.float32), gone)


@pytest.mark.parametrize("area", [1, 4, 30, 10_000])
def test_mended_regions_are_those_of_metas_function(area):
    for share in (0.1, 0.5, 0.9):
        mask = (RNG.random((40, 50)) < share).astype(np.uint8)
        expected, filled = amg.remove_small_regions(mask.astype(bool), area, "holes")
        expected, removed = amg.remove_small_regions(expected, area, "islands")
        mended, changed = mend_regions(mask, area)
        np.testing.assert_array_equal(mended, expected)
        assert changed == (filled or removed)


def test_empty_and_full_masks_are_left_alone():
    for value in (0, 1):
        mask = np.full((5, 6), value, np.uint8)
        mended, _ = mend_regions(mask, 100)
        np.testing.assert_array_equal(mended, mask)


def test_boxes_of_run_lengths():
    for share in (0, 0.01, 0.3, 1):
        mask = RNG.random((17, 23)) < share
        run_lengths = RunLengths((17, 23))
        run_lengths.add(0, mask)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        expected = (columns[0], rows[0], columns[-1], rows[-1]) if rows.size else None
        assert box_of(run_lengths.lengths(), 17) == expected


def view_of(box=(0, 0, 200, 150), hw=(150, 200), **parameters) -> PlaneView:
    crop = PointCrop(box, np.zeros((0, 2), np.float32))
    return PlaneView(crop, hw, GeneratorParameters(**parameters))


def plane(seed: int) -> np.ndarray:
    """A smooth hill of logits, off the edges."""
    y, x = np.mgrid[0:64, 0:64]
    centre_x, centre_y = np.random.default_rng(seed).uniform(20, 44, 2)
    return (9 - np.hypot(x - centre_x, (y - centre_y) * 1.3)).astype(np.float32)


@pytest.mark.parametrize("box", [(0, 0, 200, 150), (30, 20, 170, 140)])
@pytest.mark.parametrize("seed", range(4))
def test_a_candidate_is_what_torch_makes_of_the_plane(box, seed):
    logits = plane(seed)
    x0, y0, x1, y1 = box
    size = (y1 - y0, x1 - x0)
    full = F.interpolate(torch.from_numpy(logits)[None, None], size, mode="bilinear")[0]
    view = view_of(box, stability_score_thresh=0.0, mask_threshold=0.5)
    candidate = look_at(logits, 0.9, np.array([3, 4], np.float32), view)
    mask = np.zeros((150, 200), bool)
    mask[y0:y1, x0:x1] = (full[0] > 0.5).numpy()
    assert (mask_of(candidate, (150, 200)) != mask).sum() <= 1
    assert abs(candidate.area - int(mask.sum())) <= 1
    expected = amg.calculate_stability_score(full, 0.5, 1.0)
    assert candidate.stability_score == pytest.approx(float(expected), abs=1e-3)
    box_found = amg.batched_mask_to_box(torch.from_numpy(mask)[None])[0]
    assert np.abs(np.array(candidate.box_xyxy) - box_found.numpy()).max() <= 1
    assert candidate.point_xy == (3.0 + x0, 4.0 + y0)


def test_filters_drop():
    logits, point = plane(0), np.zeros(2, np.float32)
    kept = look_at(logits, 0.9, point, view_of(stability_score_thresh=0.5))
    stability = kept.stability_score
    for changes, is_kept in (
        ({"stability_score_thresh": stability - 0.01}, True),
        ({"stability_score_thresh": stability + 0.01}, False),
        ({"stability_score_thresh": 0.5, "min_mask_area": kept.area}, True),
        ({"stability_score_thresh": 0.5, "min_mask_area": kept.area + 1}, False),
        ({"stability_score_thresh": 0.5, "max_mask_area": kept.area}, True),
        ({"stability_score_thresh": 0.5, "max_mask_area": kept.area - 1}, False),
    ):
        assert (look_at(logits, 0.9, point, view_of(**changes)) is not None) == is_kept, changes
    nothing = np.full((64, 64), -5, np.float32)
    assert look_at(nothing, 0.9, point, view_of(stability_score_thresh=0.1)) is None
    empty = look_at(nothing, 0.9, point, view_of(stability_score_thresh=0.0))
    assert (empty.area, empty.box_xyxy) == (0, (0, 0, 0, 0))
    assert np.isnan(empty.stability_score)


def test_what_a_crops_edge_cuts_off_is_dropped_unless_the_image_ends_there():
    logits = np.full((64, 64), 5.0, np.float32)  # the whole crop
    point = np.zeros(2, np.float32)
    for box, is_kept in (
        ((0, 0, 200, 150), True),
        ((0, 0, 100, 150), False),
        ((5, 5, 195, 145), True),
    ):
        assert (look_at(logits, 0.9, point, view_of(box)) is not None) == is_kept
        edges = torch.tensor([[box[0], box[1], box[2] - 1, box[3] - 1]])
        local = edges - torch.tensor([box[0], box[1], box[0], box[1]])
        assert bool(amg.is_box_near_crop_edge(local, list(box), [0, 0, 200, 150])) != is_kept


def candidate(mask: np.ndarray, iou: float = 0.9, crop=(0, 0, 50, 40)) -> Candidate:
    return with_mask(Candidate(b"", 0, (0, 0, 0, 0), iou, 1.0, (0.0, 0.0), crop), mask)


def square(x: int, y: int, side: int) -> np.ndarray:
    mask = np.zeros((40, 50), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def selection(**parameters) -> MaskSelection:
    return MaskSelection((40, 50), GeneratorParameters(**parameters), unhindered)


def test_mended_masks_are_suppressed_as_metas_unused_function_does():
    masks = [(RNG.random((40, 50)) < share).astype(np.uint8) for share in (0.3, 0.5, 0.9, 0.97)]
    masks += [square(3, 3, 9), square(3, 4, 9), square(20, 20, 6)]
    found = [
        candidate(mask, iou) for mask, iou in zip(masks, np.linspace(0.99, 0.8, 7), strict=True)
    ]
    data = amg.MaskData(
        rles=amg.mask_to_rle_pytorch(torch.from_numpy(np.array(masks)).bool()),
        boxes=torch.tensor([each.box_xyxy for each in found]),
    )
    static = GENERATOR.SAM2AutomaticMaskGenerator.postprocess_small_regions
    expected = [amg.rle_to_mask(rle) for rle in static(data, 5, 0.7)["rles"]]
    mended = selection(min_mask_region_area=5).finished(found, 100)
    got = [mask_of(each, (40, 50)) for each in mended]
    assert sorted(mask.tobytes() for mask in np.array(got).astype(bool)) == sorted(
        mask.tobytes() for mask in np.array(expected)
    )


def test_smaller_crops_win_among_crops():
    whole, part = (
        candidate(square(5, 5, 10), 0.95),
        candidate(square(5, 5, 10), 0.8, (0, 0, 25, 20)),
    )
    assert selection().among_crops([whole, part]) == [part]


def test_containment_leaves_the_better_of_two_nested_masks():
    rim, relief = candidate(square(5, 5, 20), 0.9), candidate(square(8, 8, 5), 0.8)
    assert selection().finished([rim, relief], 10) == [rim, relief]
    contained = selection(mask_containment_thresh=0.9)
    assert contained.finished([rim, relief], 10) == [rim]


def test_masks_of_one_box_may_differ():
    frame, filling = square(5, 5, 20), square(5, 5, 20)
    frame[6:24, 6:24], filling[5:25, 5:7] = 0, 0
    found = [candidate(frame, 0.9), candidate(filling, 0.8)]
    assert len(selection().within_crop(found)) == 1
    assert len(selection(mask_nms_thresh=0.7).within_crop(found)) == 2


def test_the_number_of_masks_is_bounded():
    found = [candidate(square(4 * i, 0, 3), iou) for i, iou in enumerate((0.8, 0.9, 0.7))]
    assert selection(max_masks=2).finished(found, 10) == found[:2]
    assert selection(max_masks=1).finished(found, 10) == [found[1]]
    with pytest.raises(InvalidParameterError, match="max_masks"):
        selection().finished(found, 2)


LIMITS = OutputLimits(max_output_bytes=10_000, max_encoded_pixels=15_000)


def test_the_answer_has_metas_boxes_and_every_format():
    found = [candidate(square(5, 6, 10)), candidate(square(0, 0, 1))]
    tensors = answer_tensors(
        found, (40, 50), frozenset({"rle", "bitmap", "png"}), LIMITS, unhindered
    )
    assert tensors["bbox"].tolist() == [[5, 6, 9, 9], [0, 0, 0, 0]]
    assert tensors["crop_box"].tolist() == [[0, 0, 50, 40]] * 2
    assert tensors["area"].tolist() == [100, 1]
    np.testing.assert_array_equal(tensors["masks"][0], square(5, 6, 10))
    assert tensors["masks_png"][0].startswith(b"\x89PNG")
    assert b'"size": [40, 50]' in tensors["masks_rle"][1]


def test_no_masks_make_empty_tensors_of_the_right_shapes():
    tensors = answer_tensors([], (40, 50), frozenset({"rle"}), LIMITS, unhindered)
    shapes = {name: values.shape for name, values in tensors.items()}
    assert shapes == {
        "masks_rle": (0,),
        "masks": (0, 0, 0),
        "masks_png": (0,),
        "area": (0,),
        "bbox": (0, 4),
        "predicted_iou": (0,),
        "stability_score": (0,),
        "point_coords": (0, 2),
        "crop_box": (0, 4),
        "original_hw": (2,),
    }


def test_large_answers_are_refused_with_a_way_out():
    found = [candidate(square(0, 0, 1))] * 6
    with pytest.raises(InvalidOutputError, match="max_output_bytes.*rle"):
        answer_tensors(found, (40, 50), frozenset({"bitmap"}), LIMITS, unhindered)
    with pytest.raises(InvalidOutputError, match="max_encoded_pixels"):
        answer_tensors(found[:4], (40, 50), frozenset({"bitmap", "png"}), LIMITS, unhindered)
    with pytest.raises(InvalidOutputError, match="mask_format.*'logits'"):
        parse_formats([b"rle", b"logits"])
    assert parse_formats(None) == {"rle"}
    assert parse_formats([]) == frozenset()


def test_settings_are_read_from_the_configuration():
    given = {name: {"string_value": str(least + 5)} for name, least in LEAST_VALUES.items()}
    settings = parse_settings(given)
    assert settings.generation.prompts_at_once == 6
    assert settings.max_waiting == 5
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = (ROOT / "models/sam2_automask/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert set(config.parameters) == set(LEAST_VALUES)
