"""A ModelInferRequest ► the same request with nothing in it that was not understood."""

from __future__ import annotations

from typing import Any

import numpy as np

from front.catalog import ModelFacts, TensorFacts
from front.refusals import invalid, not_found, quoted, too_large
from front.settings import Limits
from front.tensor_data import (
    NUMPY_TYPES,
    check_raw,
    check_whole_numbers,
    count_elements,
    pack_strings,
)
from front.triton_request import Raw, TritonRequest

TENANT_PARAMETER = "sam2_tenant"
REFUSED_PARAMETERS = {
    "sequence_id": "sequences are not served",
    "sequence_start": "sequences are not served",
    "sequence_end": "sequences are not served",
    "classification": "classification of outputs is not served",
    "shared_memory_region": "shared memory is not served",
    "shared_memory_offset": "shared memory is not served",
    "shared_memory_byte_size": "shared memory is not served",
}
# The field of InferTensorContents for each data type that has one.
_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def clean_request(
    request: TritonRequest, model: ModelFacts, limits: Limits, tenant: str | None
) -> None:
    """Checks a request in place and leaves only what Triton shall see.

    Raises:
        Refusal: naming the tensor, output or parameter, what was expected and what came.
    """
    message = request.message
    if len(message.id.encode()) > limits.max_request_id_bytes:
        raise invalid(
            f"id: expected at most {limits.max_request_id_bytes} bytes (max_request_id_bytes), got"
            f" {len(message.id.encode())}"
        )
    if message.model_version not in ("", "1"):
        raise not_found(f"model_version: expected none or 1, got {quoted(message.model_version)}")
    message.model_version = ""
    _clean_parameters("request", message.parameters)
    _clean_inputs(request, model, limits)
    _clean_outputs(message, model)
    # The parameters of the caller's own are gone by now.
    if tenant is not None:
        message.parameters[TENANT_PARAMETER].string_param = tenant


def _clean_parameters(where: str, parameters: Any) -> None:
    """Refuses what would change how Triton serves, drops the rest (priorities, forged names)."""
    for name in parameters:
        if name in REFUSED_PARAMETERS:
            raise invalid(f"{where}: parameter {name}: {REFUSED_PARAMETERS[name]}")
    parameters.clear()


def _clean_inputs(request: TritonRequest, model: ModelFacts, limits: Limits) -> None:
    message, raws = request.message, request.raws
    if raws and len(raws) != len(message.inputs):
        raise invalid(
            f"raw_input_contents: expected one for each of {len(message.inputs)} inputs, got {len(raws)}"
        )
    seen: set[str] = set()
    typed: list[Raw] = []
    for index, tensor in enumerate(message.inputs):
        facts = model.inputs.get(tensor.name)
        if facts is None:
            raise invalid(
                f"{quoted(tensor.name)}: {model.name} has no such input; it has {', '.join(model.inputs)}"
            )
        if tensor.name in seen:
            raise invalid(f"{tensor.name}: expected once, came twice")
        seen.add(tensor.name)
        check_declaration(tensor.name, tensor.datatype, tensor.shape, facts, limits)
        _clean_parameters(tensor.name, tensor.parameters)
        if raws:
            if tensor.HasField("contents"):
                raise invalid(f"{tensor.name}: expected contents or raw_input_contents, got both")
            raw: Raw = raws[index]
        else:
            raw = _typed_to_raw(tensor)
            typed.append(raw)
            tensor.ClearField("contents")
        check_raw(tensor.name, tensor.datatype, tensor.shape, raw)
    raws.extend(typed)


def check_declaration(
    name: str, datatype: str, shape: Any, facts: TensorFacts, limits: Limits
) -> None:
    """Raises a Refusal unless data type and shape are what the model declares."""
    if datatype != facts.datatype:
        raise invalid(f"{name}: expected {facts.datatype}, got {quoted(datatype)}")
    sides = list(shape)
    fits = len(sides) == len(facts.shape) and all(
        side >= 0 and declared in (-1, side)
        for side, declared in zip(sides, facts.shape, strict=True)
    )
    if not fits:
        shown = sides if len(sides) <= 8 else [*sides[:8], "..."]
        raise invalid(f"{name}: expected shape {list(facts.shape)}, got {shown}")
    # Without sides of 0: numpy, in a model's process, multiplies the others and dies of what it finds.
    if count_elements([side for side in sides if side]) > limits.max_tensor_elements:
        raise too_large(
            f"{name}: expected at most {limits.max_tensor_elements} elements (max_tensor_elements; sides of 0"
            f" do not count), got shape {sides}"
        )
    if datatype == "BYTES" and count_elements(sides) > limits.max_strings:
        raise too_large(
            f"{name}: expected at most {limits.max_strings} elements of BYTES (max_strings), got"
            f" {count_elements(sides)}"
        )


def _typed_to_raw(tensor: Any) -> bytes:
    expected_field = _TYPED_FIELDS.get(tensor.datatype)
    for field, _ in tensor.contents.ListFields():
        if field.name != expected_field:
            raise invalid(
                f"{tensor.name}: expected {expected_field or 'raw_input_contents'} for"
                f" {tensor.datatype}, got {field.name}"
            )
    if expected_field is None:
        return b""
    values = getattr(tensor.contents, expected_field)
    expected = count_elements(tensor.shape)
    if len(values) != expected:
        raise invalid(
            f"{tensor.name}: expected {expected} elements for shape {list(tensor.shape)}, got {len(values)}"
        )
    if tensor.datatype == "BYTES":
        return pack_strings(values)
    wanted = np.dtype(NUMPY_TYPES[tensor.datatype])
    numbers = np.array(values)
    if wanted.kind in "iu" and numbers.size:
        check_whole_numbers(tensor.name, tensor.datatype, int(numbers.min()), int(numbers.max()))
    return numbers.astype(wanted).tobytes()


def _clean_outputs(message: Any, model: ModelFacts) -> None:
    seen: set[str] = set()
    for output in message.outputs:
        if output.name not in model.outputs:
            raise invalid(
                f"{quoted(output.name)}: {model.name} has no such output; it has {', '.join(model.outputs)}"
            )
        if output.name in seen:
            raise invalid(f"{output.name}: expected once among outputs, came twice")
        seen.add(output.name)
        _clean_parameters(output.name, output.parameters)
    if not message.outputs:
        # Named, so that nothing hidden comes along.
        for name in model.outputs:
            message.outputs.add(name=name)
