"""Models for clients that have a decoder of their own and want an image's features: Paintera.

Their decoder is one file, made for one size of SAM 2.1 and one image size. Features of another have the same
shapes and would give masks of nothing, without a word; so the models are written for that one alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from export.errors import RepositoryError

PIXELS_FILE, FEATURES_FILE = "client_pixels.onnx", "client_features.onnx"
CLIENT_FILES = (PIXELS_FILE, FEATURES_FILE)
# What an ONNX file is called after, and what stands on it.
CLIENT_MODELS = (
    "sam2_client_pixels",
    "sam2_client_image",
    "sam2_client_features",
    "sam2.1_large_encoder",
    "sam2_encoder_jpeg",
)


class DecoderInClients(NamedTuple):
    """What the decoder was made for."""

    size: str
    image_size: int


# Tests with smaller models put another one here; nothing that a user can set does.
DECODER = DecoderInClients("large", 1024)


def why_left_out(size: str, image_size: int) -> str | None:
    """Why a model of this architecture ("" for none of Meta's) has no such models; None where it has."""
    if (size, image_size) == DECODER:
        return None
    return (
        f"expected {DECODER.size} at {DECODER.image_size} px, for which the decoder in those clients was "
        f"made; this is {size or 'another architecture'} at {image_size} px"
    )


def check_fit(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise RepositoryError for a file that was not made for the decoder in clients."""
    reason = why_left_out(metadata.get("size", ""), int(metadata["image_size"]))
    if reason is not None:
        raise RepositoryError(f"{path}: {reason}")
