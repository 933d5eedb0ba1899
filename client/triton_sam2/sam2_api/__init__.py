"""Meta's `sam2` package for code that was written for it: the same names, computed by a server.

    from triton_sam2.sam2_api import SAM2ImagePredictor, build_sam2

instead of `from sam2.build_sam import build_sam2` and `from sam2.sam2_image_predictor import …`; the modules
are called as Meta's, too, so that writing `triton_sam2.sam2_api` for `sam2` in an import is enough.
Arguments, return values, shapes, data types and order are those of the originals. What needs the network
itself, which stays in the server, raises NotOverServerError.
"""

from triton_sam2.sam2_api.automatic_mask_generator import SAM2AutomaticMaskGenerator
from triton_sam2.sam2_api.build_sam import (
    build_sam2,
    build_sam2_hf,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
)
from triton_sam2.sam2_api.sam2_image_predictor import SAM2ImagePredictor
from triton_sam2.sam2_api.sam2_video_predictor import SAM2VideoPredictor
from triton_sam2.sam2_api.server_model import ServerModel

__all__ = [
    "SAM2AutomaticMaskGenerator",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "ServerModel",
    "build_sam2",
    "build_sam2_hf",
    "build_sam2_video_predictor",
    "build_sam2_video_predictor_hf",
]
