"""The few layers both graphs are made of, written so that every type and shape in them is explicit.

They run `transformers`' modules (weights), but not their forward passes: reshapes here hold numbers
with one free dimension, so the traced graph has static shapes and no shape arithmetic, and the type
of each step follows from the module's own weights (see `export.precision`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ONNX Runtime's own operators, which OpenVINO reads as well; TensorRT does not.
CONTRIB_DOMAIN = "com.microsoft"

# transformers' modules: their parts are not typed.
Module = Any


def edge(x: Tensor, axis: int) -> int:
    """A dimension that is a constant of the graph: as a number, it leaves no shape arithmetic."""
    return int(x.shape[axis])


def fp32(x: Tensor) -> Tensor:
    """`x` in FP32; unlike `x.float()` it leaves no cast in the graph where there is none."""
    return x if x.dtype == torch.float32 else x.float()


def dense(layer: Module, x: Tensor) -> Tensor:
    """A linear or convolution layer, computed in the type of its own weights."""
    wanted = layer.weight.dtype
    output: Tensor = layer(x if x.dtype == wanted else x.to(wanted))
    return output


def projections(layer: nn.Linear, x: Tensor, count: int) -> tuple[Tensor, ...]:
    """A linear layer's outputs in `count` equal parts, each by its own product: to cut them apart afterwards
    would copy them."""
    x = x if x.dtype == layer.weight.dtype else x.to(layer.weight.dtype)
    parts = zip(layer.weight.chunk(count), layer.bias.chunk(count), strict=True)
    return tuple(F.linear(x, weight, bias) for weight, bias in parts)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the last dimension, in FP32: the variance of FP16 activations overflows."""
    return F.layer_norm(fp32(x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def channel_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the channels of [B, C, H, W], in FP32."""
    return layer_norm(norm, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def feed_forward(mlp: Module, x: Tensor) -> Tensor:
    """SAM 2's small perceptrons (`proj_in`, `layers`, `proj_out`), without the last sigmoid."""
    x = mlp.activation(dense(mlp.proj_in, x))
    for layer in mlp.layers:
        x = mlp.activation(dense(layer, x))
    return dense(mlp.proj_out, x)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    *,
    key_bias: Tensor | None = None,
    constant_tokens: bool = False,
) -> Tensor:
    """Multi-head scaled dot-product attention; softmax in FP32.

    Args:
        query: [B, Tq, heads * d].
        key: [B, Tk, heads * d].
        value: [B, Tk, heads * e].
        heads: number of heads.
        key_bias: FP32, broadcastable to [B, heads, Tq, Tk], added to the logits.
        constant_tokens: Tq and Tk are the same in every request.

    Returns:
        [B, Tq, heads * e], in the type of `value`.
    """

    def tokens_of(x: Tensor) -> int:
        return edge(x, 1) if constant_tokens else x.shape[1]

    def split_heads(x: Tensor) -> Tensor:
        return x.reshape(-1, tokens_of(x), heads, edge(x, 2) // heads).transpose(1, 2)

    width = edge(query, 2) // heads
    # Scaling the query first keeps FP16 logits in range.
    logits = (split_heads(query) * width**-0.5) @ split_heads(key).transpose(2, 3)
    logits = fp32(logits) if key_bias is None else fp32(logits) + key_bias
    weights = torch.softmax(logits, dim=-1)
    weights = weights if value.dtype == torch.float32 else weights.to(value.dtype)
    mixed = (weights @ split_heads(value)).transpose(1, 2)
    return mixed.reshape(-1, tokens_of(query), edge(value, 2))


def fused_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """The same over many tokens as one operator, which never holds all of the attention weights.

    On a processor two thirds of the time for an encoder's 4096 tokens, and 268 MB less memory. For graphs
    that processors run (FP32, INT8): TensorRT has no such operator, and fuses the plain ones by itself.
    """
    mixed: Tensor = _FusedAttention.apply(query, key, value, heads)  # type: ignore[no-untyped-call]
    return mixed


class _FusedAttention(torch.autograd.Function):
    """Computed as always; written as ONNX Runtime's MultiHeadAttention, which scales by itself."""

    @staticmethod
    def forward(_: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        return attention(query, key, value, heads, constant_tokens=True)

    @staticmethod
    def symbolic(graph: Any, query: Any, key: Any, value: Any, heads: int) -> Any:
        name = f"{CONTRIB_DOMAIN}::MultiHeadAttention"
        return graph.op(name, query, key, value, num_heads_i=heads).setType(query.type())
