"""The Open Inference Protocol over HTTP: JSON, and bytes behind it ⇄ the messages of gRPC.

Source: the protocol's HTTP/REST and binary tensor data extensions. Beyond it, BYTES tensors may travel as
base64 (`parameters: {"encoding": "base64"}`), and those of an answer that are no text do.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
from tritonclient.grpc import service_pb2

from front.catalog import ModelFacts
from front.infer_messages import REFUSED_PARAMETERS, check_declaration
from front.refusals import invalid, quoted, too_large
from front.settings import Limits
from front.tensor_data import NUMPY_TYPES, json_to_raw, unpack_strings
from front.triton_request import Raw, TritonRequest

# What this module itself does; all other parameters mean nothing here.
BINARY_SIZE, BINARY_OUTPUT, BINARY_OUTPUTS = "binary_data_size", "binary_data", "binary_data_output"
ENCODING = "encoding"


class WantedOutputs:
    """Which outputs of an answer come as bytes behind the JSON."""

    def __init__(self, is_binary_by_default: bool) -> None:
        self._is_binary_by_default = is_binary_by_default
        self._is_binary: dict[str, bool] = {}

    def add(self, name: str, is_binary: bool | None) -> None:
        """Notes what was said of one output; None: nothing."""
        if is_binary is not None:
            self._is_binary[name] = is_binary

    def is_binary(self, name: str) -> bool:
        """Whether an output comes as bytes."""
        return self._is_binary.get(name, self._is_binary_by_default)


def parse_json(data: bytes | memoryview, limits: Limits) -> dict[str, Any]:
    """The JSON object of a request; a Refusal where it has too many values, is too deep, or none."""
    text = bytes(data)
    values = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if values > limits.max_json_values:
        raise too_large(
            f"JSON: expected at most {limits.max_json_values} values (max_json_values), got {values} commas"
            " and brackets; send tensors as binary data"
        )
    try:
        # Its depth is bounded by the parser itself, to 1024.
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise invalid(
            f"expected a JSON object, got {len(data)} bytes that are none: {error}"
        ) from error
    if not isinstance(document, dict):
        raise invalid(f"expected a JSON object, got {type(document).__name__}")
    return document


def read_request(
    model: ModelFacts, body: bytearray, json_bytes: int | None, limits: Limits
) -> tuple[TritonRequest, WantedOutputs]:
    """A request, not cleaned yet, out of an HTTP body whose JSON is `json_bytes` of it (None: all).

    The body is empty afterwards: an image would be held twice.

    Raises:
        Refusal: naming the tensor or field, what was expected and what came.
    """
    if json_bytes is not None and not 0 <= json_bytes <= len(body):
        raise invalid(
            f"Inference-Header-Content-Length: expected 0 to {len(body)}, the body's length, got {json_bytes}"
        )
    with memoryview(body) as view, view[:json_bytes] as text:
        document = parse_json(text, limits)
    parameters = _parameters("request", document)
    message = service_pb2.ModelInferRequest(model_name=model.name, id=_text(document, "id", ""))
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        raise invalid("inputs: expected a list of tensors")
    start = offset = len(body) if json_bytes is None else json_bytes
    raws: list[Raw] = []
    for tensor in inputs:
        raw, taken = _read_input(model, tensor, message, limits, body=body, offset=offset)
        raws.append(raw)
        offset += taken
    if offset != len(body):
        raise invalid(
            f"expected {offset - start} bytes behind the JSON, as binary_data_size says, got"
            f" {len(body) - start}"
        )
    body.clear()
    wanted = WantedOutputs(_flag("request", parameters, BINARY_OUTPUTS) or False)
    outputs = document.get("outputs", [])
    if not isinstance(outputs, list):
        raise invalid("outputs: expected a list")
    for output in outputs:
        if not isinstance(output, dict):
            raise invalid("outputs: expected objects with a name")
        name = _text(output, "name")
        message.outputs.add(name=name)
        wanted.add(name, _flag(name, _parameters(name, output), BINARY_OUTPUT))
    return TritonRequest(message, raws), wanted


def _read_input(
    model: ModelFacts, tensor: Any, message: Any, limits: Limits, *, body: bytearray, offset: int
) -> tuple[bytes, int]:
    """Adds one input to the message; its bytes, and how many of those behind the JSON they were."""
    if not isinstance(tensor, dict):
        raise invalid("inputs: expected objects with name, datatype, shape and data")
    name = _text(tensor, "name")
    facts = model.inputs.get(name)
    if facts is None:
        raise invalid(
            f"{quoted(name)}: {model.name} has no such input; it has {', '.join(model.inputs)}"
        )
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int for side in shape):
        raise invalid(f"{name}: expected shape as a list of whole numbers")
    datatype = _text(tensor, "datatype")
    check_declaration(name, datatype, shape, facts, limits)
    parameters = _parameters(name, tensor)
    size = parameters.get(BINARY_SIZE)
    if size is None:
        raw: bytes = json_to_raw(
            name, datatype, shape, tensor.get("data"), parameters.get(ENCODING)
        )
        taken = 0
    else:
        left = len(body) - offset
        if type(size) is not int or not 0 <= size <= left:
            raise invalid(
                f"{name}: expected binary_data_size of at most the {left} bytes that are left, got"
                f" {size!r:.40}"
            )
        if "data" in tensor:
            raise invalid(f"{name}: expected data or binary_data_size, got both")
        with memoryview(body) as view, view[offset : offset + size] as part:
            raw, taken = bytes(part), size
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    return raw, taken


def write_answer(
    answer: bytes, wanted: WantedOutputs, limits: Limits
) -> tuple[list[bytes], int | None]:
    """The body of an HTTP answer in pieces, and how long its JSON is where bytes follow it.

    Raises:
        Refusal: numbers as JSON beyond the limit; the message says how to ask for them.
    """
    response = service_pb2.ModelInferResponse.FromString(answer)
    outputs: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    numbers_left = limits.max_json_answer_elements
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if wanted.is_binary(tensor.name):
            output["parameters"] = {BINARY_SIZE: len(raw)}
            pieces.append(raw)
        elif tensor.datatype == "BYTES":
            output["data"], is_encoded = _texts(unpack_strings(raw))
            if is_encoded:
                output["parameters"] = {ENCODING: "base64"}
        else:
            array = np.frombuffer(raw, NUMPY_TYPES[tensor.datatype])
            numbers_left -= array.size
            if numbers_left < 0:
                raise too_large(
                    f"{tensor.name}: expected at most {limits.max_json_answer_elements} numbers as JSON in an"
                    f" answer (max_json_answer_elements), got {array.size} here; ask for binary data"
                    " (binary_data: true), or for another mask_format"
                )
            output["data"] = array.astype(np.float32) if array.dtype == np.float16 else array
        outputs.append(output)
    document: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
    }
    if response.id:
        document["id"] = response.id
    document["outputs"] = outputs
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return [text, *pieces], len(text) if pieces else None


def _texts(values: list[bytes]) -> tuple[list[str], bool]:
    """BYTES elements as JSON strings: text where all of them are, else base64."""
    try:
        return [value.decode("utf-8") for value in values], False
    except UnicodeDecodeError:
        return [base64.b64encode(value).decode("ascii") for value in values], True


def _parameters(where: str, document: dict[str, Any]) -> dict[str, Any]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise invalid(f"{where}: expected parameters as an object")
    for name in parameters:
        if name in REFUSED_PARAMETERS:
            raise invalid(f"{where}: parameter {name}: {REFUSED_PARAMETERS[name]}")
    return parameters


def _flag(where: str, parameters: dict[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{where}: expected {name} as true or false, got {value!r:.40}")
    return value


def _text(document: dict[str, Any], name: str, default: str | None = None) -> str:
    value = document.get(name, default)
    if not isinstance(value, str):
        raise invalid(f"{name}: expected text, got {type(value).__name__}")
    return value
