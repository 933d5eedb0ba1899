"""FP16 graphs: half-precision weights and products, FP32 where ten bits of mantissa do not do. (INT8 ones are
made of finished FP32 files: `export.int8`.)

TensorRT 11 takes each tensor's type from the graph, so the types must stand in it. What stays FP32:
LayerNorm (squares overflow), softmax, the residual streams, the positional encoding of prompts
(its phase is many turns), rotary encoding, the mask logits. Inputs and outputs keep their types.
"""

import copy
from typing import Literal, TypeVar, get_args

from torch import nn

from export.encoder_graph import EncoderGraph
from export.graphs import Graphs, VideoGraphs
from export.mask_prompt_graph import MaskPromptGraph

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# `export.layers.dense` computes in the type of the layer's weights: these decide it.
_PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

AnyGraphs = TypeVar("AnyGraphs", Graphs, VideoGraphs)


def with_precision(graphs: AnyGraphs, precision: Precision) -> AnyGraphs:
    """The graphs in a precision; the ones given stay as they are."""
    if precision != "fp16":
        return graphs
    # Copied together, because they share conv_s0 and conv_s1 with the model.
    halved = copy.deepcopy(graphs)
    for graph in halved:
        if isinstance(graph, EncoderGraph):
            graph.for_processors = False
        if isinstance(graph, MaskPromptGraph):
            continue  # 17 weights: nothing to save
        for module in graph.modules():
            if isinstance(module, _PRODUCTS):
                module.half()
    return halved
