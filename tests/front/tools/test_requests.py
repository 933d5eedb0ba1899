"""What all tools' requests are made of: images as base64, fields, marked objects."""

import base64

import numpy as np
import pytest
from front.refusals import Refusal
from front.tools import fields
from front.tools.encoded_images import decode_image
from front.tools.prompts import ObjectPrompt, ordered_box, prompt_arrays
from front.tools.registry import TOOLS
from front.tools.settings import TOOL_NAMES

CONTENT = bytes(range(256))
TEXT = base64.b64encode(CONTENT).decode()


def test_every_tool_has_its_adapter():
    assert set(TOOLS) == set(TOOL_NAMES)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)) + "\r\n",
        f"data:image/png;base64,{TEXT}",
        f"data:image/svg+xml;charset=utf-8;base64,{TEXT}",
        f"data:;base64,{TEXT}",
    ],
)
def test_images(text):
    assert decode_image("image", text) == CONTENT


@pytest.mark.parametrize(
    "value",
    [
        *(None, 5, [TEXT], "", "@", TEXT + "@", TEXT[:-3], f"{TEXT} {TEXT}", "é"),
        *(
            f"data:image/png,{TEXT}",
            f"data:image/png;base64,{TEXT}=x",
            "data:",
            "data:image/png;base64,",
        ),
    ],
)
def test_what_is_no_image(value):
    with pytest.raises(Refusal, match="image: expected"):
        decode_image("image", value)


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (fields.an_object, [], "expected an object, got a list"),
        (fields.a_list, {}, "expected a list, got an object"),
        (fields.a_text, 1, "expected text, got a number"),
        (fields.a_text, "a" * 2049, "at most 2048 characters"),
        (fields.a_number, True, "expected a number, got a truth value"),
        (fields.a_number, "1", "expected a number, got text"),
        (fields.a_number, float("nan"), "expected a number"),
        (fields.a_flag, 2, "expected true or false"),
        (fields.a_flag, None, "expected true or false, got null"),
    ],
)
def test_fields_are_named(read, value, words):
    with pytest.raises(Refusal, match=f"^a.b: .*{words}"):
        read("a.b", value)


def test_fields():
    assert fields.numbers("a", [1, 2.5], 2) == [1.0, 2.5]
    assert fields.a_flag("a", 0) is False
    for wrong in ([1], [1, 2, 3], [1, None], 5):
        with pytest.raises(Refusal, match="^a"):
            fields.numbers("a", wrong, 2)
    with pytest.raises(Refusal, match="at most 1 elements"):
        fields.a_list("a", [1, 2], 1)


def test_objects_of_unequal_numbers_of_points():
    arrays = prompt_arrays(
        [
            ObjectPrompt(((1, 2), (3, 4)), (1, 0), (0, 0, 9, 9)),
            ObjectPrompt((), (), ordered_box(8, 2, 1, 7)),
        ]
    )
    np.testing.assert_array_equal(arrays.point_coords, [[[1, 2], [3, 4]], [[0, 0], [0, 0]]])
    np.testing.assert_array_equal(arrays.point_labels, [[1, 0], [-1, -1]])
    np.testing.assert_array_equal(arrays.box, [[0, 0, 9, 9], [1, 2, 8, 7]])
    boxes = prompt_arrays([ObjectPrompt(box_xyxy=(0, 0, 1, 1))])
    assert boxes.point_coords is None
    assert prompt_arrays([ObjectPrompt(((1, 2),), (1,))]).box is None


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [ObjectPrompt()],
        [ObjectPrompt(((1, 2),), (1,)), ObjectPrompt()],
        [ObjectPrompt(((1, 2),), (1,)), ObjectPrompt(box_xyxy=(0, 0, 1, 1))],
    ],
)
def test_objects_that_are_none(objects):
    with pytest.raises(Refusal, match="prompts: expected"):
        prompt_arrays(objects)
