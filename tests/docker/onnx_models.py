"""One-node ONNX models with their configurations, for the tests of the ONNX Runtime backend."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.docker.small_repository import save_ready, write_model

TRITON_TO_ONNX = {
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "BOOL": TensorProto.BOOL,
}


def config(
    name: str,
    tensor: str,
    dims: str,
    *,
    max_batch_size: int = 0,
    extra: str = "",
    output_dims: str | None = None,
) -> str:
    return f"""
name: "{name}" backend: "onnxruntime" max_batch_size: {max_batch_size}
input [ {{ name: "x" data_type: TYPE_{tensor} dims: {dims} }} ]
output [ {{ name: "y" data_type: TYPE_{tensor} dims: {output_dims or dims} }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{extra}
"""


def write_onnx_model(directory: Path, text: str, name: str, model: onnx.ModelProto) -> None:
    write_model(directory, name, text)
    onnx.save(model, directory / name / "1" / "model.onnx")


def one_node(
    operator: str, tensor: str, shape: list[int | str], **attributes: int | list[int]
) -> onnx.ModelProto:
    """x ► operator ► y, both of one dtype and shape."""
    kind = TRITON_TO_ONNX[tensor]
    return save_ready(
        helper.make_graph(
            [helper.make_node(operator, ["x"], ["y"], **attributes)],
            operator,
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info("y", kind, shape)],
        )
    )


def slow_model() -> onnx.ModelProto:
    """y = x after x[0] rounds of multiplying a 512 x 512 matrix, for requests that take a while."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going_in"], ["going"]),
            helper.make_node("MatMul", ["matrix_in", "matrix_in"], ["product"]),
            helper.make_node("Softmax", ["product"], ["matrix"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_in", TensorProto.FLOAT, [512, 512]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [512, 512]),
        ],
    )
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["side"], value_ints=[512, 512]),
        helper.make_node(
            "Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [1])
        ),
        helper.make_node("ConstantOfShape", ["side"], ["start"]),
        helper.make_node("Gather", ["x", "zero"], ["count_f"]),
        helper.make_node("Cast", ["count_f"], ["count"], to=TensorProto.INT64),
        helper.make_node("Loop", ["count", "yes", "start"], ["end"], body=body),
        helper.make_node("ReduceMin", ["end"], ["least"], keepdims=0),
        helper.make_node("Constant", [], ["none"], value_float=0.0),
        helper.make_node("Mul", ["least", "none"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    return save_ready(
        helper.make_graph(
            nodes,
            "slow",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        )
    )
