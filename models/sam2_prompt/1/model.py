"""Triton adapter: see prompt_encoding.py for what happens to a prompt."""

import dataclasses
import json

import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from prompt_encoding import InvalidPromptError, PromptLimits, RawPrompt, encode_prompt
from triton_tensors import answer, read, refuse, refuse_cancelled

OUTPUTS = ("unit_point_coords", "token_labels", "dense_mask_input", "has_mask_input")
FAILED = "sam2_prompt failed; the server's log says why"


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        parameters = {
            key: int(value["string_value"]) for key, value in config["parameters"].items()
        }
        self.limits = PromptLimits(
            parameters["max_objects"],
            parameters["max_points_per_object"],
            parameters["max_tokens"],
            parameters["max_image_pixels"],
        )
        dense_mask_input = next(o for o in config["output"] if o["name"] == "dense_mask_input")
        self.low_res_side = int(dense_mask_input["dims"][-1])

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        try:
            return self._respond(request)
        except InvalidPromptError as error:
            return refuse(error, pb_utils.TritonError.INVALID_ARG)
        except NoSharedMemoryError as error:
            return refuse(error, pb_utils.TritonError.UNAVAILABLE)
        except Exception as error:  # noqa: BLE001 - it would reach the client with paths and lines
            pb_utils.Logger.log_error(f"sam2_prompt: {error!r}")
            return refuse(FAILED, pb_utils.TritonError.INTERNAL)

    def _respond(self, request):
        if request.is_cancelled():
            return refuse_cancelled()
        height, width = read(request, "original_hw")
        prompt = RawPrompt(
            **{field.name: read(request, field.name) for field in dataclasses.fields(RawPrompt)}
        )
        encoded = encode_prompt(prompt, (int(height), int(width)), self.low_res_side, self.limits)
        return answer({name: getattr(encoded, name) for name in OUTPUTS})
