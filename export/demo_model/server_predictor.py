"""A running server as a predictor; apart, so that training does without the client."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from triton_sam2 import SAM2TritonClient

from export.demo_model.fields import ByteImage
from export.demo_model.model import WEIGHTS_DIR, load_model
from export.demo_model.predictors import Floats, PredictionLike, Predictor, TorchPredictor


class ServerPredictor:
    """A running server, asked through our client."""

    def __init__(self, url: str) -> None:
        self._client = SAM2TritonClient(url)

    def set_image(self, image: ByteImage, /) -> None:
        self._client.set_image(image)

    def predict(
        self,
        point_coords: Floats | None = None,
        point_labels: NDArray[np.int32] | None = None,
        *,
        box: Floats | None = None,
        mask_input: Floats | None = None,
        multimask_output: bool = False,
    ) -> PredictionLike:
        return self._client.predict(
            point_coords, point_labels, box, mask_input, multimask_output, low_res_masks=True
        )


def open_predictor(weights: Path | None = None, url: str | None = None) -> Predictor:
    """The server at `url`, or else the torch model of a folder of weights."""
    if url is not None and weights is not None:
        raise ValueError("url and weights: expected one of them, got both")
    return ServerPredictor(url) if url else TorchPredictor(load_model(weights or WEIGHTS_DIR))
