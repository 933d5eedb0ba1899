"""Triton adapter: see image_decoding.py for what happens to an image, image_process.py for where."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from image_decoding import RESAMPLES, parse_resample
from image_errors import InvalidImageError
from image_process import DecodeCancelledError, DecoderLostError, ImageProcess

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
        self.process = ImageProcess({name: int(parameters[name]) for name in LIMITS})

    def execute(self, requests):
        return [self._respond(request) for request in requests]

    def finalize(self):
        self.process.close()

    def _respond(self, request):
        if request.is_cancelled():
            return _error("the client cancelled this request", pb_utils.TritonError.CANCELLED)
        data = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()[0]
        resample = pb_utils.get_input_tensor_by_name(request, "resample")
        try:
            image = self.process.prepare(
                data,
                self.side,
                RESAMPLES[0] if resample is None else parse_resample(resample.as_numpy()[0]),
                request.is_cancelled,
            )
        except InvalidImageError as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        except DecodeCancelledError as error:
            return _error(str(error), pb_utils.TritonError.CANCELLED)
        except DecoderLostError as error:
            return _error(str(error), pb_utils.TritonError.UNAVAILABLE)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("resized_image", image.resized),
                pb_utils.Tensor("original_hw", np.array(image.original_hw, np.int32)),
            ]
        )


def _error(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
