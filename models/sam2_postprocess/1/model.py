"""Triton adapter: see plane_selection.py and mask_encoding.py for what happens to the planes.

`execute` takes requests on and is free for the next one at once; they wait where they are counted. One of
many pixels is encoded in a lane of its own, in turns with others of its kind: a click on a small image does
not wait for masks of a huge one.
"""

import json
import os

import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from fair_lane import FairLane, LaneFullError, Place, take_on
from mask_encoding import (
    InvalidOutputError,
    MaskEncoding,
    OutputLimits,
    clamp_low_res,
    parse_mask_formats,
)
from plane_selection import InvalidPlanesError, check_planes, select_planes
from request_caller import Callers
from shared_words import RETIRED
from triton_tensors import answer, read, refuse, refuse_cancelled

TOO_MANY_WAIT = (
    "sam2_postprocess: too many masks wait to be encoded already (max_waiting_requests,"
    " max_waiting_bytes); try again in a moment"
)
TOO_MANY_LARGE = (
    "mask_format: too many masks of large images are being encoded already (max_heavy_requests,"
    " max_heavy_bytes); try again in a moment"
)
FAILED = "sam2_postprocess failed; the server's log says why"


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        values = {key: int(value["string_value"]) for key, value in config["parameters"].items()}
        self.limits = OutputLimits(values["max_output_bytes"], values["max_encoded_pixels"])
        self.callers = Callers.from_environment(os.environ)
        self.max_image_pixels = values["max_image_pixels"]
        self.light_pixels = values["light_pixels"]
        self.light_lane = FairLane(
            values["max_waiting_requests"], values["max_waiting_bytes"], "light", TOO_MANY_WAIT
        )
        self.heavy_lane = FairLane(
            values["max_heavy_requests"],
            values["max_heavy_bytes"],
            "heavy",
            TOO_MANY_LARGE,
            gives_way=True,
        )

    def execute(self, requests):
        for request in requests:
            take_on(self._answer(request, request.get_response_sender()))

    def finalize(self):
        self.light_lane.close()
        self.heavy_lane.close()

    def _answer(self, request, sender):
        """Sends exactly one response; yields where others have their turn, at first its place."""
        try:
            response = yield from self._respond(request)
        except (InvalidOutputError, InvalidPlanesError) as error:
            response = refuse(error, pb_utils.TritonError.INVALID_ARG)
        except (LaneFullError, NoSharedMemoryError) as error:
            response = refuse(error, pb_utils.TritonError.UNAVAILABLE)
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            pb_utils.Logger.log_error(f"sam2_postprocess: {error!r}")
            response = refuse(FAILED, pb_utils.TritonError.INTERNAL)
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _respond(self, request):
        if request.is_cancelled():
            return refuse_cancelled()
        if not read(request, "fingerprint_matches")[0]:
            self._retire(read(request, "encoder_fingerprint"))
            return refuse(RETIRED, pb_utils.TritonError.NOT_FOUND)
        multimask_output = read(request, "multimask_output")
        mask_format = read(request, "mask_format")
        formats = parse_mask_formats(None if mask_format is None else mask_format.tolist())
        original_hw = tuple(read(request, "original_hw").tolist())
        plane_logits, plane_ious = read(request, "plane_logits"), read(request, "plane_ious")
        check_planes(plane_logits, plane_ious, original_hw, self.max_image_pixels)
        logits, iou_predictions = select_planes(
            plane_logits,
            plane_ious,
            multimask_output is not None and bool(multimask_output[0]),
        )
        encoding = MaskEncoding(logits, original_hw, formats, self.limits)
        outputs = {**vars(encoding.encoded), "iou_predictions": iou_predictions}
        heavy = encoding.pixels > self.light_pixels
        held_bytes = plane_logits.nbytes + sum(array.nbytes for array in outputs.values())
        yield Place(self.heavy_lane if heavy else self.light_lane, held_bytes)
        if request.is_cancelled():
            return refuse_cancelled()
        for _ in encoding.steps():
            if heavy:
                if request.is_cancelled():
                    return refuse_cancelled()
                yield
        outputs["low_res_masks"] = clamp_low_res(logits)
        return answer(outputs)

    def _retire(self, encoder_fingerprint):
        """Has sam2_embedding drop embeddings that the decoder refuses: images sent again are encoded."""
        response = pb_utils.InferenceRequest(
            model_name="sam2_embedding",
            requested_output_names=[],
            inputs=[pb_utils.Tensor("retired_fingerprint", encoder_fingerprint)],
            parameters=self.callers.inner_parameters(),
        ).exec()
        if response.has_error():
            pb_utils.Logger.log_error(f"sam2_postprocess: {response.error().message()}")
