"""Triton adapter: see embedding_service.py for how an image's embeddings are found and kept.

`execute` hands every request to one event loop and returns at once, so cached images are answered while
others are being encoded. Each request gets exactly one answer, from its own coroutine.
"""

import asyncio
import json
import os
import time
from functools import partial

import numpy as np
import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from cache_metrics import CacheMetrics
from embedding_cache import ImageEmbedding
from embedding_service import ImageNotFoundError
from embedding_settings import parse_settings
from encode_queue import OverloadedError
from event_loop import EventLoop, respond_at_once
from image_ids import InvalidRequestError
from inner_models import InnerModelError, call, restore_code
from request_caller import Callers, InvalidCallerError
from request_gate import GateFullError, RequestGate
from stop_notice import ServerStoppingError, StopNotice
from tenants import Tenants, TooManyTenantsError
from triton_tensors import InvalidTextError, answer, read, read_text, refuse, refuse_cancelled

EMBEDDING_OUTPUTS = ("image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint")
PADDING_LABEL = -1
HOUSEKEEPING_SECONDS = 1.0
# Not the request's fault; it is welcome again in a moment.
BUSY = (OverloadedError, TooManyTenantsError, ServerStoppingError, NoSharedMemoryError)
FAILED = "sam2_embedding failed; the server's log says why"


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        settings = parse_settings(config["parameters"])
        self.callers = Callers.from_environment(os.environ)
        self.tenants = Tenants(settings.tenants, self._encode, time.monotonic)
        self.gate = RequestGate(settings.max_requests_in_flight, settings.tenant_pending_percent)
        self.metrics = CacheMetrics(pb_utils, self.tenants, self.gate)
        self.stop_notice = StopNotice.from_environment(os.environ)
        # A BLS call blocks a thread for as long as the inner model takes.
        workers = 2 * settings.max_concurrent_encodes + 4
        self.loop = EventLoop("sam2-embedding", workers)
        self.loop.start(self._keep_house())

    def execute(self, requests):
        for request in requests:
            # Here and now, where it is refused: the loop has enough to do.
            try:
                caller = self.callers.read(request.parameters())
                self.gate.enter(caller.tenant)
            except InvalidCallerError as error:
                respond_at_once(request, refuse(error, pb_utils.TritonError.INVALID_ARG))
            except GateFullError as error:
                respond_at_once(request, refuse(error, pb_utils.TritonError.UNAVAILABLE))
            else:
                self.loop.serve(request, partial(self._answer, caller))

    def finalize(self):
        self.loop.close()

    async def _answer(self, caller, request):
        try:
            return await self._respond(caller, request)
        except (InvalidRequestError, InvalidTextError) as error:
            return refuse(error, pb_utils.TritonError.INVALID_ARG)
        except ImageNotFoundError as error:
            return refuse(error, pb_utils.TritonError.NOT_FOUND)
        except BUSY as error:
            return refuse(error, pb_utils.TritonError.UNAVAILABLE)
        except InnerModelError as error:
            pb_utils.Logger.log_warn(f"sam2_embedding: {error}")
            return refuse(*restore_code(str(error)))
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            pb_utils.Logger.log_error(f"sam2_embedding: {error!r}")
            return refuse(FAILED, pb_utils.TritonError.INTERNAL)
        finally:
            self.gate.leave(caller.tenant)

    async def _respond(self, caller, request):
        if request.is_cancelled():
            return refuse_cancelled()
        self.stop_notice.check()
        retired_fingerprint = read(request, "retired_fingerprint")
        if retired_fingerprint is not None:
            if self.callers.knows_inner_calls and not caller.is_inner:
                raise InvalidRequestError("retired_fingerprint: for the server's own models alone")
            await self._retire(int(retired_fingerprint.flat[0]))
            return answer({})
        service = self.tenants.service_of(caller.tenant)
        image = read(request, "image")
        image_id = read_text(request, "image_id")
        forget = read(request, "forget")
        if forget is not None and forget[0]:
            return _forget(service, image, image_id)
        crop_box = read(request, "crop_box")
        found = await service.find(
            None if image is None else image[0],
            image_id,
            None if crop_box is None else tuple(crop_box.tolist()),
        )
        wanted = set(request.requested_output_names())
        outputs = {name: values for name, values in vars(found.embedding).items() if name in wanted}
        outputs["embedded_hw"] = found.embedding.original_hw
        outputs["cached_image_id"] = np.array([found.image_id.encode()], np.object_)
        return answer({name: values for name, values in outputs.items() if name in wanted})

    async def _retire(self, fingerprint):
        """Drops what these weights made, if the decoder refuses it.

        Whoever reaches sam2_postprocess itself can have it say so of any weights: the decoder is asked.
        """
        embedding = self.tenants.any_of(fingerprint)
        if embedding is None:
            return
        side = embedding.high_res_feats_0.shape[-1]  # planes have this map's size, S/4
        outputs = await call(
            "sam2_decoder",
            {
                **{name: getattr(embedding, name) for name in EMBEDDING_OUTPUTS},
                "unit_point_coords": np.zeros((1, 1, 2), np.float32),
                "token_labels": np.full((1, 1), PADDING_LABEL, np.int32),
                "dense_mask_input": np.zeros((1, 1, side, side), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
            },
            ["fingerprint_matches"],
        )
        if not outputs["fingerprint_matches"][0]:
            self.tenants.retire(fingerprint)

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
            self.tenants.keep_house()
            self.metrics.publish()


def _forget(service, image, image_id):
    if image is not None or image_id is None:
        raise InvalidRequestError("forget: expected image_id and no image with it")
    service.forget(image_id)
    return answer({"cached_image_id": np.array([image_id.encode()], np.object_)})
