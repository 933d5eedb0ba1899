"""Triton adapter: see image_decoding.py for what happens to an image."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from image_decoding import InvalidImageError, crop_picture, decode_image, resize_to_square
from PIL import Image


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {
            key: int(value["string_value"]) for key, value in config["parameters"].items()
        }
        self.max_image_bytes = parameters["max_image_bytes"]
        self.max_image_pixels = parameters["max_image_pixels"]
        resized_image = next(o for o in config["output"] if o["name"] == "resized_image")
        self.side = int(resized_image["dims"][-1])
        # Our own limit, checked on the header, stands in for Pillow's fixed one.
        Image.MAX_IMAGE_PIXELS = None

    def execute(self, requests):
        return [self._respond(request) for request in requests]

    def _respond(self, request):
        if request.is_cancelled():
            return _error("the client cancelled this request", pb_utils.TritonError.CANCELLED)
        data = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()[0]
        try:
            picture = decode_image(data, self.max_image_bytes, self.max_image_pixels)
            crop_box = pb_utils.get_input_tensor_by_name(request, "crop_box")
            if crop_box is not None:
                picture = crop_picture(picture, tuple(crop_box.as_numpy().tolist()))
        except InvalidImageError as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("resized_image", resize_to_square(picture, self.side)),
                pb_utils.Tensor("original_hw", np.array(picture.size[::-1], np.int32)),
            ]
        )


def _error(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
