"""Triton adapter: see image_decoding.py for what happens to an image, image_process.py for where."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from image_decoding import RESAMPLES, parse_resample
from image_errors import InvalidImageError
from image_process import DecodeCancelledError, DecoderLostError, ImageProcess
from pixel_types import AS_PIXELS
from triton_tensors import answer, read, refuse, refuse_cancelled

LIMITS = (
    "max_image_bytes",
    "max_image_pixels",
    "max_image_side",
    "max_image_segments",
    "max_jpeg_scans",
    "max_tiff_directories",
    "max_decode_seconds",
    "max_decode_memory_bytes",
)


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        resized_image = next(o for o in config["output"] if o["name"] == "resized_image")
        self.side = int(resized_image["dims"][-1])
        data_type = resized_image["data_type"]
        if data_type not in AS_PIXELS:
            raise pb_utils.TritonModelException(
                f"sam2_preprocess: resized_image: expected one of {', '.join(AS_PIXELS)}, got {data_type}"
            )
        self.process = ImageProcess({name: int(parameters[name]) for name in LIMITS}, data_type)

    def execute(self, requests):
        return [self._respond(request) for request in requests]

    def finalize(self):
        self.process.close()

    def _respond(self, request):
        if request.is_cancelled():
            return refuse_cancelled()
        crop_box = read(request, "crop_box")
        resample = read(request, "resample")
        try:
            image = self.process.prepare(
                read(request, "image")[0],
                self.side,
                RESAMPLES[0] if resample is None else parse_resample(resample[0]),
                None if crop_box is None else crop_box.tolist(),
                request.is_cancelled,
            )
            return answer(
                {
                    "resized_image": image.resized,
                    "original_hw": np.array(image.original_hw, np.int32),
                }
            )
        except InvalidImageError as error:
            return refuse(error, pb_utils.TritonError.INVALID_ARG)
        except DecodeCancelledError:
            return refuse_cancelled()
        except (DecoderLostError, NoSharedMemoryError) as error:
            return refuse(error, pb_utils.TritonError.UNAVAILABLE)
