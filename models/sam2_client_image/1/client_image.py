"""An image file for a decoder in the client: of exactly the encoder's size, or refused."""

from typing import Any

import numpy as np
import numpy.typing as npt


class InvalidClientImageError(ValueError):
    """The file's picture has another size; the message says which was expected and which came."""


def square_image(
    decoded_image: npt.NDArray[Any], original_hw: npt.NDArray[np.int32]
) -> npt.NDArray[Any]:
    """[3, S, S] and the upright picture's height and width ► [1, 3, S, S]."""
    side = decoded_image.shape[-1]
    height, width = (int(edge) for edge in original_hw)
    if (height, width) != (side, side):
        raise InvalidClientImageError(
            f"encoded_image: expected a picture of exactly {side} x {side} pixels, got {width} x {height}"
        )
    return decoded_image[None]
