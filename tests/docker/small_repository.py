"""A tiny repository with the public model's probe inputs: an ensemble of a Python and an ONNX model.

`sam2` ► `picture` (Python: image bytes ► a mean) ► `score` (ONNX: the mean and points ► iou_predictions).
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PICTURE_CONFIG = """
name: "picture" backend: "python" max_batch_size: 0
input [
  { name: "image" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "image_id" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output [ { name: "mean" data_type: TYPE_FP32 dims: [ 1, 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""
# An image_id of "sleep:SECONDS" makes it take that long; "sleep:SECONDS:FILE" makes the file as it begins.
PICTURE_MODEL = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()[0]
            image_id = pb_utils.get_input_tensor_by_name(request, "image_id")
            if image_id is not None and image_id.as_numpy()[0].startswith(b"sleep:"):
                _, seconds, *begun = image_id.as_numpy()[0].decode().split(":", 2)
                for file in begun:
                    open(file, "x").close()
                time.sleep(float(seconds))
            mean = np.array([[np.frombuffer(image, np.uint8).mean()]], np.float32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("mean", mean)]))
        return responses
"""
SCORE_CONFIG = """
name: "score" backend: "onnxruntime" max_batch_size: 0
input [
  { name: "mean" data_type: TYPE_FP32 dims: [ 1, 1 ] },
  { name: "point_coords" data_type: TYPE_FP32 dims: [ -1, -1, 2 ] },
  { name: "point_labels" data_type: TYPE_INT32 dims: [ -1, -1 ] }
]
output [ { name: "iou_predictions" data_type: TYPE_FP32 dims: [ -1, 1 ] } ]
instance_group [ { kind: KIND_AUTO count: 1 } ]
"""
SAM2_CONFIG = """
name: "sam2" platform: "ensemble" max_batch_size: 0
input [
  { name: "image" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "image_id" data_type: TYPE_STRING dims: [ 1 ] optional: true },
  { name: "point_coords" data_type: TYPE_FP32 dims: [ -1, -1, 2 ] },
  { name: "point_labels" data_type: TYPE_INT32 dims: [ -1, -1 ] }
]
output [ { name: "iou_predictions" data_type: TYPE_FP32 dims: [ -1, 1 ] } ]
ensemble_scheduling { step [
  {
    model_name: "picture" model_version: -1
    input_map { key: "image" value: "image" }
    input_map { key: "image_id" value: "image_id" }
    output_map { key: "mean" value: "mean" }
  },
  {
    model_name: "score" model_version: -1
    input_map { key: "mean" value: "mean" }
    input_map { key: "point_coords" value: "point_coords" }
    input_map { key: "point_labels" value: "point_labels" }
    output_map { key: "iou_predictions" value: "iou_predictions" }
  }
] }
"""


def write_repository(directory: Path) -> Path:
    write_model(directory, "picture", PICTURE_CONFIG, PICTURE_MODEL)
    write_model(directory, "score", SCORE_CONFIG)
    onnx.save(score_graph(), directory / "score" / "1" / "model.onnx")
    write_model(directory, "sam2", SAM2_CONFIG)
    return directory


def write_model(directory: Path, name: str, config: str, code: str | None = None) -> None:
    version = directory / name / "1"
    version.mkdir(parents=True)
    (directory / name / "config.pbtxt").write_text(config)
    if code is not None:
        (version / "model.py").write_text(code)


def score_graph() -> onnx.ModelProto:
    """iou_predictions [B, 1] = the mean of x, y and labels, over N, times 0, plus the image's mean."""
    nodes = [
        helper.make_node("ReduceMean", ["point_coords", "axes"], ["xy"], keepdims=0),
        helper.make_node("Cast", ["point_labels"], ["labels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["labels", "last"], ["label"], keepdims=0),
        helper.make_node("Add", ["xy", "label"], ["sum"]),
        helper.make_node("Unsqueeze", ["sum", "last"], ["column"]),
        helper.make_node("Add", ["column", "mean"], ["iou_predictions"]),
    ]
    graph = helper.make_graph(
        nodes,
        "score",
        [
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info("point_coords", TensorProto.FLOAT, ["B", "N", 2]),
            helper.make_tensor_value_info("point_labels", TensorProto.INT32, ["B", "N"]),
        ],
        [helper.make_tensor_value_info("iou_predictions", TensorProto.FLOAT, ["B", 1])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([1], np.int64), "last"),
        ],
    )
    return save_ready(graph)


def save_ready(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of the versions that Triton 24.10 accepts, checked."""
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    onnx.checker.check_model(model, full_check=True)
    return model
