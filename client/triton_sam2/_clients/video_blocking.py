"""The blocking client for video."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike

from triton_sam2._calls.arguments import Formats, Settings
from triton_sam2._calls.flows import RetryPolicy
from triton_sam2._calls.video_calls import VideoCalls, wanted_frame
from triton_sam2._calls.video_state import VideoState
from triton_sam2._inputs.frames import VideoSource
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2._transports.grpc_stream import StreamingGrpcTransport
from triton_sam2._transports.http_blocking import HttpTransport
from triton_sam2._transports.rpc import Transport, run_flow
from triton_sam2._transports.windows import iterate_flow


class SAM2VideoClient:
    """Objects tracked through videos on a Triton server, over gRPC or HTTP: Meta's SAM2VideoPredictor.

        with SAM2VideoClient("localhost:8001") as client:
            state = client.init_state("clip.mp4")
            client.add_new_points_or_box(state, frame_idx=0, obj_id=1, points=[[210, 350]], labels=[1])
            for frame_idx, object_ids, masks in client.propagate_in_video(state):
                masks[0, 0] > 0                      # the first object's mask, at the video's own size

    Threads may share a client, as long as each state is used by one of them at a time. Arguments are those of
    `SAM2TritonClient`, and so are errors; SessionNotFoundError says that the server has no such session.
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
        _transport: Transport | None = None,
    ) -> None:
        settings = Settings.read(url, timeout, retry, headers, (ca_file, cert_file, key_file))
        self._calls = VideoCalls(settings)
        self._transport = _transport or _connect(settings)

    @property
    def url(self) -> str:
        """Where this client calls, with the scheme written out."""
        return str(self._calls.settings.endpoint)

    def init_state(
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
        """Begin a session for a video.

        Args:
            video: a video file, by its path or as bytes (needs the extra `video`); a folder of pictures, in
                order of the numbers in their names; a sequence of images, or pixels [T, H, W, 3]; or an
                iterator of images, a camera for instance, each of which is asked for when it is needed.
            upload: send the video file as a whole and have the server decode it, not frames one by one.
            frame_format: how decoded frames and pixels travel: `png`, exactly, the default; or `jpeg`, which
                takes a fraction of the bytes and of the time, and is what masks then are of. Image files go
                as they are.
            num_frames: how many an iterator will give, if that is known. A video of fewer than 16 frames is
                tracked a little differently by its length.
            session_id: a name for the session; default: a random one. Whoever knows it may use the session.
            add_all_frames_to_correct_as_cond: whether clicks on frames that were tracked condition others
                (the server's default: yes; Meta's predictor drops them unless it is told).
            non_overlap_masks: give each pixel to one object at most, in what is shown.
            max_cond_frames_in_attn: prompted frames that are looked at; -1: all.
            fill_hole_area: holes up to so many pixels of the low-resolution mask are filled; 0: none.
            timeout: seconds; default: the client's.

        Raises:
            InvalidInputError: not a video, or an option is wrong.
            SessionExistsError: the session_id is taken.
            MissingExtraError: PyAV is not installed.
        """
        options = {
            "add_all_frames_to_correct_as_cond": add_all_frames_to_correct_as_cond,
            "non_overlap_masks": non_overlap_masks,
            "max_cond_frames_in_attn": max_cond_frames_in_attn,
            "fill_hole_area": fill_hole_area,
        }
        state = self._calls.open(
            video,
            upload=upload,
            frame_format=frame_format,
            num_frames=num_frames,
            session_id=session_id,
            options=options,
        )
        return run_flow(self._calls.start(state, timeout), self._transport)

    def attach(
        self,
        session_id: str,
        video: VideoSource | None = None,
        *,
        frame_format: str = "png",
        timeout: float | None = None,
    ) -> VideoState:
        """Take up a session that lives on the server, with what was done in it; it cannot be replayed.

        Args:
            session_id: its name.
            video: as in `init_state`, for frames that the server does not hold; the same video, in the same
                `frame_format`. None: the server has the video.
            frame_format: as in `init_state`.
            timeout: seconds; default: the client's.

        Raises:
            SessionNotFoundError: there is none of this name.
        """
        state = self._calls.take_up(session_id, video, frame_format)
        return run_flow(self._calls.attach(state, timeout), self._transport)

    def add_new_points_or_box(  # noqa: PLR0917 - the order is Meta's
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
        """Clicks, a box, or both for one object on one frame; answers all objects' masks there.

        Args:
            inference_state: what `init_state` returned.
            frame_idx: which frame, from 0.
            obj_id: your number for the object; a new one makes an object, at any time.
            points: x, y in pixels of the upright frame, [N, 2].
            labels: 1 foreground, 0 background, [N].
            clear_old_points: False adds the points to the object's earlier ones on this frame.
            box: x0, y0, x1, y1 in the same pixels; needs clear_old_points.
            formats: any of `bitmap`, `logits`, `rle`, `png`; what is not named is not transferred.
            low_res_masks: whether to transfer those, too.
            timeout: seconds; default: the client's.

        Raises:
            InvalidInputError: a prompt is wrong; the message names it.
            SessionNotFoundError: the session was lost; `replay` it. Where this raises any error, the prompt
                did not happen.
        """
        flow = self._calls.add_points(
            inference_state,
            frame_idx,
            obj_id,
            (points, labels, box),
            clear_old_points,
            wanted=wanted_frame(formats, low_res_masks),
            timeout=timeout,
        )
        return run_flow(flow, self._transport)

    def add_new_mask(
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
        """One object's mask on one frame, [H, W] of the upright frame; else as `add_new_points_or_box`."""
        wanted = wanted_frame(formats, low_res_masks)
        flow = self._calls.add_mask(
            inference_state, frame_idx, obj_id, mask, wanted=wanted, timeout=timeout
        )
        return run_flow(flow, self._transport)

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
    ) -> Generator[TrackedFrame, None, None]:
        """Track all objects, frame after frame, as long as the iterator is gone through.

        Over gRPC the frame after the one handed over is under way already; closing the iterator cancels it.
        Prompts made between two frames act from the next frame on.

        Args:
            inference_state: what `init_state` returned.
            start_frame_idx: the first frame; default: the earliest prompted one.
            max_frame_num_to_track: frames behind the first one; default: all.
            reverse: towards frame 0.
            resume: go on behind the last frame that was handed over in this direction.
            formats, low_res_masks, timeout: as in `add_new_points_or_box`; the timeout is for each frame.

        Raises:
            InvalidInputError: no object has a prompt, or an argument is wrong.
            SessionNotFoundError: the session was lost; `replay` it, then go on with `resume`.
        """
        flow = self._calls.propagate(
            inference_state,
            start_frame_idx,
            max_frame_num_to_track,
            reverse,
            resume=resume,
            wanted=wanted_frame(formats, low_res_masks),
            timeout=timeout,
        )
        return iterate_flow(flow, self._transport)

    def clear_all_prompts_in_frame(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: int,
        *,
        formats: Formats = ("bitmap",),
        low_res_masks: bool = False,
        timeout: float | None = None,
    ) -> TrackedFrame:
        """Take back an object's prompts on a frame; answers all objects' masks there."""
        wanted = wanted_frame(formats, low_res_masks)
        flow = self._calls.clear_prompts(
            inference_state, frame_idx, obj_id, wanted=wanted, timeout=timeout
        )
        return run_flow(flow, self._transport)

    def remove_object(
        self,
        inference_state: VideoState,
        obj_id: int,
        strict: bool = False,
        *,
        timeout: float | None = None,
    ) -> list[int]:
        """Remove an object, and return those that are left.

        One that does not exist is no error unless `strict`, then InvalidInputError.
        """
        flow = self._calls.remove_object(inference_state, obj_id, strict, timeout)
        return run_flow(flow, self._transport)

    def reset_state(self, inference_state: VideoState, *, timeout: float | None = None) -> None:
        """Forget all objects; frames and options stay."""
        run_flow(self._calls.reset(inference_state, timeout), self._transport)

    def replay(self, inference_state: VideoState, *, timeout: float | None = None) -> None:
        """Begin a lost session anew and do all that was done: the same prompts on the same frames, the same
        frames tracked. From then on it gives the masks that it would have given.

        Frames come from the video again; those of an iterator are gone, and then InvalidInputError is raised.
        """
        run_flow(self._calls.replay(inference_state, timeout), self._transport)

    def status(
        self, inference_state: VideoState, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """The server's account of a session: frames held, objects' prompted and tracked frames, bytes."""
        return run_flow(self._calls.status(inference_state, timeout), self._transport)

    def close_state(self, inference_state: VideoState, *, timeout: float | None = None) -> None:
        """End a session, which frees what it holds on the server; and close its video."""
        try:
            run_flow(self._calls.close(inference_state, timeout), self._transport)
        finally:
            inference_state.source.close()

    def close(self) -> None:
        """Close the connections; sessions stay, until they are idle for too long."""
        self._transport.close()

    def __enter__(self) -> SAM2VideoClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _connect(settings: Settings) -> Transport:
    transport = StreamingGrpcTransport if settings.endpoint.is_grpc else HttpTransport
    return transport(settings.endpoint, settings.credentials)
