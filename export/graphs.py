"""The two graphs of an export, and the fingerprint that pairs them."""

import hashlib
from typing import NamedTuple

import torch
from transformers import Sam2Model

from export.decoder_graph import DecoderGraph
from export.encoder_graph import EncoderGraph
from export.sizes import image_size_of


class Graphs(NamedTuple):
    """An encoder and a decoder of the same weights and image size."""

    encoder: EncoderGraph
    decoder: DecoderGraph


def fingerprint_of(model: Sam2Model) -> int:
    """A number for the weights and the image size: which encoder's features a decoder understands.

    The first 8 bytes of a sha256, as a signed little-endian integer (ONNX has INT64). It is taken
    from FP32 weights, before any change of precision, so that an FP16 encoder pairs with an FP32
    decoder.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.dtype != torch.float32:
            raise TypeError(f"fingerprint: expected FP32 weights; {name} is {tensor.dtype}")
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(f"image_size {image_size_of(model.config)}\n".encode())
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


def build_graphs(model: Sam2Model) -> Graphs:
    """Both graphs in FP32 and evaluation mode; they share the model's weights."""
    fingerprint = fingerprint_of(model)
    encoder, decoder = EncoderGraph(model, fingerprint), DecoderGraph(model, fingerprint)
    return Graphs(encoder.eval(), decoder.eval())
