"""The graphs of an export, and the fingerprints that pair them."""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Sam2Model, Sam2VideoModel

from export.decoder_graph import DecoderGraph
from export.encoder_graph import EncoderGraph
from export.mask_prompt_graph import MaskPromptGraph
from export.memory_attention_graph import MemoryAttentionGraph
from export.memory_encoder_graph import MemoryEncoderGraph
from export.sizes import image_size_of
from export.video_decoder_graph import VideoDecoderGraph
from export.video_model import memory_weights_of


class Graphs(NamedTuple):
    """An encoder and a decoder of the same weights and image size."""

    encoder: EncoderGraph
    decoder: DecoderGraph


class VideoGraphs(NamedTuple):
    """What tracking needs besides the encoder."""

    memory_attention: MemoryAttentionGraph
    video_decoder: VideoDecoderGraph
    memory_encoder: MemoryEncoderGraph
    mask_prompt: MaskPromptGraph


def fingerprint_of(model: Sam2Model) -> int:
    """A number for the weights and the image size: which encoder's features a decoder understands.

    The first 8 bytes of a sha256, as a signed little-endian integer (ONNX has INT64). It is taken
    from FP32 weights, before any change of precision, so that an FP16 encoder pairs with an FP32
    decoder.
    """
    return _number_for(model.state_dict(), f"image_size {image_size_of(model.config)}")


def memory_fingerprint_of(model: Sam2VideoModel, encoder_fingerprint: int) -> int:
    """A number for the memory's weights on top of the image model's: which memories and object pointers an
    attention understands."""
    return _number_for(memory_weights_of(model), f"encoder_fingerprint {encoder_fingerprint}")


def _number_for(weights: dict[str, Tensor], rest: str) -> int:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        if tensor.dtype != torch.float32:
            raise TypeError(f"fingerprint: expected FP32 weights; {name} is {tensor.dtype}")
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(f"{rest}\n".encode())
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


def build_graphs(model: Sam2Model) -> Graphs:
    """Both graphs in FP32 and evaluation mode; they share the model's weights."""
    fingerprint = fingerprint_of(model)
    encoder, decoder = EncoderGraph(model, fingerprint), DecoderGraph(model, fingerprint)
    return Graphs(encoder.eval(), decoder.eval())


def build_video_graphs(model: Sam2VideoModel, encoder_fingerprint: int) -> VideoGraphs:
    """The video graphs in FP32 and evaluation mode; they share the model's weights.

    Args:
        model: the model with its memory.
        encoder_fingerprint: of the encoder whose features they will get.
    """
    pair = (encoder_fingerprint, memory_fingerprint_of(model, encoder_fingerprint))
    graphs = VideoGraphs(
        memory_attention=MemoryAttentionGraph(model, *pair),
        video_decoder=VideoDecoderGraph(model, *pair),
        memory_encoder=MemoryEncoderGraph(model, *pair),
        mask_prompt=MaskPromptGraph(model, *pair),
    )
    for graph in graphs:
        graph.eval()
    return graphs
