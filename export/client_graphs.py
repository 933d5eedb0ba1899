"""The two graphs round the encoder for clients with a decoder of their own, node by node.

ONNX has no way to refuse an input. Where a graph must, a Reshape gets a shape that does not fit, and its name
says what is wrong: ONNX Runtime puts it into its message.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from export.onnx_export import IR_VERSION, OPSET
from export.pixels import FP16_ZERO, Pixels

Array = npt.NDArray[Any]


def write_client_pixels(
    path: Path, image_size: int, metadata: Mapping[str, str], pixels: Pixels = "fp16"
) -> None:
    """`image` FP32 [1, 3, S, S], RGB from 0 to 1 ► `resized_image`, what the encoder takes.

    Pixels of 8 bits arrive as they were: k / 255 is k again. Anything below 0, above 1 or not a number is
    refused: pixels from 0 to 255, or with mean and deviation taken off, are no picture here.
    """
    dims = [1, 3, image_size, image_size]
    kind = TensorProto.UINT8 if pixels == "uint8" else TensorProto.FLOAT16
    nodes = [
        helper.make_node("Mul", ["image", "white"], ["levels"]),
        helper.make_node("Round", ["levels"], ["rounded"]),
        helper.make_node("ReduceMin", ["rounded"], ["least"], keepdims=0),
        helper.make_node("ReduceMax", ["rounded"], ["most"], keepdims=0),
        # Comparisons with NaN are false; minima and maxima may pass it over, a sum does not.
        helper.make_node("ReduceSum", ["rounded"], ["sum"], keepdims=0),
        helper.make_node("Equal", ["sum", "sum"], ["are_numbers"]),
        helper.make_node("GreaterOrEqual", ["least", "black"], ["not_below"]),
        helper.make_node("LessOrEqual", ["most", "white"], ["not_above"]),
        helper.make_node("And", ["not_below", "not_above"], ["within"]),
        helper.make_node("And", ["within", "are_numbers"], ["is_picture"]),
        *(
            [helper.make_node("Cast", ["rounded"], ["pixels"], to=kind)]
            if pixels == "uint8"
            else [
                helper.make_node("Sub", ["levels", "fp16_zero"], ["above_zero"]),
                helper.make_node("Cast", ["above_zero"], ["pixels"], to=kind),
            ]
        ),
        *_unless("is_picture", "pixels", "resized_image", dims, "image_expected_from_0_to_1"),
    ]
    constants: dict[str, Array] = {
        "white": np.array(255, np.float32),
        "black": np.array(0, np.float32),
        "fp16_zero": np.array(FP16_ZERO, np.float32),
        **_shapes(dims, "image_expected_from_0_to_1"),
    }
    _write(
        path,
        nodes,
        constants,
        metadata,
        inputs={"image": (TensorProto.FLOAT, dims)},
        outputs={"resized_image": (kind, dims)},
    )


def write_client_features(
    path: Path,
    image_size: int,
    no_memory_embedding: Array,
    metadata: Mapping[str, str],
) -> None:
    """The encoder's features ► FP32, as a decoder in a client takes them: with the no-memory embedding added.

    `no_memory_embedding` has C elements; `metadata` holds the fingerprint of the encoder that it belongs to.
    Features of another encoder are refused.
    """
    s, c = image_size, int(no_memory_embedding.size)
    dims = {
        "image_embed": [1, c, s // 16, s // 16],
        "high_res_feats_0": [1, c // 8, s // 4, s // 4],
        "high_res_feats_1": [1, c // 4, s // 8, s // 8],
    }
    embed = dims["image_embed"]
    nodes = [
        helper.make_node("Equal", ["encoder_fingerprint", "fingerprint"], ["matches"]),
        *(
            helper.make_node("Cast", [name], [f"{name}_fp32"], to=TensorProto.FLOAT)
            for name in dims
        ),
        helper.make_node("Add", ["image_embed_fp32", "no_memory_embedding"], ["for_decoder"]),
        *_unless(
            "matches", "for_decoder", "decoder_image_embed", embed, "encoder_of_another_checkpoint"
        ),
        *(
            helper.make_node("Identity", [f"{name}_fp32"], [f"decoder_{name}"])
            for name in ("high_res_feats_0", "high_res_feats_1")
        ),
    ]
    constants: dict[str, Array] = {
        "fingerprint": np.array([[int(metadata["fingerprint"])]], np.int64),
        "no_memory_embedding": no_memory_embedding.reshape(1, c, 1, 1).astype(np.float32),
        **_shapes(embed, "encoder_of_another_checkpoint"),
    }
    _write(
        path,
        nodes,
        constants,
        metadata,
        inputs={
            **{name: (TensorProto.FLOAT16, shape) for name, shape in dims.items()},
            "encoder_fingerprint": (TensorProto.INT64, [1, 1]),
        },
        outputs={f"decoder_{name}": (TensorProto.FLOAT, shape) for name, shape in dims.items()},
    )


def _unless(
    condition: str, value: str, output: str, dims: Sequence[int], refusal: str
) -> list[NodeProto]:
    """`output` is `value` where `condition` holds; else the graph stops, naming the refusal."""
    ones = [1] * len(dims)
    return [
        # One boolean ► one for each dimension.
        helper.make_node("Constant", [], [f"{refusal}_one"], value_ints=[1]),
        helper.make_node("Reshape", [condition, f"{refusal}_one"], [f"{refusal}_flag"]),
        helper.make_node("Constant", [], [f"{refusal}_ones"], value_ints=[len(ones)]),
        helper.make_node("Expand", [f"{refusal}_flag", f"{refusal}_ones"], [f"{refusal}_flags"]),
        helper.make_node(
            "Where",
            [f"{refusal}_flags", f"{refusal}_fits", f"{refusal}_fits_not"],
            [f"{refusal}_shape"],
        ),
        helper.make_node("Reshape", [value, f"{refusal}_shape"], [output], name=refusal),
    ]


def _shapes(dims: Sequence[int], refusal: str) -> dict[str, Array]:
    return {
        f"{refusal}_fits": np.array(dims, np.int64),
        f"{refusal}_fits_not": np.array([2, *dims[1:]], np.int64),
    }


def _write(
    path: Path,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Array],
    metadata: Mapping[str, str],
    *,
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    outputs: Mapping[str, tuple[int, Sequence[int]]],
) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        *(
            [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in side.items()]
            for side in (inputs, outputs)
        ),
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
