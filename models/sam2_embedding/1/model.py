"""Triton adapter: see embedding_service.py for how an image's embeddings are found and kept.

`execute` hands every request to one event loop and returns at once, so cached images are answered while
others are being encoded. Each request gets exactly one answer, from its own coroutine.
"""

import asyncio
import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from cache_metrics import CacheMetrics
from embedding_cache import EmbeddingCache, ImageEmbedding
from embedding_service import (
    EmbeddingService,
    ImageNotFoundError,
    InvalidRequestError,
    OverloadedError,
)
from embedding_settings import parse_settings
from event_loop import EventLoop, respond_at_once
from inner_models import InnerModelError, call, restore_code
from request_gate import GateFullError, RequestGate
from stop_notice import ServerStoppingError, StopNotice
from triton_tensors import InvalidTextError, answer, read, read_text, refuse, refuse_cancelled

EMBEDDING_OUTPUTS = ("image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint")
HOUSEKEEPING_SECONDS = 1.0
FAILED = "sam2_embedding failed; the server's log says why"


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        settings = parse_settings(config["parameters"])
        self.cache = EmbeddingCache(settings.cache, time.monotonic)
        self.service = EmbeddingService(self.cache, self._encode, settings.service)
        self.gate = RequestGate(settings.max_requests_in_flight)
        self.metrics = CacheMetrics(pb_utils, self.cache, self.service, self.gate)
        self.stop_notice = StopNotice.from_environment(os.environ)
        # A BLS call blocks a thread for as long as the inner model takes.
        workers = 2 * settings.service.max_concurrent_encodes + 4
        self.loop = EventLoop("sam2-embedding", workers)
        self.loop.start(self._keep_house())

    def execute(self, requests):
        for request in requests:
            try:
                self.gate.enter()
            except GateFullError as error:
                # Here and now: the loop has enough to do.
                respond_at_once(request, refuse(error, pb_utils.TritonError.UNAVAILABLE))
            else:
                self.loop.serve(request, self._answer)

    def finalize(self):
        self.loop.close()

    async def _answer(self, request):
        try:
            return await self._respond(request)
        except (InvalidRequestError, InvalidTextError) as error:
            return refuse(error, pb_utils.TritonError.INVALID_ARG)
        except ImageNotFoundError as error:
            return refuse(error, pb_utils.TritonError.NOT_FOUND)
        except (OverloadedError, ServerStoppingError, NoSharedMemoryError) as error:
            return refuse(error, pb_utils.TritonError.UNAVAILABLE)
        except InnerModelError as error:
            pb_utils.Logger.log_warn(f"sam2_embedding: {error}")
            return refuse(*restore_code(str(error)))
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            pb_utils.Logger.log_error(f"sam2_embedding: {error!r}")
            return refuse(FAILED, pb_utils.TritonError.INTERNAL)
        finally:
            self.gate.leave()

    async def _respond(self, request):
        if request.is_cancelled():
            return refuse_cancelled()
        self.stop_notice.check()
        retired_fingerprint = read(request, "retired_fingerprint")
        if retired_fingerprint is not None:
            self.cache.retire(int(retired_fingerprint.flat[0]))
            return answer({})
        image = read(request, "image")
        image_id = read_text(request, "image_id")
        forget = read(request, "forget")
        if forget is not None and forget[0]:
            return self._forget(image, image_id)
        crop_box = read(request, "crop_box")
        found = await self.service.find(
            None if image is None else image[0],
            image_id,
            None if crop_box is None else tuple(crop_box.tolist()),
        )
        wanted = set(request.requested_output_names())
        outputs = {name: values for name, values in vars(found.embedding).items() if name in wanted}
        outputs["embedded_hw"] = found.embedding.original_hw
        outputs["cached_image_id"] = np.array([found.image_id.encode()], np.object_)
        return answer({name: values for name, values in outputs.items() if name in wanted})

    def _forget(self, image, image_id):
        if image is not None or image_id is None:
            raise InvalidRequestError("forget: expected image_id and no image with it")
        self.service.forget(image_id)
        return answer({"cached_image_id": np.array([image_id.encode()], np.object_)})

    async def _encode(self, image, crop_box):
        started = time.perf_counter()
        part = {} if crop_box is None else {"crop_box": np.array(crop_box, np.int32)}
        resized = await call(
            "sam2_preprocess",
            {"image": np.array([image], np.object_), **part},
            ["resized_image", "original_hw"],
        )
        features = await call(
            "sam2_encoder", {"resized_image": resized["resized_image"][None]}, EMBEDDING_OUTPUTS
        )
        self.metrics.observe_encode(time.perf_counter() - started)
        return ImageEmbedding(original_hw=resized["original_hw"], **features)

    async def _keep_house(self):
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.cache.expire()
            self.metrics.publish()
