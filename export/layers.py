"""The few layers both graphs are made of, written so that every type and shape in them is explicit.

They run `transformers`' modules (weights), but not their forward passes: reshapes here hold numbers
with one free dimension, so the traced graph has static shapes and no shape arithmetic, and the type
of each step follows from the module's own weights (see `export.precision`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def edge(x: Tensor, axis: int) -> int:
    """A dimension that is a constant of the graph: as a number, it leaves no shape arithmetic."""
    return int(x.shape[axis])


def dense(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear or convolution layer, computed in the type of its own weights."""
    weight = layer.weight
    output: Tensor = layer(x.to(weight.dtype))  # type: ignore[arg-type]
    return output


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the last dimension, in FP32: the variance of FP16 activations overflows."""
    return F.layer_norm(x.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def channel_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the channels of [B, C, H, W], in FP32."""
    return layer_norm(norm, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    """SAM 2's small perceptrons (`proj_in`, `layers`, `proj_out`), without the last sigmoid."""
    x = mlp.activation(dense(mlp.proj_in, x))  # type: ignore[operator,arg-type]
    for layer in mlp.layers:  # type: ignore[union-attr]
        x = mlp.activation(dense(layer, x))  # type: ignore[operator]
    return dense(mlp.proj_out, x)  # type: ignore[arg-type]


def attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, key_bias: Tensor | None = None
) -> Tensor:
    """Multi-head scaled dot-product attention; softmax in FP32.

    Args:
        query: [B, Tq, heads * d].
        key: [B, Tk, heads * d].
        value: [B, Tk, heads * e].
        heads: number of heads.
        key_bias: FP32, broadcastable to [B, heads, Tq, Tk], added to the logits.

    Returns:
        [B, Tq, heads * e], in the type of `value`.
    """
    width = edge(query, 2) // heads
    query_heads, key_heads, value_heads = (_split_heads(x, heads) for x in (query, key, value))
    # Scaling the query first keeps FP16 logits in range.
    logits = (query_heads * width**-0.5) @ key_heads.transpose(2, 3)
    logits = logits.float() if key_bias is None else logits.float() + key_bias
    weights = torch.softmax(logits, dim=-1).to(value.dtype)
    mixed = (weights @ value_heads).transpose(1, 2)
    return mixed.reshape(-1, query.shape[1], edge(value, 2))


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, heads * d] ► [B, heads, T, d]."""
    return x.reshape(-1, x.shape[1], heads, edge(x, 2) // heads).transpose(1, 2)
