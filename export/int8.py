"""INT8 graphs for processors: the products with weights in whole numbers, everything else as it was.

Dynamic: each tensor's scale is computed as it comes, so nothing was calibrated on pictures that a
deployment's own may differ from. (Attention stays FP32: softmax over 4096 tokens gives weights below one
step of INT8.)
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.mask_agreement import Agreement, Sessions, compare_masks
from export.onnx_export import GraphFiles

# Products alone. Convolutions here are few, small, and first or last: what they round stays in the masks.
OPERATORS = ("MatMul",)


def quantize(source: Path, target: Path) -> None:
    """Write `source` with its weight products in INT8, a scale for each output channel, as `target`."""
    root = logging.getLogger()
    level = root.level
    # It advises another tool of its own, on the root logger.
    root.setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            os.fspath(source),
            os.fspath(target),
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Products of two activations, in attention, stay.
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)
    model = onnx.load(os.fspath(target))
    properties = {entry.key: entry.value for entry in onnx.load(os.fspath(source)).metadata_props}
    onnx.helper.set_model_props(model, properties | {"precision": "int8"})
    onnx.save(model, os.fspath(target))


def quantize_graphs(
    files: GraphFiles, image_size: int, progress: Callable[[str], None] = lambda _: None
) -> list[Agreement]:
    """Put INT8 graphs in the place of FP32 ones; says how their masks agree."""
    changed = GraphFiles(*(path.with_suffix(".int8.onnx") for path in files))
    for source, target in zip(files, changed, strict=True):
        progress(f"{source.stem}: to INT8")
        quantize(source, target)
    agreements = compare_masks(
        Sessions.of(files), Sessions.of(changed), image_size, progress=progress
    )
    for source, target in zip(files, changed, strict=True):
        target.replace(source)
    return agreements
