"""The written ONNX files against PyTorch: the same numbers on random inputs, or an error.

The reference is transformers' own forward pass in FP32 (`export.reference`), not the traced code.
Both decoders get the same FP16 embeddings, because that is what passes between the models.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor
from transformers import Sam2Model

from export.errors import VerificationError
from export.onnx_export import GraphFiles
from export.pixels import FP16_ZERO, PIXEL_TENSOR
from export.reference import reference_decode, reference_encode
from export.sizes import image_size_of

# Largest allowed error, as a fraction of the reference tensor's standard deviation. FP32: features
# are rounded to FP16 (half a unit in the last place of values up to some ten deviations); planes
# and IoUs differ by the order of summation only. FP16: 0.004 measured on untrained
# models; trained weights have outliers, and GPUs round after every step, which a CPU does not.
TOLERANCES = {
    "fp32": {"features": 1e-2, "plane_logits": 2e-3, "plane_ious": 2e-3, "scores": 2e-3},
    "fp16": {"features": 1e-1, "plane_logits": 1e-1, "plane_ious": 1e-1, "scores": 1e-1},
}
# What an untrained or saturated head gives is nearly the same for all: errors are fractions of these
# at least.
LEAST_DEVIATIONS = {"plane_ious": 0.05, "iou_predictions": 0.05, "object_score_logits": 0.5}


Array = NDArray[np.generic]


class Measured(NamedTuple):
    """One output of one case: errors as fractions of the reference's standard deviation."""

    case: str
    tensor: str
    rms: float
    largest: float
    tolerance: float

    @property
    def passed(self) -> bool:
        # Written so that NaN fails.
        return bool(self.largest <= self.tolerance)


class Prompts(NamedTuple):
    """Decoder inputs for B objects."""

    case: str
    unit_point_coords: Tensor
    token_labels: Tensor
    dense_mask_input: Tensor
    has_mask_input: Tensor


def verify(
    files: GraphFiles,
    model: Sam2Model,
    precision: str,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measured]:
    """Run both files in ONNX Runtime on the CPU and measure their errors.

    Raises:
        VerificationError: an error is above its tolerance, or an output is not a number.
    """
    progress("encoder: loading in ONNX Runtime")
    encoder = open_session(files.encoder)
    generator = torch.Generator().manual_seed(0)
    size = image_size_of(model.config)
    measured: list[Measured] = []
    embeddings: list[Array] = []
    for batch in (1, 2):
        case = f"{batch} image" + "s" * (batch > 1)
        progress(f"encoder: {case}")
        shape = (batch, 3, size, size)
        pixels, levels = _random_pixels(encoder, shape, generator)
        embeddings = encoder.run(None, {PIXEL_TENSOR: pixels.numpy()})
        references = reference_encode(model, levels)
        for name, got, expected in zip(_FEATURES, embeddings, references, strict=False):
            tolerance = TOLERANCES[precision]["features"]
            measured.append(measure_error(case, name, got, expected, tolerance))
    del encoder
    decoder = open_session(files.decoder)
    one_image = [array[:1] for array in embeddings]
    for prompts in example_prompts(size, generator):
        progress(f"decoder: {prompts.case}")
        measured += _verify_decoder(decoder, model, one_image, prompts, precision)
    refuse_failed(measured, precision)
    return measured


def _random_pixels(
    encoder: ort.InferenceSession, shape: tuple[int, ...], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pixels of the type that an encoder takes, and the grey levels that they stand for."""
    if encoder.get_inputs()[0].type == "tensor(uint8)":
        levels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return levels, levels
    pixels = (255 * torch.rand(shape, generator=generator) - FP16_ZERO).half()
    return pixels, pixels.float() + FP16_ZERO


def refuse_failed(measured: list[Measured], precision: str) -> None:
    """Raise a VerificationError that names every error above its tolerance."""
    failed = [m for m in measured if not m.passed]
    if failed:
        lines = "; ".join(
            f"{m.tensor} ({m.case}): error {m.largest:.2g} of a standard deviation, "
            f"allowed {m.tolerance:.2g}"
            for m in failed
        )
        raise VerificationError(
            f"the {precision} graphs do not compute what PyTorch computes: {lines}"
        )


_FEATURES = ("image_embed", "high_res_feats_0", "high_res_feats_1")


def example_prompts(size: int, generator: torch.Generator) -> Iterator[Prompts]:
    """Decoder inputs that between them use every label, masks per object, several B and N."""
    side = size // 4
    cases: list[tuple[str, list[list[int]], list[float]]] = [
        ("one click", [[1, -1]], [0]),
        ("box and clicks", [[2, 3, 1, 0, -1]], [0]),
        ("3 objects, masks for 2", [[1, 0, -1], [2, 3, -1], [1, -1, -1]], [1, 0, 1]),
        ("mask alone, beside a click", [[-2], [1]], [1, 0]),
        ("mask alone", [[-2]], [1]),
    ]
    for case, labels, has_mask in cases:
        objects, count = len(labels), len(labels[0])
        yield Prompts(
            case,
            torch.rand(objects, count, 2, generator=generator),
            torch.tensor(labels, dtype=torch.int32),
            4 * torch.randn(objects, 1, side, side, generator=generator),
            torch.tensor(has_mask, dtype=torch.float32),
        )


def table_of(measured: list[Measured], title: str) -> Table:
    """The errors as a table for people."""
    table = Table(title=title, caption="errors as fractions of the reference's standard deviation")
    for column in ("case", "tensor"):
        table.add_column(column)
    for column in ("rms", "largest", "allowed"):
        table.add_column(column, justify="right")
    for m in measured:
        row = (f"{m.rms:.1e}", f"{m.largest:.1e}", f"{m.tolerance:.0e}")
        table.add_row(m.case, m.tensor, *row, style=None if m.passed else "red")
    return table


def _verify_decoder(
    decoder: ort.InferenceSession,
    model: Sam2Model,
    one_image: list[Array],
    prompts: Prompts,
    precision: str,
) -> Iterator[Measured]:
    feed = dict(zip((*_FEATURES, "encoder_fingerprint"), one_image, strict=True))
    feed |= {name: getattr(prompts, name).numpy() for name in Prompts._fields if name != "case"}
    planes, ious, matches = decoder.run(None, feed)
    if not matches.all():
        raise VerificationError("the decoder does not recognise its own encoder's fingerprint")
    image_embed, feats_0, feats_1 = (torch.from_numpy(array) for array in one_image[:3])
    references = [
        reference_decode(
            model, (image_embed, feats_0, feats_1), coords, labels, mask if has else None
        )
        for coords, labels, mask, has in zip(*prompts[1:], strict=True)
    ]
    for name, got, index in (("plane_logits", planes, 0), ("plane_ious", ious, 1)):
        expected = torch.stack([reference[index] for reference in references])
        yield measure_error(prompts.case, name, got, expected, TOLERANCES[precision][name])


def measure_error(
    case: str, tensor: str, got: Array, expected: Tensor, tolerance: float
) -> Measured:
    """How far one output is from the reference."""
    deviation = max(float(expected.detach().std()), LEAST_DEVIATIONS.get(tensor, 1e-12))
    error = (torch.from_numpy(got).float() - expected.detach()) / deviation
    rms = float(error.square().mean().sqrt())
    return Measured(case, tensor, rms, float(error.abs().max()), tolerance)


def open_session(path: object) -> ort.InferenceSession:
    """A file in ONNX Runtime on the CPU."""
    options = ort.SessionOptions()
    # Threads that wait busily take the cores from PyTorch, which computes in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
