"""Triton adapter: see plane_selection.py and mask_encoding.py for what happens to the planes."""

import json

import triton_python_backend_utils as pb_utils
from mask_encoding import InvalidOutputError, clamp_low_res, encode_masks, parse_mask_formats
from plane_selection import select_planes

RETIRED = (
    "image_id: the embeddings of this image come from other weights than the server decodes with now"
    " (the model was reloaded); send the image again"
)


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.max_output_bytes = int(config["parameters"]["max_output_bytes"]["string_value"])

    def execute(self, requests):
        return [self._respond(request) for request in requests]

    def _respond(self, request):
        if request.is_cancelled():
            return _error("the client cancelled this request", pb_utils.TritonError.CANCELLED)
        if not _read(request, "fingerprint_matches")[0]:
            _retire(_read(request, "encoder_fingerprint"))
            return _error(RETIRED, pb_utils.TritonError.NOT_FOUND)
        height, width = _read(request, "original_hw")
        multimask_output = _read(request, "multimask_output")
        mask_format = _read(request, "mask_format")
        logits, iou_predictions = select_planes(
            _read(request, "plane_logits"),
            _read(request, "plane_ious"),
            multimask_output is not None and bool(multimask_output[0]),
        )
        try:
            formats = parse_mask_formats(None if mask_format is None else mask_format.tolist())
            encoded = encode_masks(
                logits, (int(height), int(width)), formats, self.max_output_bytes
            )
        except InvalidOutputError as error:
            return _error(str(error), pb_utils.TritonError.INVALID_ARG)
        outputs = {**vars(encoded), "iou_predictions": iou_predictions}
        outputs["low_res_masks"] = clamp_low_res(logits)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, values) for name, values in outputs.items()]
        )


def _retire(encoder_fingerprint):
    """Has sam2_embedding drop embeddings that the decoder refuses, so that images sent again are encoded."""
    response = pb_utils.InferenceRequest(
        model_name="sam2_embedding",
        requested_output_names=[],
        inputs=[pb_utils.Tensor("retired_fingerprint", encoder_fingerprint)],
    ).exec()
    if response.has_error():
        pb_utils.Logger.log_error(f"sam2_postprocess: {response.error().message()}")


def _read(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _error(message, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
