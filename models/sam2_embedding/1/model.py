"""Triton adapter: see embedding_service.py for how an image's embeddings are found and kept.

`execute` hands every request to one event loop and returns at once, so cached images are answered while
others are being encoded. Each request gets exactly one answer, from its own coroutine.
"""

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from cache_metrics import CacheMetrics
from embedding_cache import EmbeddingCache, ImageEmbedding
from embedding_service import (
    EmbeddingService,
    ImageNotFoundError,
    InvalidRequestError,
    OverloadedError,
)
from embedding_settings import parse_settings
from stop_notice import ServerStoppingError, StopNotice

EMBEDDING_OUTPUTS = ("image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint")
HOUSEKEEPING_SECONDS = 1.0
# What Triton says, in a message whose code is always INTERNAL, where an inner model is not there (yet).
NOT_READY_MESSAGES = ("is not ready", "unknown model", "has no available versions", "not found")


class InnerModelError(RuntimeError):
    """sam2_preprocess or sam2_encoder answered with an error."""


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        settings = parse_settings(config["parameters"])
        self.cache = EmbeddingCache(settings.cache, time.monotonic)
        self.service = EmbeddingService(self.cache, self._encode, settings.service)
        self.metrics = CacheMetrics(pb_utils, self.cache, self.service)
        self.stop_notice = StopNotice.from_environment(os.environ)
        self.loop = asyncio.new_event_loop()
        # A BLS call blocks a thread for as long as the inner model takes.
        workers = 2 * settings.service.max_concurrent_encodes + 4
        self.loop.set_default_executor(ThreadPoolExecutor(workers, "sam2-embedding"))
        self.thread = threading.Thread(target=self.loop.run_forever, name="sam2-embedding-loop")
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._keep_house(), self.loop)

    def execute(self, requests):
        for request in requests:
            asyncio.run_coroutine_threadsafe(
                self._answer(request, request.get_response_sender()), self.loop
            )

    def finalize(self):
        asyncio.run_coroutine_threadsafe(_cancel_all_tasks(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _answer(self, request, sender):
        try:
            response = await self._respond(request)
        except InvalidRequestError as error:
            response = _error(error, pb_utils.TritonError.INVALID_ARG)
        except ImageNotFoundError as error:
            response = _error(error, pb_utils.TritonError.NOT_FOUND)
        except (OverloadedError, ServerStoppingError) as error:
            response = _error(error, pb_utils.TritonError.UNAVAILABLE)
        except InnerModelError as error:
            response = _error(*_restore_code(str(error)))
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            pb_utils.Logger.log_error(f"sam2_embedding: {error!r}")
            response = _error(f"sam2_embedding failed: {error!r}", pb_utils.TritonError.INTERNAL)
        sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    async def _respond(self, request):
        if request.is_cancelled():
            return _error("the client cancelled this request", pb_utils.TritonError.CANCELLED)
        self.stop_notice.check()
        retired_fingerprint = _read(request, "retired_fingerprint")
        if retired_fingerprint is not None:
            self.cache.retire(int(retired_fingerprint.flat[0]))
            return pb_utils.InferenceResponse([])
        image = _read(request, "image")
        image_id = _read_text(request, "image_id")
        forget = _read(request, "forget")
        if forget is not None and forget[0]:
            return self._forget(image, image_id)
        found = await self.service.find(None if image is None else image[0], image_id)
        wanted = set(request.requested_output_names())
        outputs = {name: values for name, values in vars(found.embedding).items() if name in wanted}
        outputs["cached_image_id"] = np.array([found.image_id.encode()], np.object_)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, values) for name, values in outputs.items() if name in wanted]
        )

    def _forget(self, image, image_id):
        if image is not None or image_id is None:
            raise InvalidRequestError("forget: expected image_id and no image with it")
        self.service.forget(image_id)
        answer = np.array([image_id.encode()], np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("cached_image_id", answer)])

    async def _encode(self, image):
        started = time.perf_counter()
        resized = await _call(
            "sam2_preprocess",
            [pb_utils.Tensor("image", np.array([image], np.object_))],
            ["resized_image", "original_hw"],
        )
        features = await _call(
            "sam2_encoder",
            [pb_utils.Tensor("resized_image", resized["resized_image"][None])],
            list(EMBEDDING_OUTPUTS),
        )
        self.metrics.observe_encode(time.perf_counter() - started)
        return ImageEmbedding(original_hw=resized["original_hw"], **features)

    async def _keep_house(self):
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.cache.expire()
            self.metrics.publish()


async def _cancel_all_tasks():
    """Ends the housekeeping and encodes that nobody waits for; requests are answered by then."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _call(model_name, inputs, output_names):
    """One BLS call; outputs come to host memory, where the cache keeps them."""
    request = pb_utils.InferenceRequest(
        model_name=model_name,
        requested_output_names=output_names,
        inputs=inputs,
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = await request.async_exec()
    if response.has_error():
        raise InnerModelError(response.error().message())
    return {
        name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in output_names
    }


def _restore_code(message):
    """Inner models' errors all arrive as INTERNAL; what they say tells what they were."""
    if "image: " in message:  # how every refusal of sam2_preprocess begins
        return message[message.index("image: ") :], pb_utils.TritonError.INVALID_ARG
    if any(sign in message for sign in NOT_READY_MESSAGES):
        return f"{message}; try again in a moment", pb_utils.TritonError.UNAVAILABLE
    return message, pb_utils.TritonError.INTERNAL


def _read(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _read_text(request, name):
    values = _read(request, name)
    if values is None:
        return None
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{name}: expected UTF-8 text, got {error}") from error


def _error(error, code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
