"""REST for objects that are tracked through a video, a frame a request: /v1/videos.

A session is started, objects are prompted on frames, and every further frame is tracked. Frames come one by
one, or all at once with the start, as a video file.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import Response
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2.cli._prompts import read_prompts

from front.callers import Caller
from front.forms import SentForm, read_form
from front.http_protocol import unless_gone
from front.metrics import Outcome
from front.refusals import invalid, too_large
from front.rest_answers import answered_in_words, check_format, json_answer
from front.rest_calls import ServiceTransport
from front.rest_video_answers import rendered, video_facts
from front.service import FrontService, Reservation

MODEL = "sam2_video"
# Options of a session, by their tensors' names and types.
OPTIONS: dict[str, type[np.generic]] = {
    "num_frames": np.int32,
    "add_all_frames_to_correct_as_cond": np.bool_,
    "non_overlap_masks": np.bool_,
    "max_cond_frames_in_attn": np.int32,
    "fill_hole_area": np.int32,
}
START_FIELDS = frozenset({"video", *OPTIONS})
STARTED = ("num_frames", "original_hw")
PROMPT_FIELDS = frozenset({"image", "frame", "object", "point", "box", "keep_points", "format"})
TRACK_FIELDS = frozenset({"image", "frame", "reverse", "format"})
SERVER_FORMATS = {"rle": "rle", "png": "png", "polygons": "png"}
MASKS = {"rle": "masks_rle", "png": "masks_png", "polygons": "masks_png"}
SHOWN = ("object_ids", "object_score_logits", "iou_predictions", "original_hw", "memory_complete")


class RestVideos:
    """The handlers behind /v1/videos."""

    def __init__(self, service: FrontService) -> None:
        self._service = service

    async def start(self, request: Request) -> Response:
        """Starts a session, under an id that nobody can guess."""

        async def answer(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
            form = await self._form(request, START_FIELDS, reservation, outcome)
            session_id = secrets.token_urlsafe(24)
            options = {name: _option(form, name) for name in OPTIONS if form.all(name)}
            if form.video is not None:
                options["video"] = np.array([form.video], np.object_)
            facts = await self._step(caller, session_id, "start", options, STARTED)
            return json_answer({"session_id": session_id, **video_facts(facts)})

        return await answered_in_words(self._service, request, "video start", answer)

    async def prompt(self, request: Request) -> Response:
        """Clicks and a box for one object on one frame; the masks of all objects on it."""

        async def answer(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
            form = await self._form(request, PROMPT_FIELDS, reservation, outcome)
            prompts = read_prompts(form.all("point"), form.all("box"), point="point", box="box")
            tensors = {
                "object_id": np.array([_whole(form, "object", "1")], np.int64),
                "clear_old_points": np.array([not form.flag("keep_points")]),
            }
            given: dict[str, Any] = {
                "point_coords": prompts.point_coords,
                "point_labels": prompts.point_labels,
                "box": prompts.box,
            }
            kinds = {"point_labels": np.int32}
            for name, values in given.items():
                if values is None:
                    continue
                if len(values) != 1:
                    raise invalid(
                        f"{name.partition('_')[0]}: expected prompts of one object, got {len(values)};"
                        " send a request for each, with its object"
                    )
                tensors[name] = np.array(values[0], kinds.get(name, np.float32))
            return await self._shown(request, caller, form, "prompt", tensors)

        return await answered_in_words(self._service, request, "video prompt", answer)

    async def track(self, request: Request) -> Response:
        """The masks of all objects on one more frame."""

        async def answer(caller: Caller, reservation: Reservation, outcome: Outcome) -> Response:
            form = await self._form(request, TRACK_FIELDS, reservation, outcome)
            tensors = {"reverse": np.array([form.flag("reverse")])}
            return await self._shown(request, caller, form, "track", tensors)

        return await answered_in_words(self._service, request, "video track", answer)

    async def status(self, request: Request) -> Response:
        """What a session holds."""

        async def answer(caller: Caller, _reservation: Reservation, _outcome: Outcome) -> Response:
            session_id = request.path_params["session_id"]
            tensors = await self._step(caller, session_id, "status", {}, ("status",))
            return json_answer(json.loads(tensors["status"][0]))

        return await answered_in_words(self._service, request, "video status", answer)

    async def close(self, request: Request) -> Response:
        """Ends a session."""

        async def answer(caller: Caller, _reservation: Reservation, _outcome: Outcome) -> Response:
            session_id = request.path_params["session_id"]
            await self._step(caller, session_id, "close", {}, ("session_bytes",))
            return Response(status_code=204)

        return await answered_in_words(self._service, request, "video close", answer)

    async def _form(
        self,
        request: Request,
        known: frozenset[str],
        reservation: Reservation,
        outcome: Outcome,
    ) -> SentForm:
        # A session without options comes without a form.
        if not request.headers.get("content-type") and known is START_FIELDS:
            return SentForm.empty()
        form = await read_form(request, known, self._service.limits, reservation)
        outcome.in_bytes = form.body_bytes
        return form

    async def _shown(
        self,
        request: Request,
        caller: Caller,
        form: SentForm,
        command: str,
        tensors: dict[str, npt.NDArray[Any]],
    ) -> Response:
        """Carries out a step about a frame, and shows its masks."""
        wanted = form.one("format", "rle") or "rle"
        check_format(wanted, tuple(SERVER_FORMATS), has_image=form.image is not None)
        frame_index = _whole(form, "frame")
        tensors["frame_index"] = np.array([frame_index], np.int32)
        tensors["mask_format"] = np.array([SERVER_FORMATS[wanted].encode()], np.object_)
        if form.image is not None:
            tensors["image"] = np.array([form.image], np.object_)
        outputs = (*SHOWN, MASKS[wanted])
        session_id = request.path_params["session_id"]
        result = await unless_gone(
            request, self._step(caller, session_id, command, tensors, outputs)
        )
        limits = self._service.limits
        height, width = result["original_hw"].tolist()
        pixels = len(result["object_ids"]) * height * width
        if wanted != "rle" and pixels > limits.max_rendered_pixels:
            raise too_large(
                f"format: {wanted} is for at most {limits.max_rendered_pixels} pixels of masks"
                f" (max_rendered_pixels), got {pixels}; ask for rle"
            )
        async with self._service.rendering:
            return await asyncio.to_thread(rendered, result, wanted, frame_index)

    async def _step(
        self,
        caller: Caller,
        session_id: str,
        command: str,
        tensors: dict[str, npt.NDArray[Any]],
        outputs: tuple[str, ...],
    ) -> Tensors:
        named = {
            "session_id": np.array([session_id.encode()], np.object_),
            "command": np.array([command.encode()], np.object_),
        }
        allowed_s = self._service.limits.answer_timeout_s
        step = InferRequest(MODEL, named | tensors, outputs, timeout_s=allowed_s)
        return await ServiceTransport(self._service, caller).infer(step)


def _whole(form: SentForm, name: str, default: str | None = None) -> int:
    text = form.one(name, default)
    if text is None:
        raise invalid(f"{name}: expected a whole number, got none")
    if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 10:
        raise invalid(f"{name}: expected a whole number, got {text[:40]!r}")
    value = int(text)
    if not -(2**31) <= value < 2**31:
        raise invalid(f"{name}: expected a whole number of 32 bits, got {value}")
    return value


def _option(form: SentForm, name: str) -> npt.NDArray[Any]:
    if OPTIONS[name] is np.bool_:
        return np.array([form.flag(name)])
    return np.array([_whole(form, name)], OPTIONS[name])
