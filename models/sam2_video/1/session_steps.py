"""What each command does to a session's state, and what it answers. Each works on a draft."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from memory_bank import FrameOutput, ObjectMemory
from open_video import OpenVideo
from session_state import HeldFeatures, SessionState
from tracking import NothingToTrackError, Tracker, TrackingOptions
from video_commands import Command
from video_errors import InvalidStepError, NotHeldError
from video_graphs import FrameFeatures, VideoGraphs
from video_prompts import check_prompt, to_point_prompt, to_square_mask

LOW_RES_DIVISOR = 4


@dataclass(frozen=True)
class StepLimits:
    """See config.pbtxt, which declares them."""

    max_objects_per_session: int
    max_prompted_frames: int
    max_points_per_object: int
    max_objects_per_call: int
    frame_bytes_per_session: int
    frame_files_per_session: int
    session_features: int


@dataclass(frozen=True)
class EncodedFrame:
    """A frame's features, and its upright size (height, width)."""

    features: FrameFeatures
    original_hw: tuple[int, int]


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a session's video, where others have an image file."""

    video: OpenVideo
    frame_index: int


FrameSource = bytes | VideoFrame


@dataclass(frozen=True)
class StepAnswer:
    """outputs: of the frame's objects, in order of creation; None where an object has none there."""

    frame_index: int = -1
    outputs: dict[int, FrameOutput | None] = field(default_factory=dict)
    memory_complete: bool = True


class SessionSteps:
    """The commands of one session that was started with `options`."""

    def __init__(
        self,
        graphs: VideoGraphs,
        encode_frame: Callable[[FrameSource], Awaitable[EncodedFrame]],
        options: TrackingOptions,
        limits: StepLimits,
    ) -> None:
        self._encode_frame = encode_frame
        self._options = options
        self._limits = limits
        self._tracker = Tracker(graphs, options, limits.max_objects_per_call)

    async def run(self, command: Command, draft: SessionState) -> StepAnswer:
        """Carries out a command on a draft of the session's state.

        Raises:
            StepRefusedError: the draft is to be thrown away.
        """
        match command.name:
            case "prompt":
                return await self._prompt(command, draft)
            case "track":
                return await self._track(command, draft)
            case "clear_prompts":
                return self._clear_prompts(command, draft)
            case "remove_object":
                self._find_object(draft, command.object_id)
                del draft.objects[command.object_id]
                return StepAnswer(outputs=dict.fromkeys(draft.objects))
            case "reset":
                draft.objects.clear()
                return StepAnswer()
            case _:
                return StepAnswer(outputs=dict.fromkeys(draft.objects))

    async def _prompt(self, command: Command, draft: SessionState) -> StepAnswer:
        limits, frame = self._limits, command.frame_index
        check_prompt(command, limits.max_points_per_object)
        memory = self._object_to_prompt(draft, command.object_id, frame)
        features = await self._features(command, draft)
        original_hw = draft.original_hw
        assert original_hw is not None  # noqa: S101 - known with the features
        complete = True
        if command.mask is not None:
            side = LOW_RES_DIVISOR * features.low_res_side
            mask = to_square_mask(command.mask, original_hw, side)
            await self._tracker.prompt_mask(memory, frame, mask, features)
        else:
            prompt = to_point_prompt(
                command, original_hw, memory.points.get(frame), limits.max_points_per_object
            )
            complete = await self._tracker.prompt_points(memory, frame, prompt, features)
        return _answer(draft, frame, frame in memory.new_cond, complete)

    async def _track(self, command: Command, draft: SessionState) -> StepAnswer:
        frame = command.frame_index
        self._check_index(frame)
        for pending in sorted(draft.pending_frames()):
            await self._encode_pending(draft, pending)
        try:
            self._tracker.begin_tracking(draft.objects)
        except NothingToTrackError as error:
            raise InvalidStepError(str(error)) from error
        complete = True
        if command.image is not None or any(frame not in m.cond for m in draft.objects.values()):
            features = await self._features(command, draft)
            complete = await self._tracker.track(draft.objects, frame, command.reverse, features)
        else:
            for memory in draft.objects.values():
                memory.mark_tracked(frame, command.reverse)
        outputs = {i: memory.find_consolidated(frame) for i, memory in draft.objects.items()}
        return StepAnswer(frame, outputs, complete)

    def _clear_prompts(self, command: Command, draft: SessionState) -> StepAnswer:
        frame = command.frame_index
        self._check_index(frame)
        self._find_object(draft, command.object_id).clear_prompts(frame)
        is_cond = any(frame in memory.new_cond for memory in draft.objects.values())
        return _answer(draft, frame, is_cond, complete=True)

    async def _features(self, command: Command, draft: SessionState) -> FrameFeatures:
        """The features of the command's frame: held, or encoded from its image or the video now."""
        frame, image = command.frame_index, command.image
        self._check_index(frame)
        if image is not None and draft.video is not None:
            raise InvalidStepError(
                f"image: not expected with frame {frame} of a session that was started with a video"
            )
        held_image = draft.find_image(frame)
        if image is not None and held_image is not None and image != held_image:
            raise InvalidStepError(
                f"image: expected the bytes that frame {frame} came with ({len(held_image)}), or none, got"
                f" {len(image)} other bytes; frames do not change within a session"
            )
        if frame in draft.features:
            draft.features[frame] = held = draft.features.pop(frame)
            return held.features
        source: FrameSource | None = image if held_image is None else held_image
        if draft.video is not None:
            source = VideoFrame(draft.video, frame)
        if source is None:
            raise NotHeldError(
                f"image: expected with frame {frame}, which this session does not hold (any more); send it"
            )
        encoded = await self._encode_frame(source)
        if draft.original_hw not in (None, encoded.original_hw):
            raise InvalidStepError(
                f"image: expected {list(draft.original_hw or ())} (height, width) as the session's first"
                f" frame had, got {list(encoded.original_hw)}"
            )
        draft.original_hw = encoded.original_hw
        while len(draft.features) >= self._limits.session_features:
            oldest = next(iter(draft.features))
            # Memories of prompts need the features, so they are encoded before those go.
            await self._encode_pending(draft, oldest)
            del draft.features[oldest]
        file = source if isinstance(source, bytes) else None
        draft.features[frame] = HeldFeatures(encoded.features, file)
        limits = self._limits
        if file is not None:
            draft.keep_file(
                frame, file, limits.frame_bytes_per_session, limits.frame_files_per_session
            )
        return encoded.features

    async def _encode_pending(self, draft: SessionState, frame: int) -> None:
        if frame in draft.pending_frames():
            features = draft.features[frame].features
            await self._tracker.encode_pending(list(draft.objects.values()), frame, features)

    def _check_index(self, frame_index: int) -> None:
        num_frames = self._options.num_frames
        if num_frames is not None and frame_index >= num_frames:
            raise InvalidStepError(
                f"frame_index: expected less than the session's num_frames {num_frames}, got {frame_index}"
            )

    def _find_object(self, draft: SessionState, object_id: int) -> ObjectMemory:
        memory = draft.objects.get(object_id)
        if memory is None:
            known = ", ".join(map(str, draft.objects)) or "none"
            raise NotHeldError(
                f"object_id: expected an object of this session ({known}), got {object_id}"
            )
        return memory

    def _object_to_prompt(
        self, draft: SessionState, object_id: int, frame_index: int
    ) -> ObjectMemory:
        limits = self._limits
        memory = draft.objects.get(object_id)
        if memory is None:
            if len(draft.objects) >= limits.max_objects_per_session:
                raise InvalidStepError(
                    f"object_id: expected at most {limits.max_objects_per_session} objects in a session"
                    f" (max_objects_per_session), got {object_id} as one more"
                )
            memory = draft.objects[object_id] = ObjectMemory()
        prompted = memory.prompted_frames
        if frame_index not in prompted and len(prompted) >= limits.max_prompted_frames:
            raise InvalidStepError(
                f"frame_index: expected at most {limits.max_prompted_frames} prompted frames of an object"
                f" (max_prompted_frames), got {frame_index} as one more of object {object_id}"
            )
        return memory


def _answer(draft: SessionState, frame: int, is_cond: bool, complete: bool) -> StepAnswer:
    """What all objects have on a frame, news of one kind first."""
    outputs = {}
    for object_id, memory in draft.objects.items():
        news = memory.new_cond if is_cond else memory.new_non_cond
        output = news.get(frame) or memory.find_consolidated(frame)
        outputs[object_id] = output
        complete &= frame not in memory.forgotten
        complete &= output is None or output.low_res_logits is not None
    return StepAnswer(frame, outputs, complete)
