"""`sam2.sam2_video_predictor`: objects tracked through a video."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from triton_sam2._calls.video_state import VideoState
from triton_sam2._clients.video_blocking import SAM2VideoClient
from triton_sam2._errors import InvalidInputError, TritonSam2Error
from triton_sam2._inputs.frames import VideoSource
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2.sam2_api.host_tensors import as_tensor, has_torch
from triton_sam2.sam2_api.inference_state import InferenceState
from triton_sam2.sam2_api.server_model import (
    TIMEOUT_S,
    check_arguments,
    for_the_model,
    log_ignored,
    not_over_server,
)
from triton_sam2.sam2_api.video_options import FILL_HOLE_AREA, video_options

# frame_idx, obj_ids, mask logits FP32 [K, 1, H, W]: a torch tensor, or a HostArray where there is no PyTorch.
Shown: TypeAlias = tuple[int, list[int], Any]
_CLOSE_TIMEOUT_S = 5.0
_INSIDE = ("_get_image_feature", "_run_single_frame_inference", "_run_memory_encoder", "track_step")


class SAM2VideoPredictor:
    """Meta's class of this name, computed by a server; `build_sam2_video_predictor` makes one.

    Masks are logits at the video's own size, as torch tensors on the CPU where PyTorch is installed.

    Args:
        client: whose connection to use; a URL; or None for TRITON_URL.
        fill_hole_area, non_overlap_masks, add_all_frames_to_correct_as_cond, max_cond_frames_in_attn: the
            original's, with the values that `build_sam2_video_predictor` gives them.
    """

    def __init__(
        self,
        client: SAM2VideoClient | str | None = None,
        fill_hole_area: int = FILL_HOLE_AREA,
        non_overlap_masks: bool = False,
        add_all_frames_to_correct_as_cond: bool = False,
        max_cond_frames_in_attn: int = -1,
    ) -> None:
        if client is not None and not isinstance(client, SAM2VideoClient | str):
            raise InvalidInputError(
                f"client: expected a SAM2VideoClient, a URL or None, got {type(client).__name__}"
            )
        self.client = client if isinstance(client, SAM2VideoClient) else SAM2VideoClient(client)
        self.fill_hole_area = fill_hole_area
        self.non_overlap_masks = non_overlap_masks
        self.add_all_frames_to_correct_as_cond = add_all_frames_to_correct_as_cond
        self.max_cond_frames_in_attn = max_cond_frames_in_attn
        self._has_torch = has_torch()
        # Sessions whose state nobody holds any more; a finalizer itself must not call out.
        self._left: deque[VideoState] = deque()

    @classmethod
    def connected(
        cls,
        config_file: str | None = None,
        ckpt_path: str | None = None,
        *,
        device: Any = None,
        mode: str = "eval",
        hydra_overrides_extra: Sequence[str] = (),
        apply_postprocessing: bool = True,
        **connection: Any,
    ) -> SAM2VideoPredictor:
        """What `build_sam2_video_predictor` does; its arguments."""
        check_arguments(mode, connection)
        options: dict[str, Any] = {"fill_hole_area": 0}
        options |= video_options(hydra_overrides_extra, apply_postprocessing)
        client = SAM2VideoClient(**{"timeout": TIMEOUT_S, **connection})
        log_ignored(config_file, ckpt_path, device, client.url)
        return cls(client, **options)

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
        """As the original; the weights are the server's own. `kwargs`: of `build_sam2_video_predictor`."""
        of_the_model, own = for_the_model(kwargs)
        if own.keys() - {"vos_optimized"}:
            raise InvalidInputError(
                f"{', '.join(own)}: not arguments of build_sam2_video_predictor"
            )
        return cls.connected(model_id, None, **of_the_model)

    @property
    def device(self) -> str:
        """Where masks are: "cpu"."""
        return "cpu"

    def to(self, *_args: Any, **_kwargs: Any) -> SAM2VideoPredictor:
        """Itself: on which device the network is, the server decided."""
        return self

    def eval(self) -> SAM2VideoPredictor:
        """Itself."""
        return self

    def init_state(
        self,
        video_path: VideoSource,
        offload_video_to_cpu: bool = False,  # noqa: ARG002 - Meta's signature
        offload_state_to_cpu: bool = False,  # noqa: ARG002
        async_loading_frames: bool = False,  # noqa: ARG002
    ) -> InferenceState:
        """Begin with a video: a folder of pictures named by numbers, a file, or what SAM2VideoClient takes.

        Where memories lie, the server decides. The session ends when nobody holds the state any more and
        another one begins, by `close_state`, or when it is idle.
        """
        self._close_left()
        video = self.client.init_state(
            video_path,
            fill_hole_area=self.fill_hole_area,
            non_overlap_masks=self.non_overlap_masks,
            add_all_frames_to_correct_as_cond=self.add_all_frames_to_correct_as_cond,
            max_cond_frames_in_attn=self.max_cond_frames_in_attn,
        )
        state = InferenceState(video)
        weakref.finalize(state, self._left.append, video)
        return state

    def add_new_points_or_box(  # noqa: PLR0917 - Meta's signature
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: int,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: ArrayLike | None = None,
    ) -> Shown:
        """Clicks, a box or both for one object on one frame; all objects' masks there."""
        if (points is None) != (labels is None):
            raise InvalidInputError("points and labels must be provided together")
        if points is None and box is None:
            raise InvalidInputError("at least one of points or box must be provided as input")
        unit = self._unit(inference_state, normalize_coords)
        shown = self.client.add_new_points_or_box(
            inference_state.video,
            frame_idx,
            obj_id,
            None if points is None else np.asarray(points, np.float32) * unit,
            labels,
            clear_old_points,
            box=None if box is None else (np.reshape(np.asarray(box), (2, 2)) * unit).reshape(4),
            formats="logits",
        )
        return self._shown(shown)

    def add_new_points(self, *args: Any, **kwargs: Any) -> Shown:
        """The original's older name of `add_new_points_or_box`."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: int, mask: ArrayLike
    ) -> Shown:
        """One object's mask on one frame, [H, W]; all objects' masks there."""
        shown = self.client.add_new_mask(
            inference_state.video, frame_idx, obj_id, np.asarray(mask), formats="logits"
        )
        return self._shown(shown)

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Generator[Shown, None, None]:
        """Track all objects, frame after frame."""
        for shown in self.client.propagate_in_video(
            inference_state.video,
            start_frame_idx,
            max_frame_num_to_track,
            reverse,
            formats="logits",
        ):
            yield self._shown(shown)

    def clear_all_prompts_in_frame(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: int,
        need_output: bool = True,
    ) -> Shown | None:
        """Take back an object's prompts on a frame; all objects' masks there, if they are wanted."""
        shown = self.client.clear_all_prompts_in_frame(
            inference_state.video,
            frame_idx,
            obj_id,
            formats="logits" if need_output else (),
        )
        return self._shown(shown) if need_output else None

    def remove_object(
        self,
        inference_state: InferenceState,
        obj_id: int,
        strict: bool = False,
        need_output: bool = True,
    ) -> tuple[list[int], list[tuple[int, Any]]]:
        """Remove an object; those that are left, and their masks on the frames where it had prompts."""
        video = inference_state.video
        if obj_id not in video.object_ids or len(video.object_ids) == 1:
            return self.client.remove_object(video, obj_id, strict), []
        if need_output and self.non_overlap_masks:
            raise not_over_server("remove_object(need_output=True) with non_overlap_masks")
        # As the original goes about it: first its prompts, frame by frame, then the object itself.
        row = video.object_ids.index(obj_id)
        cleared = [
            self.clear_all_prompts_in_frame(inference_state, frame, obj_id, need_output)
            for frame in inference_state.prompted_frames(obj_id)
        ]
        left = self.client.remove_object(video, obj_id, strict)
        return left, [
            (frame, as_tensor(np.delete(np.asarray(masks), row, axis=0), torch=self._has_torch))
            for frame, _, masks in filter(None, cleared)
        ]

    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects; the video stays."""
        self.client.reset_state(inference_state.video)

    def close_state(self, inference_state: InferenceState) -> None:
        """End a session now, which frees what it holds on the server. (The original has no such method.)"""
        self.client.close_state(inference_state.video)

    def __getattr__(self, name: str) -> Any:
        if name in _INSIDE:
            raise not_over_server(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _shown(self, frame: TrackedFrame) -> Shown:
        masks = as_tensor(frame.mask_logits, torch=self._has_torch)
        return frame.frame_idx, list(frame.object_ids), masks

    def _unit(self, inference_state: InferenceState, normalize_coords: bool) -> Any:
        """Width and height that coordinates are to be multiplied with, to be in pixels."""
        if normalize_coords:
            return np.ones(2, np.float32)
        if inference_state.video.original_hw is None:
            raise InvalidInputError(
                "normalize_coords: expected True before the first answer about a frame, whose size is not "
                "known until then"
            )
        return np.array(inference_state.video.original_hw[::-1], np.float32)

    def _close_left(self) -> None:
        while self._left:
            video = self._left.popleft()
            try:
                self.client.close_state(video, timeout=_CLOSE_TIMEOUT_S)
            except TritonSam2Error:
                continue  # it ends by itself when it has been idle
