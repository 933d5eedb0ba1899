"""Triton adapter: see mask_generation.py for how an image's masks are found.

`execute` hands every request to one event loop and returns; each gets exactly one answer, from its own
coroutine. Embeddings come from sam2_embedding and planes from sam2_decoder, a batch at a time, so that
clicks on other images have their turn between two batches.
"""

import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from automask_metrics import AutomaskMetrics
from automask_settings import parse_settings
from event_loop import EventLoop
from generator_parameters import InvalidParameterError, parse_parameters
from inner_models import InnerModelError, call, restore_code
from mask_answer import answer_tensors, parse_formats
from mask_encoding import InvalidOutputError
from mask_generation import Embedding, MaskGeneration, RetiredEmbeddingError, on_thread
from request_caller import Callers, InvalidCallerError
from shared_words import RETIRED
from stop_notice import ServerStoppingError, StopNotice
from triton_tensors import InvalidTextError, answer, read, read_text, refuse
from turns import OverloadedError, Turns

EMBEDDING_TENSORS = ("image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint")
IMAGE_FACTS = ("original_hw", "cached_image_id")
PLANES = ("plane_logits", "plane_ious", "fingerprint_matches")


class CancelledRequestError(Exception):
    """Nobody waits for the answer any more."""


class OutOfTimeError(Exception):
    """The work took longer than it may."""


# Errors that a client hears as they are: what they count as, and their status by its name (TritonError does
# not exist yet while this module is being imported).
REFUSALS = {
    CancelledRequestError: ("cancelled", "CANCELLED"),
    OutOfTimeError: ("out_of_time", "INVALID_ARG"),
    InvalidParameterError: (None, "INVALID_ARG"),
    InvalidOutputError: (None, "INVALID_ARG"),
    InvalidTextError: (None, "INVALID_ARG"),
    InvalidCallerError: (None, "INVALID_ARG"),
    OverloadedError: ("overloaded", "UNAVAILABLE"),
    ServerStoppingError: (None, "UNAVAILABLE"),
    NoSharedMemoryError: (None, "UNAVAILABLE"),
    RetiredEmbeddingError: (None, "NOT_FOUND"),
}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.settings = parse_settings(config["parameters"])
        self.metrics = AutomaskMetrics(pb_utils)
        self.stop_notice = StopNotice.from_environment(os.environ)
        generation = self.settings.generation
        self.callers = Callers.from_environment(os.environ)
        self.turns = Turns(
            self.settings.max_running,
            self.settings.max_waiting,
            self.metrics.set_load,
            self.settings.tenant_percent,
        )
        # For each running request: planes, one batch and one crop ahead.
        workers = self.settings.max_running * (generation.planes_at_once + 4)
        self.loop = EventLoop("sam2-automask", workers, workers_give_way=True)

    def execute(self, requests):
        for request in requests:
            self.loop.serve(request, self._answer)

    def finalize(self):
        self.loop.close()

    async def _answer(self, request):
        try:
            return await self._respond(request)
        except tuple(REFUSALS) as error:
            metric, code = REFUSALS[type(error)]
            if metric is not None:
                self.metrics.count(metric)
            return refuse(error, getattr(pb_utils.TritonError, code))
        except InnerModelError as error:
            return refuse(*restore_code(str(error)))
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            pb_utils.Logger.log_error(f"sam2_automask: {error!r}")
            message = "sam2_automask failed; the server's log says why"
            return refuse(message, pb_utils.TritonError.INTERNAL)

    async def _respond(self, request):
        # Refused before anything is waited for.
        tenant = self.callers.read(request.parameters()).tenant
        text = read(request, "parameters")
        parameters = parse_parameters(
            None if text is None else text[0], self.settings.max_parameters_bytes
        )
        mask_format = read(request, "mask_format")
        formats = parse_formats(None if mask_format is None else mask_format.tolist())
        async with self.turns.turn(tenant):
            started = time.monotonic()

            def check():
                if request.is_cancelled():
                    raise CancelledRequestError("the client cancelled this request")
                if time.monotonic() - started > self.settings.max_seconds:
                    raise OutOfTimeError(
                        f"parameters: expected work of at most {self.settings.max_seconds} seconds"
                        f" (max_seconds), gave up after {generation.counts.points} points in"
                        f" {generation.counts.crops} finished crops; ask for fewer points or crops"
                    )

            image = _Image(
                read(request, "image"),
                read(request, "image_id"),
                self.callers.inner_parameters(tenant),
            )
            generation = MaskGeneration(
                parameters, self.settings.generation, image.encode_crop, self._decode, check
            )
            read_text(request, "image_id")  # refuses what is no text
            self.stop_notice.check()
            check()
            try:
                whole = await image.encode()
                found = await generation.run(whole)
                tensors = await on_thread(
                    answer_tensors, found, whole.hw, formats, self.settings.output, check
                )
            finally:
                self.metrics.observe(generation.counts, time.monotonic() - started)
        self.metrics.count("masks", len(found))
        self.metrics.count("requests")
        return answer(tensors | {"cached_image_id": image.cached_image_id})

    async def _decode(self, embedding, prompts):
        rows = len(prompts.token_labels)
        mask_input = prompts.mask_input
        if mask_input is None:
            side = embedding.tensors["high_res_feats_0"].shape[
                -1
            ]  # planes have this map's size, S/4
            mask_input = np.zeros((rows, 1, side, side), np.float32)
        inputs = {
            **embedding.tensors,
            "unit_point_coords": prompts.unit_point_coords,
            "token_labels": prompts.token_labels,
            "dense_mask_input": mask_input,
            "has_mask_input": np.full(rows, prompts.mask_input is not None, np.float32),
        }
        outputs = await call("sam2_decoder", inputs, PLANES)
        if not outputs["fingerprint_matches"][0]:
            await call(
                "sam2_embedding",
                {"retired_fingerprint": embedding.tensors["encoder_fingerprint"]},
                [],
                self.callers.inner_parameters(),
            )
            raise RetiredEmbeddingError(RETIRED)
        return outputs["plane_logits"], outputs["plane_ious"]


class _Image:
    """A request's image, its id or both, and what sam2_embedding makes of them."""

    def __init__(self, image, image_id, caller):
        self._image = {} if image is None else {"image": image}
        self._image_id = {} if image_id is None else {"image_id": image_id}
        self._caller = caller
        self.cached_image_id = None

    async def encode(self):
        outputs = await self._embed(self._image | self._image_id)
        self.cached_image_id = outputs["cached_image_id"]
        return _embedding(outputs)

    async def encode_crop(self, box_xyxy):
        # Where the image came along its bytes say which it is, whatever became of its name meanwhile.
        which = self._image or {"image_id": self.cached_image_id}
        inputs = which | {"crop_box": np.array(box_xyxy, np.int32)}
        return _embedding(await self._embed(inputs))

    async def _embed(self, inputs):
        wanted = EMBEDDING_TENSORS + IMAGE_FACTS
        return await call("sam2_embedding", inputs, wanted, self._caller)


def _embedding(outputs):
    tensors = {name: outputs[name] for name in EMBEDDING_TENSORS}
    height, width = outputs["original_hw"].tolist()
    return Embedding(tensors, (height, width))
