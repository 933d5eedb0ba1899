"""What the encoder's graph takes for pixels. Needs no PyTorch."""

from typing import Literal, get_args

# fp16: grey levels less FP16_ZERO, nearest to Meta's predictor, which never rounds a resized image. FP16 is
# finest around zero: at most a 32nd of a level off, at black and white; whole levels (video) are exact.
# uint8: whole grey levels, half of the bytes between preprocessing and encoder, for the rounding.
Pixels = Literal["fp16", "uint8"]
PIXELS: tuple[Pixels, ...] = get_args(Pixels)
FP16_ZERO = 128

PIXEL_TENSOR = "resized_image"
# Triton's and ONNX's words for them.
PIXEL_BYTES = {"FP16": 2, "UINT8": 1}
TRITON_TYPES: dict[Pixels, str] = {"fp16": "FP16", "uint8": "UINT8"}
