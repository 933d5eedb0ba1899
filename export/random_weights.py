"""Untrained weights from a seed, such that a wrong graph shows."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import Sam2Model, Sam2VideoModel

# Meta's and transformers' name of the bias that decides whether an object is there at all. An untrained model
# takes everything for an object; else all of its masks on video would be the same, and empty.
_SCORE_BIASES = ("pred_obj_score_head.proj_out.bias", "pred_obj_score_head.layers.2.bias")
_SCORE_BIAS = 2.0


def randomize(model: nn.Module, seed: int) -> None:
    """Fill all weights from a seed, tensor by tensor in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    scales = {id(tensor): scale for tensor, scale in _random_scales(model)}
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
            noise = torch.randn(tensor.shape, generator=generator)
            # SAM's own spread for the positional basis: clicks a few pixels apart must differ.
            other = 1.0 if name.endswith("positional_embedding") else 0.2
            mean, deviation = scales.get(id(tensor), (0.0, other))
            if name.endswith(_SCORE_BIASES):
                mean = _SCORE_BIAS
            tensor.copy_(mean + deviation * noise)
        if isinstance(model, (Sam2Model, Sam2VideoModel)):  # which hold one of Meta's tensors twice
            basis = model.prompt_encoder.shared_embedding.positional_embedding
            model.shared_image_embedding.positional_embedding.copy_(basis)


def _random_scales(model: nn.Module) -> Iterator[tuple[Tensor, tuple[float, float]]]:
    """Mean and standard deviation for the weights of each kind of layer."""
    for module in model.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if not isinstance(weight, Tensor):
            continue
        if isinstance(module, nn.LayerNorm):
            yield weight, (1.0, 0.1)
        elif isinstance(module, nn.Embedding):
            yield weight, (0.0, 0.5)
        else:
            # With stride 2 and kernel 2, one pixel of a transposed convolution has its input
            # channels, which stand in front, as its only inputs.
            transposed = isinstance(module, nn.ConvTranspose2d)
            fan_in = weight.shape[0] if transposed else weight[0].numel()
            yield weight, (0.0, fan_in**-0.5)
        if isinstance(bias, Tensor):
            yield bias, (0.0, 0.1)
