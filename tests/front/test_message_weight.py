"""Messages that would take far more memory than bytes are refused before they are laid out."""

import numpy as np
import pytest
from front.message_weight import check_weight, read_id
from front.refusals import Refusal
from front.settings import Limits
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.front.samples import click_request, strings

LIMITS = Limits()


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_ordinary_messages_pass():
    check_weight(click_request().SerializeToString(), LIMITS)
    large = click_request()
    large.raw_input_contents[0] = strings(bytes(30_000_000))
    check_weight(large.SerializeToString(), LIMITS)
    typed = service_pb2.ModelInferRequest(model_name="sam2")
    typed.inputs.add(name="image").contents.bytes_contents.append(bytes(30_000_000))
    typed.inputs.add(name="mask_input").contents.fp32_contents.extend(np.zeros(1_000_000))
    check_weight(typed.SerializeToString(), LIMITS)
    check_weight(b"", LIMITS)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x2a\0" * 2_000_000,  # inputs without anything
        b"\x3a\0" * 2_000_000,  # raw contents without bytes
        b"\x22\0" * 2_000_000,  # parameters
        field(5, b"\x22\0" * 2_000_000),  # parameters of a tensor
        field(5, field(5, b"\x42\0" * 2_000_000)),  # strings without bytes
    ],
)
def test_too_many_parts(bomb):
    with pytest.raises(Refusal, match="max_message_fields") as refused:
        check_weight(bomb, LIMITS)
    assert refused.value.http_status == 413


@pytest.mark.parametrize(
    "bomb",
    [
        field(5, field(3, bytes(2_000_000))),  # a shape of two million sides
        field(5, field(5, field(3, bytes(2_000_000)))),  # int64 contents, a byte each
        field(4, bytes(2_000_000)),  # one parameter
        field(6, bytes(2_000_000)),  # one output
        field(99, bytes(2_000_000)),  # nothing that we know
    ],
)
def test_too_many_small_bytes(bomb):
    with pytest.raises(Refusal, match="max_message_small_bytes"):
        check_weight(bomb, LIMITS)


@given(st.binary(max_size=60))
def test_what_the_parser_takes_is_not_refused(data):
    """Small messages are never too heavy; bytes that are none are, mostly, found out here already."""
    try:
        service_pb2.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    try:
        check_weight(data, LIMITS)
    except Refusal:
        # Groups, which the protocol has none of and the parser skips.
        assert any(byte & 7 in (3, 4) for byte in data)


def test_an_id_is_read_without_the_rest():
    assert read_id(click_request().SerializeToString(), 10) == "7"
    assert read_id(b"\x1a\x03abc\xff", 10) == ""
    assert read_id(field(3, b"x" * 11), 10) == ""
    assert read_id(field(3, b"\xff"), 10) == ""
    assert read_id(b"", 10) == ""
