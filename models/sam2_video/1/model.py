"""Triton adapter: see video_service.py for the order of steps, session_steps.py for what they do.

`execute` hands every request to one event loop and returns at once. Each request gets exactly one answer.
"""

import asyncio
import json
import os
import time
from functools import partial

import numpy as np
import triton_python_backend_utils as pb_utils
from answer_room import NoSharedMemoryError
from event_loop import EventLoop, respond_at_once
from inner_models import InnerModelError, call, restore_code
from mask_encoding import InvalidOutputError, parse_mask_formats
from request_caller import Callers, InvalidCallerError
from request_gate import GateFullError, RequestGate
from session_steps import LOW_RES_DIVISOR, EncodedFrame, VideoFrame
from session_table import SessionTable
from stop_notice import ServerStoppingError, StopNotice
from triton_tensors import answer, read, refuse, refuse_cancelled
from video_commands import TENSORS, parse_command
from video_decoders import VideoDecoders
from video_errors import CancelledStepError, StepRefusedError
from video_graphs import FrameFeatures
from video_masks import describe, encode_frame_masks, stack_outputs
from video_metrics import VideoMetrics
from video_service import Step, VideoService
from video_settings import parse_settings

FEATURES = ("image_embed", "high_res_feats_0", "high_res_feats_1", "encoder_fingerprint")
HOUSEKEEPING_SECONDS = 1.0
# What `num_frames` says of a stream that may go on for ever.
LIVE = -1
FAILED = "sam2_video failed; the server's log says why"
# How frames that come as files are resized: as Meta's video loader does.
RESAMPLE = b"bicubic"


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.settings = parse_settings(config["parameters"])
        self.input_names = [tensor["name"] for tensor in config["input"]]
        low_res_masks = next(o for o in config["output"] if o["name"] == "low_res_masks")
        self.low_res_side = int(low_res_masks["dims"][-1])
        side = LOW_RES_DIVISOR * self.low_res_side
        self.decoders = VideoDecoders(self.settings.video, side)
        self.table = SessionTable(self.settings.table, time.monotonic, self.decoders.close)
        self.metrics = VideoMetrics(pb_utils, self.table, self.decoders)
        self.service = VideoService(
            self.table,
            call,
            self._encode_frame,
            self.settings.service,
            self.settings.step,
            open_video=self.decoders.open,
            attention=self.settings.attention,
            observe_step=self.metrics.observe_step,
        )
        self.callers = Callers.from_environment(os.environ)
        self.gate = RequestGate(
            self.settings.max_requests_in_flight, self.settings.service.tenant_percent
        )
        self.stop_notice = StopNotice.from_environment(os.environ)
        # BLS calls and the encoding of masks block a thread each.
        self.loop = EventLoop("sam2-video", 4 * self.settings.service.max_concurrent_steps)
        self.loop.start(self._keep_house())

    def execute(self, requests):
        for request in requests:
            try:
                tenant = self.callers.read(request.parameters()).tenant
                self.gate.enter(tenant)
            except InvalidCallerError as error:
                respond_at_once(request, refuse(error, pb_utils.TritonError.INVALID_ARG))
            except GateFullError as error:
                respond_at_once(request, refuse(error, pb_utils.TritonError.UNAVAILABLE))
            else:
                self.loop.serve(request, partial(self._answer, tenant))

    def finalize(self):
        self.loop.close()
        self.decoders.shut_down()

    async def _answer(self, tenant, request):
        try:
            status, response = await self._respond(tenant, request)
        finally:
            self.gate.leave(tenant)
        command = read(request, "command")
        name = "" if command is None else str(command[0], "utf-8", "replace")
        self.metrics.steps[name if name in TENSORS else "unknown", status] += 1
        return response

    async def _respond(self, tenant, request):
        """The answer's status by name, and the answer."""
        codes = pb_utils.TritonError
        try:
            return "OK", await self._take_step(tenant, request)
        except CancelledStepError:
            return "CANCELLED", refuse_cancelled()
        except StepRefusedError as error:
            status, reason = error.status, error
        except InvalidOutputError as error:
            status, reason = "INVALID_ARG", error
        except (ServerStoppingError, NoSharedMemoryError) as error:
            status, reason = "UNAVAILABLE", error
        except InnerModelError as error:
            reason, code = restore_code(str(error))
            names = [name for name in dir(codes) if name.isupper()]
            status = next(name for name in names if getattr(codes, name) == code)
        except Exception as error:  # noqa: BLE001 - a request without an answer would hang its client
            pb_utils.Logger.log_error(f"sam2_video: {error!r}")
            status, reason = "INTERNAL", FAILED
        return status, refuse(reason, getattr(codes, status))

    async def _take_step(self, tenant, request):
        if request.is_cancelled():
            raise CancelledStepError
        self.stop_notice.check()
        given = {name: read(request, name) for name in self.input_names}
        command = parse_command(
            {name: values for name, values in given.items() if values is not None},
            self.settings.service.max_session_id_bytes,
            tenant,
        )
        wanted = set(request.requested_output_names())
        formats = parse_mask_formats(
            None if command.mask_format is None else list(command.mask_format)
        )

        async def show(command, step_answer, state, session):
            masks = partial(self._encode_masks, formats, request.is_cancelled)
            tensors = await asyncio.to_thread(
                self._to_tensors, command, step_answer, state, session, masks
            )
            # Within the step: one whose answer has no room leaves the session as it was.
            return answer({name: values for name, values in tensors.items() if name in wanted})

        return await self.service.run(Step(command, request.is_cancelled, show))

    def _encode_masks(self, formats, is_cancelled, low_res_masks, state, session):
        return encode_frame_masks(
            low_res_masks,
            state.original_hw or (0, 0),
            formats,
            non_overlap=session.options.non_overlap_masks,
            limits=self.settings.output,
            is_cancelled=is_cancelled,
        )

    def _to_tensors(self, command, step_answer, state, session, encode_masks):
        """The answer's tensors by name; on a thread of its own, for masks take their time."""
        stacked = stack_outputs(list(step_answer.outputs.values()), self.low_res_side)
        # Commands about no frame have no masks, whatever format was asked for.
        shown = stacked["low_res_masks"][
            : len(stacked["low_res_masks"]) * (step_answer.frame_index >= 0)
        ]
        masks = encode_masks(shown, state, session)
        status = describe(state, session.options) if command.name == "status" else b""
        return {
            **stacked,
            **masks,
            "object_ids": np.array(list(step_answer.outputs), np.int64),
            "num_frames": np.array([session.options.num_frames or LIVE], np.int32),
            "frame_index": np.array([step_answer.frame_index], np.int32),
            "original_hw": np.array(state.original_hw or (0, 0), np.int32),
            "memory_complete": np.array([step_answer.memory_complete]),
            "session_bytes": np.array([state.size_bytes], np.int64),
            "status": np.array([status], np.object_),
        }

    async def _encode_frame(self, source, is_cancelled):
        if is_cancelled():
            raise CancelledStepError
        if isinstance(source, VideoFrame):
            picture = await self.decoders.read(source.video, source.frame_index, is_cancelled)
            resized, original_hw = picture.resized, picture.original_hw
        else:
            resized, original_hw = await self._prepare_image(source)
        if is_cancelled():
            raise CancelledStepError
        features = await call("sam2_encoder", {"resized_image": resized[None]}, FEATURES)
        return EncodedFrame(FrameFeatures(**features), original_hw)

    async def _prepare_image(self, image):
        prepared = await call(
            "sam2_preprocess",
            {
                "image": np.array([image], np.object_),
                "resample": np.array([RESAMPLE], np.object_),
            },
            ["resized_image", "original_hw"],
        )
        height, width = prepared["original_hw"].tolist()
        return prepared["resized_image"], (height, width)

    async def _keep_house(self):
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.table.expire()
            self.metrics.publish(self.service)
