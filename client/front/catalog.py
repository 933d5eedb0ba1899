"""Which models may be called from outside, and with which tensors.

Who may be called is written here; what their tensors look like is read from the running server, whose
config.pbtxt files are the only declaration of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PublicModel:
    """What of a model is for callers: all of its tensors but those that are hidden."""

    hidden_inputs: frozenset[str] = frozenset()
    # None: all of the model's outputs.
    outputs: frozenset[str] | None = None
    # Where a repository may be without it: when it is not, in words.
    only_with: str = ""


_LARGE = "it is served with Meta's `large` at 1024 px alone, which clients have the decoder of"

# Inner models never: they trust the models before them.
PUBLIC_MODELS: Mapping[str, PublicModel] = {
    "sam2": PublicModel(),
    # To warm and to forget images. Its embeddings are for the decoder, and they would betray the picture.
    "sam2_embedding": PublicModel(
        hidden_inputs=frozenset({"retired_fingerprint", "crop_box"}),
        outputs=frozenset({"cached_image_id", "original_hw"}),
    ),
    "sam2_automask": PublicModel(),
    "sam2_video": PublicModel(),
    # For clients with a decoder of their own. They keep nothing and know nobody's images.
    "sam2.1_large_encoder": PublicModel(only_with=_LARGE),
    "sam2_encoder_jpeg": PublicModel(only_with=_LARGE),
}
# What may be let in without an API key (front/keyless.py): it touches no cache and no id, and no tenant's.
KEYLESS_MODELS = frozenset({"sam2.1_large_encoder"})


@dataclass(frozen=True)
class TensorFacts:
    """A tensor's data type (Triton's word for it) and shape; -1 is a side of any length."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelFacts:
    """The tensors of one model that callers may use."""

    name: str
    inputs: Mapping[str, TensorFacts] = field(default_factory=dict)
    outputs: Mapping[str, TensorFacts] = field(default_factory=dict)


def read_metadata(metadata: Any, public: PublicModel) -> ModelFacts:
    """The public part of a model, from Triton's ModelMetadataResponse."""
    inputs = {
        tensor.name: TensorFacts(tensor.datatype, tuple(tensor.shape))
        for tensor in metadata.inputs
        if tensor.name not in public.hidden_inputs
    }
    outputs = {
        tensor.name: TensorFacts(tensor.datatype, tuple(tensor.shape))
        for tensor in metadata.outputs
        if public.outputs is None or tensor.name in public.outputs
    }
    return ModelFacts(metadata.name, inputs, outputs)
