"""The protocol over HTTP: JSON, and bytes behind it, both ways."""

import base64
import json

import numpy as np
import orjson
import pytest
from front.infer_messages import clean_request
from front.json_messages import WantedOutputs, parse_json, read_request, write_answer
from front.refusals import Refusal
from front.settings import Limits
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tests.front.samples import click_request, facts, strings

LIMITS = Limits()
CLICK = {
    "id": "7",
    "inputs": [
        {"name": "image_id", "shape": [1], "datatype": "BYTES", "data": ["page-1"]},
        {"name": "point_coords", "shape": [1, 1, 2], "datatype": "FP32", "data": [[[109, 199]]]},
        {"name": "point_labels", "shape": [1, 1], "datatype": "INT32", "data": [1]},
    ],
    "outputs": [{"name": "iou_predictions"}],
}


def read(document, binary=None):
    text = json.dumps(document).encode()
    length = None if binary is None else len(text)
    return read_request(facts(), bytearray(text + (binary or b"")), length, LIMITS)


def refused(document, binary=None):
    def read_and_cleaned():
        message, _ = read(document, binary)
        clean_request(message, facts(), LIMITS, None)

    with pytest.raises(Refusal) as caught:
        read_and_cleaned()
    return caught.value


def changed(**changes):
    return {**CLICK, **changes}


def first_input(**changes):
    return changed(inputs=[{**CLICK["inputs"][0], **changes}])


def test_json_alone():
    message, _ = read(CLICK)
    assert message.take_bytes() == click_request().SerializeToString()


def test_bytes_behind_the_json():
    expected = click_request()
    document = json.loads(json.dumps(CLICK))
    for tensor, raw in zip(document["inputs"], expected.raw_input_contents, strict=True):
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": len(raw)}
    message, _ = read(document, b"".join(expected.raw_input_contents))
    assert message.take_bytes() == expected.SerializeToString()


@pytest.mark.parametrize(
    ("parameters", "outputs", "expected"),
    [
        ({}, [{"name": "a"}], False),
        ({"binary_data_output": True}, [{"name": "a"}], True),
        ({"binary_data_output": True}, [], True),
        ({}, [{"name": "a", "parameters": {"binary_data": True}}], True),
        (
            {"binary_data_output": True},
            [{"name": "a", "parameters": {"binary_data": False}}],
            False,
        ),
    ],
)
def test_which_outputs_come_as_bytes(parameters, outputs, expected):
    _, wanted = read(changed(parameters=parameters, outputs=outputs))
    assert wanted.is_binary("a") is expected


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "expected a JSON object, got list"),
        ({}, "inputs: expected a list"),
        (changed(inputs=[1]), "inputs: expected objects"),
        (changed(inputs=[{}]), "name: expected text, got NoneType"),
        (changed(id=7), "id: expected text"),
        (changed(outputs={}), "outputs: expected a list"),
        (changed(outputs=["masks"]), "outputs: expected objects"),
        (changed(parameters=[]), "request: expected parameters as an object"),
        (changed(parameters={"binary_data_output": 1}), "binary_data_output as true or false"),
        (changed(parameters={"sequence_id": 1}), "sequence_id"),
        (
            changed(outputs=[{"name": "masks_rle", "parameters": {"classification": 1}}]),
            "classification",
        ),
        (first_input(name="x"), "'x': sam2 has no such input"),
        (first_input(shape="1"), "image_id: expected shape as a list of whole numbers"),
        (first_input(shape=[1.0]), "image_id: expected shape as a list of whole numbers"),
        (first_input(shape=[True]), "image_id: expected shape as a list of whole numbers"),
        (first_input(shape=[-1]), "image_id: expected shape [1], got [-1]"),
        (first_input(datatype="FP32"), "image_id: expected BYTES, got 'FP32'"),
        (first_input(datatype=None), "datatype: expected text"),
        (first_input(data=None), "image_id: expected data as a list"),
        (first_input(parameters={"shared_memory_region": "x"}), "shared memory"),
        (first_input(parameters={"binary_data_size": 5}), "binary_data_size of at most the 0"),
        (first_input(parameters={"binary_data_size": -1}), "binary_data_size"),
        (first_input(parameters={"binary_data_size": True}), "binary_data_size"),
        (first_input(parameters={"binary_data_size": "0"}), "binary_data_size"),
        (first_input(parameters={"binary_data_size": 0}), "got both"),
        (changed(inputs=[CLICK["inputs"][0]] * 2), "expected once, came twice"),
    ],
)
def test_what_is_wrong_is_named(document, words):
    error = refused(document)
    assert error.http_status == 400
    assert words in error.message


@pytest.mark.parametrize(
    "shape", [[2**61, 2**62], [400_000_000, 262_144], [0, 2**63], [0, 2**64 - 1], [2**80, 1]]
)
def test_shapes_that_claim_what_nobody_brings(shape):
    tensor = {"name": "point_labels", "shape": shape, "datatype": "INT32", "data": [1]}
    assert refused(changed(inputs=[tensor])).http_status in (400, 413)


def test_bytes_that_nobody_claims():
    assert "expected 0 bytes behind the JSON" in refused(CLICK, b"tail").message


@pytest.mark.parametrize("length", [-1, 10_000])
def test_a_json_length_beyond_the_body(length):
    with pytest.raises(Refusal, match="Inference-Header-Content-Length"):
        read_request(facts(), bytearray(b"{}"), length, LIMITS)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nul", b"\xff", b'{"a": NaN}', b"[" * 3000, b'{"a":' * 3000, b'{"a":"\\ud800"}'],
)
def test_text_that_is_no_json(text):
    with pytest.raises(Refusal) as caught:
        parse_json(text, LIMITS)
    assert caught.value.http_status == 400


@pytest.mark.parametrize("text", [b"[" * 3_000_000, b"[" + b"[]," * 3_000_000, b"{" * 3_000_000])
def test_json_of_too_many_values_is_not_even_parsed(text):
    with pytest.raises(Refusal, match="max_json_values") as caught:
        parse_json(text, LIMITS)
    assert caught.value.http_status == 413


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_refusal(data):
    try:
        assert isinstance(parse_json(data, LIMITS), dict)
    except Refusal as refusal:
        assert refusal.http_status == 400


def answer(*tensors):
    response = service_pb2.ModelInferResponse(model_name="sam2", model_version="1", id="7")
    for name, datatype, shape, raw in tensors:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
        response.raw_output_contents.append(raw)
    return response.SerializeToString()


def test_an_answer_as_json():
    numbers = np.array([[0.25, 1.5]], np.float32)
    pieces, length = write_answer(
        answer(
            ("iou_predictions", "FP32", [1, 2], numbers.tobytes()),
            ("masks_rle", "BYTES", [1], strings(b'{"size":[1,1]}')),
            ("masks_png", "BYTES", [2], strings(b"\x89PNG\xff", b"ok")),
            ("half", "FP16", [1], np.array([0.5], np.float16).tobytes()),
            ("empty", "UINT8", [0], b""),
        ),
        WantedOutputs(False),
        LIMITS,
    )
    assert length is None
    document = json.loads(b"".join(pieces))
    assert (document["model_name"], document["id"]) == ("sam2", "7")
    outputs = {output["name"]: output for output in document["outputs"]}
    assert outputs["iou_predictions"]["data"] == [0.25, 1.5]
    assert outputs["masks_rle"]["data"] == ['{"size":[1,1]}']
    assert "parameters" not in outputs["masks_rle"]
    assert outputs["masks_png"]["parameters"] == {"encoding": "base64"}
    assert [base64.b64decode(text) for text in outputs["masks_png"]["data"]] == [
        b"\x89PNG\xff",
        b"ok",
    ]
    assert outputs["half"]["data"] == [0.5]
    assert outputs["empty"] == {"name": "empty", "datatype": "UINT8", "shape": [0], "data": []}


def test_numbers_that_json_has_no_word_for():
    raw = np.array([np.nan, np.inf, 1], np.float32).tobytes()
    pieces, _ = write_answer(answer(("x", "FP32", [3], raw)), WantedOutputs(False), LIMITS)
    assert json.loads(b"".join(pieces))["outputs"][0]["data"] == [None, None, 1.0]


def test_an_answer_as_bytes_behind_its_json():
    pieces, length = write_answer(
        answer(("a", "UINT8", [3], b"abc"), ("b", "UINT8", [1], b"\7")), WantedOutputs(True), LIMITS
    )
    body = b"".join(pieces)
    document = orjson.loads(body[:length])
    assert [o["parameters"]["binary_data_size"] for o in document["outputs"]] == [3, 1]
    assert body[length:] == b"abc\7"


def test_too_many_numbers_for_json_are_counted_over_the_whole_answer():
    half = ("x", "UINT8", [2_500_000], bytes(2_500_000))
    with pytest.raises(Refusal, match="max_json_answer_elements"):
        write_answer(answer(half, half), WantedOutputs(False), LIMITS)
