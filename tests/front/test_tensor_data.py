"""Shapes, bytes and JSON of tensors: what does not agree is refused, naming the tensor."""

import base64

import numpy as np
import pytest
from front.refusals import Refusal
from front.tensor_data import (
    check_raw,
    count_elements,
    count_strings,
    json_to_raw,
    pack_strings,
    unpack_strings,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.front.samples import strings


def test_products_do_not_wrap():
    assert count_elements([2**61, 2**62]) == 2**123
    assert count_elements([]) == 1


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", [1, 1, 2], bytes(8)),
        ("INT32", [0, 5], b""),
        ("BOOL", [1], b"\1"),
        ("FP16", [3], bytes(6)),
        ("BYTES", [2], strings(b"", b"abc")),
        ("BYTES", [0], b""),
    ],
)
def test_bytes_that_fit(datatype, shape, raw):
    check_raw("tensor", datatype, shape, raw)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "words"),
    [
        ("FP32", [1, 1, 2], bytes(7), "expected 8 bytes for FP32 [1, 1, 2], got 7"),
        ("INT32", [2**61, 2**62], b"", f"expected {2**125} bytes"),
        ("BYTES", [1], strings(b"a", b"b"), "expected 1 elements for shape [1], got more"),
        ("BYTES", [3], strings(b"a", b"b"), "expected 3 elements for shape [3], got 2"),
        ("BYTES", [1], b"\5\0\0\0abc", "claims 2 bytes more than there are"),
        ("BYTES", [1], b"\5\0", "expected a length of 4 bytes at byte 0, got 2"),
        ("BYTES", [1], b"\xff\xff\xff\xff", "claims 4294967295 bytes more"),
    ],
)
def test_bytes_that_do_not(datatype, shape, raw, words):
    with pytest.raises(Refusal) as refused:
        check_raw("tensor", datatype, shape, raw)
    assert refused.value.message.startswith("tensor: ")
    assert words in refused.value.message


def test_elements_beyond_the_shape_are_not_even_counted():
    # 20 million empty strings: what is counted is one more than can be right.
    assert count_strings("image", bytes(80_000_000), 1) == 2


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_strings_come_back(values):
    packed = pack_strings(values)
    assert packed == strings(*values)
    assert unpack_strings(packed) == values
    check_raw("tensor", "BYTES", [len(values)], packed)


@pytest.mark.parametrize("nested", [[[[1, 2], [3, 4]]], [1, 2, 3, 4]])
def test_numbers_of_json_flat_or_nested(nested):
    raw = json_to_raw("point_coords", "FP32", [1, 2, 2], nested, None)
    assert np.frombuffer(raw, np.float32).tolist() == [1, 2, 3, 4]


def test_json_of_other_types():
    assert json_to_raw("t", "BOOL", [2], [True, False], None) == b"\1\0"
    assert np.frombuffer(json_to_raw("t", "UINT64", [1], [2**64 - 1], None), np.uint64) == 2**64 - 1
    assert np.frombuffer(json_to_raw("t", "FP16", [1], [0.5], None), np.float16) == 0.5
    assert json_to_raw("t", "INT32", [0], [], None) == b""
    assert json_to_raw("image_id", "BYTES", [1], ["é"], None) == strings("é".encode())
    assert json_to_raw("t", "BYTES", [1, 2], [["a", "b"]], None) == strings(b"a", b"b")
    encoded = base64.b64encode(b"\xff\0").decode()
    assert json_to_raw("image", "BYTES", [1], [encoded], "base64") == strings(b"\xff\0")


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "encoding", "words"),
    [
        ("INT32", [1], [1.0], None, "expected elements of INT32, got a fraction '1.0'"),
        ("INT32", [1], ["1"], None, "expected elements of INT32, got text '1'"),
        ("INT32", [1], [True], None, "got a truth value 'True'"),
        ("INT32", [2], [1, True], None, "got a truth value 'True'"),
        ("INT32", [1], [None], None, "got null"),
        ("INT32", [1], [{}], None, "got an object"),
        ("INT32", [1], [2**31], None, "expected INT32, -2147483648 to 2147483647, got 2147483648"),
        ("UINT8", [1], [-1], None, "expected UINT8, 0 to 255, got -1"),
        ("FP32", [1], [True], None, "got a truth value"),
        ("FP32", [2, 2], [[1, 2], [3]], None, "expected rows of 2 at depth 2"),
        ("FP32", [2, 2], [[1, 2], 3], None, "flat or nested as shape [2, 2] says"),
        ("FP32", [2, 2], [[1], [2], [3], [4]], None, "expected rows of 2 at depth 1"),
        ("FP32", [4], [1, 2], None, "expected 4 elements for shape [4], got 2"),
        ("FP32", [1], [[[[1]]]], None, "got a list"),
        ("FP32", [1], 1, None, "expected data as a list, got a number"),
        ("FP32", [1], None, None, "expected data as a list, got null"),
        ("FP32", [1], [1], "base64", "encoding is for BYTES tensors"),
        ("BYTES", [1], [1], None, "expected elements of BYTES as text, got a number"),
        ("BYTES", [1], ["a", "b"], None, "expected 1 elements"),
        ("BYTES", [1], ["*"], "base64", "expected base64"),
        ("BYTES", [1], ["a"], "hex", "expected encoding base64 or none"),
        ("BYTES", [1], ["a"], ["base64"], "expected encoding base64 or none"),
    ],
)
def test_json_that_is_no_such_tensor(datatype, shape, data, encoding, words):
    with pytest.raises(Refusal) as refused:
        json_to_raw("tensor", datatype, shape, data, encoding)
    assert refused.value.http_status == 400
    assert refused.value.message.startswith("tensor: ")
    assert words in refused.value.message


def test_one_long_text_among_many_numbers_takes_no_memory_of_its_length_for_each():
    # As an array of texts this would be 400 GB.
    with pytest.raises(Refusal, match="got text"):
        json_to_raw("point_labels", "INT32", [100_000], [1] * 99_999 + ["x" * 1_000_000], None)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=12,
)


@given(
    data=JSON_VALUES,
    datatype=st.sampled_from(["BOOL", "UINT8", "INT32", "UINT64", "FP16", "FP32", "BYTES"]),
    shape=st.lists(st.integers(0, 4), max_size=3),
)
def test_any_json_is_a_tensor_or_a_refusal(data, datatype, shape):
    try:
        raw = json_to_raw("tensor", datatype, shape, data, None)
    except Refusal as refused:
        assert refused.http_status == 400
    else:
        check_raw("tensor", datatype, shape, raw)
