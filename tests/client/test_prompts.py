import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.prompts import prompt_tensors


@pytest.mark.parametrize(
    ("coords", "labels", "expected_coords", "expected_labels"),
    [
        ([[5, 6]], [1], [[[5, 6]]], [[1]]),
        ([[[5, 6], [7, 8]]], [[1, 0]], [[[5, 6], [7, 8]]], [[1, 0]]),
        (np.array([[5.5, 6]]), np.array([True]), [[[5.5, 6]]], [[1]]),
        (
            [[[1, 2]], [[3, 4], [5, 6]]],
            [[1], [0, 1]],
            [[[1, 2], [0, 0]], [[3, 4], [5, 6]]],
            [[1, -1], [0, 1]],
        ),
        ([[], [[3, 4]]], [[], [1]], [[[0, 0]], [[3, 4]]], [[-1], [1]]),
        (
            [np.array([[1, 2]]), [[3, 4], [5, 6]]],
            [[1], [0.0, 1.0]],
            [[[1, 2], [0, 0]], [[3, 4], [5, 6]]],
            [[1, -1], [0, 1]],
        ),
        ([[-10, 1e6]], [-1], [[[-10, 1e6]]], [[-1]]),
    ],
)
def test_points(coords, labels, expected_coords, expected_labels):
    tensors = prompt_tensors(coords, labels)
    assert tensors["point_coords"].dtype == np.float32
    assert tensors["point_labels"].dtype == np.int32
    np.testing.assert_array_equal(tensors["point_coords"], expected_coords)
    np.testing.assert_array_equal(tensors["point_labels"], expected_labels)


@pytest.mark.parametrize(
    ("box", "expected"),
    [([1, 2, 3, 4], [[1, 2, 3, 4]]), ([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4], [5, 6, 7, 8]])],
)
def test_boxes(box, expected):
    tensor = prompt_tensors(box=box)["box"]
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, expected)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 1, 8, 8)])
def test_mask_input_of_one_object(shape):
    assert prompt_tensors(mask_input=np.zeros(shape))["mask_input"].shape == (1, 1, 8, 8)


def test_mask_input_of_several_objects():
    assert prompt_tensors(mask_input=np.zeros((3, 1, 8, 8)))["mask_input"].shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no prompt"),
        ({"point_coords": [[1, 2]]}, "point_labels: missing"),
        ({"point_labels": [1]}, "point_coords: missing"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, r"point_coords: expected x, y pairs"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"point_coords: expected shape \[N, 2\]"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, r"point_coords"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 1]}, "one label per point"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, r"point_labels: .* got \[2\]"),
        ({"point_coords": [[1, 2]], "point_labels": [0.5]}, r"point_labels: .* got \[0.5\]"),
        ({"point_coords": [[1, 2]], "point_labels": ["1"]}, "point_labels: .* got"),
        ({"point_coords": [[1, float("nan")]], "point_labels": [1]}, "point_coords: .*NaN"),
        ({"point_coords": [["a", "b"]], "point_labels": [1]}, "point_coords: expected numbers"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": []}, "at least one point"),
        (
            {"point_coords": np.zeros((0, 3, 2)), "point_labels": np.zeros((0, 3))},
            "point_coords: expected shape",
        ),
        ({"box": [1, 2, 3]}, r"box: expected .* got \[3\]"),
        ({"box": [[1, 2, 3, 4], [1, 2, 3]]}, "box: lists of unequal lengths"),
        ({"box": [1, 2, 3, float("inf")]}, "box: .*infinity"),
        ({"mask_input": np.zeros((3, 8, 8))}, "mask_input: expected one"),
        ({"mask_input": np.zeros((8, 9))}, "mask_input: expected one"),
        ({"mask_input": np.full((8, 8), np.nan)}, "mask_input: .*NaN"),
        (
            {"box": np.zeros((2, 4)), "point_coords": [[1, 2]], "point_labels": [1]},
            "point_coords has 1, .*box has 2",
        ),
    ],
)
def test_bad_prompts_are_named(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        prompt_tensors(**arguments)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([0, 1]))),
        min_size=1,
    )
)
def test_padding_never_adds_or_drops_a_point(objects):
    if not any(objects):
        return
    coords = [[(x, y) for x, y, _ in points] for points in objects]
    labels = [[label for *_, label in points] for points in objects]
    tensors = prompt_tensors(coords, labels)
    for index, points in enumerate(objects):
        real = tensors["point_labels"][index] != -1
        assert real.sum() == len(points)
        got = [
            (*xy, label)
            for xy, label in zip(
                tensors["point_coords"][index][real].tolist(),
                tensors["point_labels"][index][real].tolist(),
                strict=True,
            )
        ]
        assert got == points


EMPTY = [
    (np.zeros((0, 2)), np.zeros(0)),
    ([], []),
    ([], None),
    (None, []),
    ([[], []], [[], []]),
    (np.zeros((2, 0, 2)), np.zeros((2, 0))),
    ([np.zeros((0, 2))], [np.zeros(0, int)]),
]


@pytest.mark.parametrize(("coords", "labels"), EMPTY)
def test_no_points_beside_another_prompt_are_no_points(coords, labels):
    assert set(prompt_tensors(coords, labels, box=[1, 2, 3, 4])) == {"box"}
    assert set(prompt_tensors(coords, labels, mask_input=np.zeros((8, 8)))) == {"mask_input"}
    with pytest.raises(InvalidInputError, match="point_coords|point_labels|no prompt"):
        prompt_tensors(coords, labels)


def test_points_without_labels_are_not_taken_for_none():
    for coords, labels in (([[1, 2]], []), ([], [1])):
        with pytest.raises(InvalidInputError, match="point_"):
            prompt_tensors(coords, labels, box=[1, 2, 3, 4])
