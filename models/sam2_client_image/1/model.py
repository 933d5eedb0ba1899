"""Triton adapter: see client_image.py."""

import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from client_image import InvalidClientImageError, square_image
from triton_tensors import answer, read, refuse, refuse_cancelled


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        if request.is_cancelled():
            return refuse_cancelled()
        try:
            image = square_image(read(request, "decoded_image"), read(request, "original_hw"))
            return answer({"resized_image": image})
        except InvalidClientImageError as error:
            return refuse(error, pb_utils.TritonError.INVALID_ARG)
        except NoSharedMemoryError as error:
            return refuse(error, pb_utils.TritonError.UNAVAILABLE)
