"""Parameters by Meta's names and defaults; whatever is wrong is named."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
from generator_parameters import (
    NAMES,
    GeneratorParameters,
    InvalidParameterError,
    parse_parameters,
)

from tests.automask_reference import GENERATOR

MAX_BYTES = 10_000
OURS = {
    "min_mask_area",
    "max_mask_area",
    "mask_nms_thresh",
    "mask_containment_thresh",
    "max_masks",
}


def parse(**parameters) -> GeneratorParameters:
    return parse_parameters(json.dumps(parameters).encode(), MAX_BYTES)


def test_names_and_defaults_are_metas():
    signature = inspect.signature(GENERATOR.SAM2AutomaticMaskGenerator.__init__)
    left_out = {"self", "model", "output_mode", "kwargs"}
    theirs = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in left_out
    }
    ours = dataclasses.asdict(GeneratorParameters())
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) == OURS


def test_what_is_ours_is_off_by_default():
    defaults = GeneratorParameters()
    assert all(getattr(defaults, name) in (None, 0) for name in OURS)


@pytest.mark.parametrize("text", [None, b"", b"{}", b" { } "])
def test_nothing_stands_for_the_defaults(text):
    assert parse_parameters(text, MAX_BYTES) == GeneratorParameters()


def test_thresholds_keep_their_decimal_value():
    assert parse(pred_iou_thresh=0.88).pred_iou_thresh == 0.88
    assert parse(pred_iou_thresh=1).pred_iou_thresh == 1.0
    assert parse(points_per_side=16.0).points_per_side == 16


def test_a_grid_takes_the_place_of_points_per_side():
    parameters = parse(point_grids=[[[0.5, 0.25], [1, 0]]])
    assert parameters.points_per_side is None
    np.testing.assert_array_equal(parameters.point_grids[0], [[0.5, 0.25], [1, 0]])


WRONG = {
    "points_per_side": [0, -1, 1.5, "32", True, [32], 10**9],
    "points_per_batch": [0, None, 2.5, "a"],
    "pred_iou_thresh": [-0.1, 1.1, "0.8", None, True],
    "stability_score_thresh": [-0.1, 1.1, None],
    "stability_score_offset": [-1, 1e9, None],
    "mask_threshold": [-1e9, "0", None],
    "box_nms_thresh": [-0.1, 1.1, None],
    "crop_n_layers": [-1, 17, 0.5, None],
    "crop_nms_thresh": [-0.1, 1.1, None],
    "crop_overlap_ratio": [-0.1, 1.1, None],
    "crop_n_points_downscale_factor": [0, 1.5, None],
    "point_grids": [[], [[]], [[[0.5]]], [[[0.5, 1.1]]], [[[0.5, "a"]]], 3, [3], [[[True, 0]]]],
    "min_mask_region_area": [-1, 0.5, None],
    "use_m2m": [1, "true", None],
    "multimask_output": [0, None],
    "min_mask_area": [-1, None],
    "max_mask_area": [0, "a"],
    "mask_nms_thresh": [-0.1, 1.1, "a"],
    "mask_containment_thresh": [-0.1, 1.1, "a"],
    "max_masks": [0, 1.5, "a"],
}


def test_every_parameter_has_wrong_values_below():
    assert set(WRONG) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(InvalidParameterError, match=f"^{name}.*expected .*got "):
        parse(**{name: value})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"[]", "a JSON object"),
        (b"3", "a JSON object"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 5000, "no JSON"),
        (b'{"points_per_side": 1' + b"0" * 5000 + b"}", "no JSON"),
        (b'{"pred_iou_thresh": NaN}', "finite"),
        (b'{"pred_iou_thresh": 1e999}', "pred_iou_thresh"),
        (b'{"points_per_sid": 3}', 'unknown name "points_per_sid"; known are points_per_side'),
        (b'{"use_m2m": true, "use_m2m": false}', "twice"),
        (b" " * (MAX_BYTES + 1), "max_parameters_bytes"),
        (b'{"points_per_side": null}', "points_per_side"),
        (b'{"points_per_side": 3, "point_grids": [[[0, 0]]]}', "point_grids"),
        (b'{"crop_n_layers": 1, "point_grids": [[[0, 0]]]}', "point_grids: expected 2"),
        (b'{"min_mask_area": 9, "max_mask_area": 8}', "max_mask_area"),
    ],
)
def test_wrong_texts_and_combinations_are_named(text, part):
    with pytest.raises(InvalidParameterError) as refused:
        parse_parameters(text, MAX_BYTES)
    assert part in str(refused.value)
    assert len(str(refused.value)) < 700
