"""What the front knows of the models, as Triton would tell it, and messages for them."""

from __future__ import annotations

import struct

import numpy as np
from front.catalog import PUBLIC_MODELS, ModelFacts, read_metadata
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from tests.running_server import ROOT

DATATYPES = {"STRING": "BYTES"}


def metadata(model: str) -> service_pb2.ModelMetadataResponse:
    """Triton's description of a model, from its configuration."""
    text = (ROOT / "models" / model / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    response = service_pb2.ModelMetadataResponse(name=model)
    for described, tensors in (
        (response.inputs, config.input),
        (response.outputs, config.output),
    ):
        for tensor in tensors:
            kind = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
            described.add(
                name=tensor.name, datatype=DATATYPES.get(kind, kind), shape=list(tensor.dims)
            )
    return response


def facts(model: str = "sam2") -> ModelFacts:
    """The public part of a model."""
    return read_metadata(metadata(model), PUBLIC_MODELS[model])


def strings(*values: bytes) -> bytes:
    """BYTES elements as they travel."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def click_request(image_id: bytes = b"page-1") -> service_pb2.ModelInferRequest:
    """One click on an image that the server knows."""
    request = service_pb2.ModelInferRequest(model_name="sam2", id="7")
    request.inputs.add(name="image_id", datatype="BYTES", shape=[1])
    request.inputs.add(name="point_coords", datatype="FP32", shape=[1, 1, 2])
    request.inputs.add(name="point_labels", datatype="INT32", shape=[1, 1])
    request.raw_input_contents.extend(
        [
            strings(image_id),
            np.array([109, 199], np.float32).tobytes(),
            np.array([1], np.int32).tobytes(),
        ]
    )
    request.outputs.add(name="iou_predictions")
    return request
