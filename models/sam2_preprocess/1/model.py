"""Triton adapter: see image_decoding.py for what happens to an image, image_process.py for where."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from event_loop import respond_at_once
from image_decoding import RESAMPLES, parse_resample
from image_errors import InvalidImageError
from image_process import DecodeCancelledError, DecoderLostError
from image_processes import ImageProcesses, usable_processors
from pixel_types import PIXEL_TYPES
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
FAILED = "sam2_preprocess failed; the server's log says why"


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        resized_image = next(o for o in config["output"] if o["name"] == "resized_image")
        self.side = int(resized_image["dims"][-1])
        data_type = resized_image["data_type"]
        if data_type not in PIXEL_TYPES:
            raise pb_utils.TritonModelException(
                f"sam2_preprocess: resized_image: expected one of {', '.join(PIXEL_TYPES)}, got {data_type}"
            )
        limits = {name: int(parameters[name]) for name in LIMITS}
        most = int(parameters["decoders"]) or usable_processors()
        self.processes = ImageProcesses(limits, data_type, most)
        self.threads = ThreadPoolExecutor(most, "sam2-preprocess")

    def execute(self, requests):
        for request in requests:
            # Requests for which there is no process wait here and in Triton's queue before this model.
            self.processes.wait_for_room()
            self.threads.submit(self._serve, request)

    def finalize(self):
        self.threads.shutdown()
        self.processes.close()

    def _serve(self, request):
        try:
            response = self._respond(request)
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            pb_utils.Logger.log_error(f"sam2_preprocess: {error!r}")
            response = refuse(FAILED, pb_utils.TritonError.INTERNAL)
        finally:
            self.processes.leave()
        respond_at_once(request, response)

    def _respond(self, request):
        if request.is_cancelled():
            return refuse_cancelled()
        crop_box = read(request, "crop_box")
        resample = read(request, "resample")
        try:
            with self.processes.one() as process:
                image = process.prepare(
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
