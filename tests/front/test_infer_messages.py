"""A request is checked against what the model declares, and leaves with nothing that was not understood."""

import grpc
import numpy as np
import pytest
from front.infer_messages import REFUSED_PARAMETERS, clean_request
from front.refusals import Refusal
from front.settings import Limits
from front.triton_request import TritonRequest
from tritonclient.grpc import service_pb2

from tests.front.samples import click_request, facts, strings

LIMITS = Limits()


def cleaned(request, model="sam2", tenant=None):
    """As Triton would read it."""
    whole = TritonRequest.of(type(request).FromString(request.SerializeToString()))
    clean_request(whole, facts(model), LIMITS, tenant)
    return service_pb2.ModelInferRequest.FromString(whole.take_bytes())


def refused(request, model="sam2"):
    with pytest.raises(Refusal) as caught:
        cleaned(request, model)
    return caught.value


def test_a_click_leaves_as_it_came():
    request = click_request()
    before = request.SerializeToString()
    assert cleaned(request).SerializeToString() == before


def test_the_tenant_is_the_fronts_own_word():
    request = click_request()
    request.parameters["sam2_tenant"].string_param = "alice"
    request.parameters["priority"].uint64_param = 1
    assert not cleaned(request).parameters
    request.parameters["sam2_tenant"].string_param = "alice"
    named = cleaned(request, tenant="bob")
    assert named.parameters["sam2_tenant"].string_param == "bob"
    assert len(named.parameters) == 1


@pytest.mark.parametrize("name", REFUSED_PARAMETERS)
def test_parameters_that_change_how_triton_serves(name):
    for place in ("request", "input", "output"):
        request = click_request()
        where = {"request": request, "input": request.inputs[0], "output": request.outputs[0]}
        where[place].parameters[name].int64_param = 1
        assert name in refused(request).message


def test_no_outputs_means_the_public_ones():
    request = click_request()
    del request.outputs[:]
    assert {output.name for output in cleaned(request).outputs} == set(facts().outputs)
    request = service_pb2.ModelInferRequest(model_name="sam2_embedding")
    request.inputs.add(name="image_id", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(strings(b"page-1"))
    names = {output.name for output in cleaned(request, "sam2_embedding").outputs}
    assert names == {"cached_image_id", "original_hw"}


@pytest.mark.parametrize("name", ["image_embed", "high_res_feats_0", "encoder_fingerprint", "x"])
def test_outputs_that_are_not_for_callers(name):
    request = click_request()
    request.outputs.add(name=name)
    error = refused(request, "sam2_embedding")
    assert "no such" in error.message


def test_an_inner_secret_is_no_input():
    request = service_pb2.ModelInferRequest(model_name="sam2_embedding")
    request.inputs.add(name="retired_fingerprint", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(strings(b"x"))
    assert (
        "'retired_fingerprint': sam2_embedding has no such input"
        in refused(request, "sam2_embedding").message
    )


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([2**61, 2**62], "max_tensor_elements"),
        ([-2, -5], "expected shape [-1, -1], got [-2, -5]"),
        # No elements, and still more than numpy lays out in the model's process.
        ([0, 2**62], "max_tensor_elements"),
        ([1], "expected shape [-1, -1], got [1]"),
        ([1] * 20, "..."),
        ([1, 2], "expected 8 bytes for INT32 [1, 2], got 4"),
    ],
)
def test_shapes(shape, words):
    request = click_request()
    request.inputs[2].shape[:] = shape
    error = refused(request)
    assert error.message.startswith("point_labels: ")
    assert words in error.message


def test_too_many_strings():
    request = click_request()
    request.inputs.add(name="mask_format", datatype="BYTES", shape=[100_000])
    request.raw_input_contents.append(bytes(400_000))
    assert "max_strings" in refused(request).message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: setattr(r.inputs[1], "datatype", "FP64"), "point_coords: expected FP32"),
        (lambda r: setattr(r.inputs[1], "name", "points"), "'points': sam2 has no such input"),
        (lambda r: setattr(r.inputs[2], "name", "point_coords"), "expected once, came twice"),
        (lambda r: r.outputs.add(name="iou_predictions"), "expected once among outputs"),
        (lambda r: r.raw_input_contents.append(b""), "raw_input_contents: expected one for each"),
        (lambda r: r.inputs[1].contents.fp32_contents.append(1), "got both"),
        (lambda r: setattr(r, "id", "é" * 300), "max_request_id_bytes"),
        (lambda r: setattr(r, "model_version", "2"), "model_version"),
    ],
)
def test_what_else_is_wrong(change, words):
    request = click_request()
    change(request)
    assert words in refused(request).message


def test_typed_contents_become_bytes():
    request = click_request()
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.append(b"page-1")
    request.inputs[1].contents.fp32_contents.extend([109, 199])
    request.inputs[2].contents.int_contents.append(1)
    assert cleaned(request).SerializeToString() == click_request().SerializeToString()


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda c: c.int_contents.extend([1, 2]), "expected 1 elements"),
        (lambda c: c.fp32_contents.append(1), "expected int_contents for INT32, got fp32_contents"),
        (lambda c: None, "expected 1 elements for shape [1, 1], got 0"),
    ],
)
def test_typed_contents_that_do_not_fit(fill, words):
    request = click_request()
    del request.raw_input_contents[:]
    request.inputs[0].contents.bytes_contents.append(b"page-1")
    request.inputs[1].contents.fp32_contents.extend([109, 199])
    fill(request.inputs[2].contents)
    assert words in refused(request).message


def test_numbers_beyond_the_type():
    from front.catalog import ModelFacts, TensorFacts

    request = service_pb2.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="small", datatype="UINT8", shape=[1])
    tensor.contents.uint_contents.append(256)
    model = ModelFacts("m", {"small": TensorFacts("UINT8", (1,))})
    with pytest.raises(Refusal, match="expected UINT8, 0 to 255, got 256"):
        clean_request(TritonRequest.of(request), model, LIMITS, None)


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05sam", b"\x0a\x01\xff"])
def test_bytes_that_are_no_message(data):
    with pytest.raises(Refusal) as caught:
        TritonRequest.parse(data, LIMITS)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_fields_that_we_do_not_know_are_not_passed_on():
    data = click_request().SerializeToString()
    parsed = TritonRequest.parse(data + b"\xfa\x06\x03abc", LIMITS)
    assert np.frombuffer(parsed.raws[1], np.float32).tolist() == [109, 199]
    assert parsed.take_bytes() == data
