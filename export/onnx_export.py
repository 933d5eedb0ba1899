"""The torch graphs as ONNX files: dynamic where the configurations say -1, static everywhere else."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import Tensor, nn

from export.checkpoint import LoadedCheckpoint
from export.graphs import Graphs
from export.pixels import FP16_ZERO, PIXEL_TENSOR, Pixels

# LayerNormalization is an operator from 17 on; Triton 24.10's ONNX Runtime reads up to 21.
OPSET = 17
IR_VERSION = 8
# Counts changes of the graphs themselves, so that a file says how it was made.
EXPORTER_VERSION = "2"


# A dimension is either a number or the name of a dynamic one.
Dims = tuple[int | str, ...]


class GraphFiles(NamedTuple):
    """The two ONNX files of an export."""

    encoder: Path
    decoder: Path


def encoder_dims(image_size: int, embed_channels: int) -> dict[str, Dims]:
    """Dimensions of the encoder's tensors, inputs first."""
    s, c = image_size, embed_channels
    return {
        "resized_image": ("batch", 3, s, s),
        "image_embed": ("batch", c, s // 16, s // 16),
        "high_res_feats_0": ("batch", c // 8, s // 4, s // 4),
        "high_res_feats_1": ("batch", c // 4, s // 8, s // 8),
        "encoder_fingerprint": ("batch", 1),
    }


def decoder_dims(image_size: int, embed_channels: int) -> dict[str, Dims]:
    """Dimensions of the decoder's tensors, inputs first; B objects, N tokens each."""
    s, c = image_size, embed_channels
    return {
        "image_embed": (1, c, s // 16, s // 16),
        "high_res_feats_0": (1, c // 8, s // 4, s // 4),
        "high_res_feats_1": (1, c // 4, s // 8, s // 8),
        "encoder_fingerprint": (1, 1),
        "unit_point_coords": ("B", "N", 2),
        "token_labels": ("B", "N"),
        "dense_mask_input": ("B", 1, s // 4, s // 4),
        "has_mask_input": ("B",),
        "plane_logits": ("B", 4, s // 4, s // 4),
        "plane_ious": ("B", 4),
        "fingerprint_matches": (1,),
    }


ENCODER_INPUTS = ("resized_image",)
DECODER_INPUTS = (
    "image_embed",
    "high_res_feats_0",
    "high_res_feats_1",
    "encoder_fingerprint",
    "unit_point_coords",
    "token_labels",
    "dense_mask_input",
    "has_mask_input",
)


# What the inputs of each name are traced with.
_INTEGERS = {
    PIXEL_TENSOR: (torch.uint8, 0, 256),
    "mask_prompt": (torch.uint8, 0, 2),
    "token_labels": (torch.int32, -2, 4),
    "maskmem_tpos": (torch.int64, 0, 7),
    "encoder_fingerprint": (torch.int64, 0, 1),
    "memory_fingerprint": (torch.int64, 0, 1),
}
_HALVES = ("image_embed", "high_res_feats_0", "high_res_feats_1", "maskmem_features")
# Dynamic dimensions are larger than 1 and differ, so that none is taken for a constant or for another.
_TRACED_WITH = {"batch": 2, "B": 2, "N": 3, "M": 3, "P": 5, "B or 1": 2}


def example_inputs(
    dims: Mapping[str, Dims], names: tuple[str, ...], seed: int = 0, pixels: Pixels = "fp16"
) -> list[Tensor]:
    """Inputs to trace with."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for name in names:
        shape = [_TRACED_WITH[d] if isinstance(d, str) else d for d in dims[name]]
        if name in _INTEGERS:
            kind, low, high = _INTEGERS[name]
            example = torch.randint(low, high, shape, dtype=kind, generator=generator)
        elif name in _HALVES:
            example = torch.randn(shape, generator=generator).half()
        else:
            example = torch.rand(shape, generator=generator)
        if name == PIXEL_TENSOR and pixels == "fp16":
            example = example.half() - FP16_ZERO
        examples.append(example)
    return examples


def write_encoder(
    graphs: Graphs,
    path: Path,
    metadata: Mapping[str, str],
    device: str = "cpu",
    pixels: Pixels = "fp16",
) -> None:
    """Write the encoder's ONNX file; `device` is where PyTorch runs the graph once to trace it."""
    size, channels = graphs.encoder.image_size, graphs.decoder.embed_channels
    dims = encoder_dims(size, channels)
    write_graph(
        graphs.encoder,
        path,
        dims=dims,
        inputs=ENCODER_INPUTS,
        metadata=metadata,
        device=device,
        pixels=pixels,
    )


def write_decoder(
    graphs: Graphs, path: Path, metadata: Mapping[str, str], device: str = "cpu"
) -> None:
    """Write the decoder's ONNX file; `device` is where PyTorch runs the graph once to trace it."""
    size, channels = graphs.decoder.image_size, graphs.decoder.embed_channels
    dims = decoder_dims(size, channels)
    write_graph(
        graphs.decoder, path, dims=dims, inputs=DECODER_INPUTS, metadata=metadata, device=device
    )


def metadata_of(checkpoint: LoadedCheckpoint, graphs: Graphs, precision: str) -> dict[str, str]:
    """What an ONNX file says about itself (`metadata_props`)."""
    return {
        "image_size": str(graphs.encoder.image_size),
        "embed_channels": str(graphs.decoder.embed_channels),
        "model_name": checkpoint.model_name,
        "precision": precision,
        "fingerprint": str(int(graphs.encoder.fingerprint.item())),
        "source_checkpoint": checkpoint.source_name,
        "source_sha256": checkpoint.source_sha256,
        "exporter_version": EXPORTER_VERSION,
    }


def write_graph(
    graph: nn.Module,
    path: Path,
    *,
    dims: Mapping[str, Dims],
    inputs: tuple[str, ...],
    metadata: Mapping[str, str],
    device: str = "cpu",
    pixels: Pixels = "fp16",
) -> None:
    """Write one graph's ONNX file; `device` is where PyTorch runs it once to trace it."""
    outputs = tuple(name for name in dims if name not in inputs)
    dynamic_axes = {
        name: {axis: dim for axis, dim in enumerate(shape) if isinstance(dim, str)}
        for name, shape in dims.items()
    }
    graph.to(device)
    examples = tuple(example.to(device) for example in example_inputs(dims, inputs, pixels=pixels))
    with _quiet_exporter(), torch.inference_mode():
        torch.onnx.export(
            graph,
            examples,
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: axes for name, axes in dynamic_axes.items() if axes},
            opset_version=OPSET,
            # The graphs are plain tensor code without branches: tracing sees all of them, and needs
            # no further dependency (the other exporter needs onnxscript).
            dynamo=False,
        )
    graph.to("cpu")  # it shares its weights with the model that it is checked against
    model = onnx.load(str(path))
    model.ir_version = IR_VERSION
    for value in [*model.graph.input, *model.graph.output]:
        _declare_dims(value, dims[value.name])
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _declare_dims(value: onnx.ValueInfoProto, dims: Dims) -> None:
    """Write a graph input's or output's dimensions: Triton compares them with the configuration."""
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for dim in dims:
        if isinstance(dim, str):
            shape.dim.add().dim_param = dim
        else:
            shape.dim.add().dim_value = dim


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide the tracer's remarks on itself and on shapes that are constants here on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.onnx")
        yield
