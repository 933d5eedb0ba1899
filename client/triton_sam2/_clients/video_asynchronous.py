"""The asyncio client for video."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike

from triton_sam2._calls.arguments import Formats, Settings
from triton_sam2._calls.flows import RetryPolicy
from triton_sam2._calls.video_calls import VideoCalls, wanted_frame
from triton_sam2._calls.video_state import VideoState
from triton_sam2._inputs.frames import VideoSource, blocking_iterator
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2._transports.grpc_stream import StreamingGrpcAioTransport
from triton_sam2._transports.rpc import AsyncTransport, run_flow_async
from triton_sam2._transports.windows import iterate_flow_async


class AsyncSAM2VideoClient:
    """`SAM2VideoClient` for asyncio, over gRPC: the same constructor, methods, results and errors.

        async with AsyncSAM2VideoClient("localhost:8001") as client:
            state = await client.init_state("clip.mp4")
            await client.add_new_points_or_box(state, 0, 1, [[210, 350]], [1])
            async for frame_idx, object_ids, masks in client.propagate_in_video(state):
                ...

    Frames are decoded on threads. Cancelling a task cancels its call.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        _transport: AsyncTransport | None = None,
    ) -> None:
        settings = Settings.read(url, timeout, retry, headers, (ca_file, cert_file, key_file))
        settings.require_grpc("the asyncio client")
        self._calls = VideoCalls(settings)
        self._transport = _transport or StreamingGrpcAioTransport(
            settings.endpoint, settings.credentials
        )

    @property
    def url(self) -> str:
        """Where this client calls, with the scheme written out."""
        return str(self._calls.settings.endpoint)

    async def init_state(
        self,
        video: VideoSource,
        *,
        upload: bool = False,
        frame_format: str = "png",
        num_frames: int | None = None,
        session_id: str | None = None,
        add_all_frames_to_correct_as_cond: bool | None = None,
        non_overlap_masks: bool | None = None,
        max_cond_frames_in_attn: int | None = None,
        fill_hole_area: int | None = None,
        timeout: float | None = None,
    ) -> VideoState:
        """As `SAM2VideoClient.init_state`; the iterator may be an asynchronous one, of the running loop."""
        options = {
            "add_all_frames_to_correct_as_cond": add_all_frames_to_correct_as_cond,
            "non_overlap_masks": non_overlap_masks,
            "max_cond_frames_in_attn": max_cond_frames_in_attn,
            "fill_hole_area": fill_hole_area,
        }
        if isinstance(video, AsyncIterator):
            video = blocking_iterator(video, asyncio.get_running_loop())
        opening = partial(
            self._calls.open,
            video,
            upload=upload,
            frame_format=frame_format,
            num_frames=num_frames,
            session_id=session_id,
            options=options,
        )
        state = await asyncio.to_thread(opening)
        return await run_flow_async(self._calls.start(state, timeout), self._transport)

    async def attach(
        self,
        session_id: str,
        video: VideoSource | None = None,
        *,
        frame_format: str = "png",
        timeout: float | None = None,
    ) -> VideoState:
        """As `SAM2VideoClient.attach`."""
        state = await asyncio.to_thread(self._calls.take_up, session_id, video, frame_format)
        return await run_flow_async(self._calls.attach(state, timeout), self._transport)

    async def add_new_points_or_box(  # noqa: PLR0917 - the order is Meta's
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: int,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        clear_old_points: bool = True,
        *,
        box: ArrayLike | None = None,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        timeout: float | None = None,
    ) -> TrackedFrame:
        """As `SAM2VideoClient.add_new_points_or_box`."""
        flow = self._calls.add_points(
            inference_state,
            frame_idx,
            obj_id,
            (points, labels, box),
            clear_old_points,
            wanted=wanted_frame(formats, low_res_masks),
            timeout=timeout,
        )
        return await run_flow_async(flow, self._transport)

    async def add_new_mask(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: int,
        mask: ArrayLike,
        *,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        timeout: float | None = None,
    ) -> TrackedFrame:
        """As `SAM2VideoClient.add_new_mask`."""
        wanted = wanted_frame(formats, low_res_masks)
        flow = self._calls.add_mask(
            inference_state, frame_idx, obj_id, mask, wanted=wanted, timeout=timeout
        )
        return await run_flow_async(flow, self._transport)

    def propagate_in_video(
        self,
        inference_state: VideoState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
        *,
        resume: bool = False,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[TrackedFrame, None]:
        """As `SAM2VideoClient.propagate_in_video`, for `async for`. Cancelling the task ends it; who leaves
        the loop early may `aclose()` the iterator to have it end at once."""
        flow = self._calls.propagate(
            inference_state,
            start_frame_idx,
            max_frame_num_to_track,
            reverse,
            resume=resume,
            wanted=wanted_frame(formats, low_res_masks),
            timeout=timeout,
        )
        return iterate_flow_async(flow, self._transport)

    async def clear_all_prompts_in_frame(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: int,
        *,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        timeout: float | None = None,
    ) -> TrackedFrame:
        """As `SAM2VideoClient.clear_all_prompts_in_frame`."""
        wanted = wanted_frame(formats, low_res_masks)
        flow = self._calls.clear_prompts(
            inference_state, frame_idx, obj_id, wanted=wanted, timeout=timeout
        )
        return await run_flow_async(flow, self._transport)

    async def remove_object(
        self,
        inference_state: VideoState,
        obj_id: int,
        strict: bool = False,
        *,
        timeout: float | None = None,
    ) -> list[int]:
        """As `SAM2VideoClient.remove_object`."""
        flow = self._calls.remove_object(inference_state, obj_id, strict, timeout)
        return await run_flow_async(flow, self._transport)

    async def reset_state(
        self, inference_state: VideoState, *, timeout: float | None = None
    ) -> None:
        """As `SAM2VideoClient.reset_state`."""
        await run_flow_async(self._calls.reset(inference_state, timeout), self._transport)

    async def replay(self, inference_state: VideoState, *, timeout: float | None = None) -> None:
        """As `SAM2VideoClient.replay`."""
        await run_flow_async(self._calls.replay(inference_state, timeout), self._transport)

    async def status(
        self, inference_state: VideoState, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """As `SAM2VideoClient.status`."""
        return await run_flow_async(self._calls.status(inference_state, timeout), self._transport)

    async def close_state(
        self, inference_state: VideoState, *, timeout: float | None = None
    ) -> None:
        """As `SAM2VideoClient.close_state`."""
        try:
            await run_flow_async(self._calls.close(inference_state, timeout), self._transport)
        finally:
            inference_state.source.close()

    async def close(self) -> None:
        """Close the connection; sessions stay, until they are idle for too long."""
        await self._transport.close()

    async def __aenter__(self) -> AsyncSAM2VideoClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
