import numpy as np
import pytest
from prompt_encoding import (
    InvalidPromptError,
    PromptLimits,
    RawPrompt,
    encode_prompt,
)

HW = (100, 200)
LIMITS = PromptLimits(
    max_objects=4, max_points_per_object=3, max_tokens=20, max_image_pixels=20_000
)


def encode(**tensors):
    arrays = {
        name: np.array(value, np.int32 if name == "point_labels" else np.float32)
        for name, value in tensors.items()
    }
    return encode_prompt(RawPrompt(**arrays), HW, 8, LIMITS)


def test_points_become_fractions_of_width_and_height_and_end_in_a_padding_point():
    prompt = encode(point_coords=[[[50, 25], [200, 100]]], point_labels=[[1, 0]])
    assert prompt.unit_point_coords.tolist() == [[[0.25, 0.25], [1, 1], [0, 0]]]
    assert prompt.token_labels.tolist() == [[1, 0, -1]]
    assert (prompt.dense_mask_input.shape, prompt.has_mask_input.tolist()) == ((1, 1, 8, 8), [0])


def test_box_corners_come_before_the_clicks():
    prompt = encode(box=[[20, 10, 100, 50]], point_coords=[[[200, 0]]], point_labels=[[0]])
    expected = [[0.1, 0.1], [0.5, 0.5], [1, 0], [0, 0]]
    np.testing.assert_allclose(prompt.unit_point_coords[0], expected, rtol=1e-6)
    assert prompt.token_labels.tolist() == [[2, 3, 0, -1]]


def test_a_mask_alone_has_no_token_at_all():
    prompt = encode(mask_input=np.ones((2, 1, 8, 8)))
    assert prompt.token_labels.tolist() == [[-2], [-2]]
    assert prompt.has_mask_input.tolist() == [1, 1]
    assert prompt.dense_mask_input.sum() == 128


@pytest.mark.parametrize(
    "other", [{"box": [[0, 0, 1, 1]] * 2}, {"mask_input": np.ones((2, 1, 8, 8), np.float32)}]
)
def test_empty_points_beside_another_prompt_are_no_points(other):
    empty = encode(point_coords=np.zeros((2, 0, 2)), point_labels=np.zeros((2, 0)), **other)
    for name, array in vars(encode(**other)).items():
        np.testing.assert_array_equal(getattr(empty, name), array)


def test_dtypes_are_the_decoders():
    prompt = encode(box=[[0, 0, 1, 1]])
    assert [array.dtype for array in vars(prompt).values()] == ["f4", "i4", "f4", "f4"]


def test_coordinates_outside_the_image_are_allowed():
    prompt = encode(point_coords=[[[-50, 300]]], point_labels=[[1]])
    assert prompt.unit_point_coords[0, 0].tolist() == [-0.25, 3]


BAD_PROMPTS = {
    "nothing": ({}, "expected a prompt"),
    "no labels": ({"point_coords": [[[1, 1]]]}, "point_labels: expected together"),
    "no points": ({"point_labels": [[1]]}, "point_coords: expected together"),
    "other N": (
        {"point_coords": [[[1, 1]]], "point_labels": [[1, 1]]},
        r"point_labels: expected shape \[1, 1\].* got \[1, 2\]",
    ),
    "other B": (
        {"point_coords": [[[1, 1]]], "point_labels": [[1]], "box": [[0, 0, 1, 1]] * 2},
        "same number of objects.*point_coords has 1.*box has 2",
    ),
    "no objects": ({"box": np.zeros((0, 4))}, "expected 1 to 4 objects.*box has 0"),
    "too many objects": ({"box": [[0, 0, 1, 1]] * 5}, "max_objects.*box has 5"),
    "zero points": (
        {"point_coords": np.zeros((1, 0, 2)), "point_labels": np.zeros((1, 0))},
        "point_coords: expected 1 to 3 points.*got 0",
    ),
    "too many points": (
        {"point_coords": np.zeros((1, 4, 2)), "point_labels": np.zeros((1, 4))},
        "max_points_per_object.*got 4",
    ),
    "nan": (
        {"point_coords": [[[1, np.nan]]], "point_labels": [[1]]},
        "point_coords: expected finite numbers, got nan",
    ),
    "infinite box": ({"box": [[0, 0, np.inf, 1]]}, "box: expected finite numbers, got inf"),
    "nan mask": ({"mask_input": np.full((1, 1, 8, 8), np.nan)}, "mask_input: expected finite"),
    "label 2": (
        {"point_coords": [[[1, 1]]], "point_labels": [[2]]},
        "point_labels: expected 1 .foreground.*got 2",
    ),
    "inverted box": ({"box": [[9, 0, 1, 1]]}, r"box: expected .*x0 <= x1.*object 0"),
}


@pytest.mark.parametrize("name", BAD_PROMPTS)
def test_bad_prompts_are_refused_by_name(name):
    tensors, message = BAD_PROMPTS[name]
    with pytest.raises(InvalidPromptError, match=message):
        encode(**tensors)


def test_points_without_a_point_beside_a_box_are_no_points():
    empty = {"point_coords": np.zeros((1, 0, 2)), "point_labels": np.zeros((1, 0))}
    with_them, without = encode(box=[[0, 0, 1, 1]], **empty), encode(box=[[0, 0, 1, 1]])
    for name, values in vars(without).items():
        assert np.array_equal(getattr(with_them, name), values), name


def test_tokens_of_all_objects_together_are_bounded():
    # 4 objects x (3 points + 1) = 16; a box is 2 more for each.
    points = {"point_coords": np.zeros((4, 3, 2)), "point_labels": np.zeros((4, 3))}
    encode(**points)
    with pytest.raises(
        InvalidPromptError, match=r"20 tokens \(max_tokens\).*4 objects.*3 points.*= 24"
    ):
        encode(**points, box=[[0, 0, 1, 1]] * 4)


@pytest.mark.parametrize("hw", [(0, 5), (5, 0), (-5, -7), (200, 101), (2**31 - 1, 2**31 - 1)])
def test_sizes_that_a_direct_caller_makes_up_are_refused(hw):
    with pytest.raises(InvalidPromptError, match="original_hw: expected .*max_image_pixels"):
        encode_prompt(RawPrompt(box=np.zeros((1, 4), np.float32)), hw, 8, LIMITS)
