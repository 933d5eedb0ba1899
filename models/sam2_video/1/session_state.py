"""All that a session holds: frames and objects. A step works on a draft, which replaces it at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from memory_bank import ObjectMemory
from open_video import OpenVideo
from video_graphs import FrameFeatures


@dataclass(frozen=True)
class HeldFeatures:
    """A frame's features and the file that they are of; None where it is one of the session's video."""

    features: FrameFeatures
    image: bytes | None

    @property
    def size_bytes(self) -> int:
        return self.features.size_bytes + len(self.image or b"")


@dataclass
class SessionState:
    """objects: by id, in order of creation. features: of the frames used last, the longest unused first.
    files: image files by frame, the oldest first. original_hw: of all frames, None before the first. video:
    where the frames come from, in a session that was started with one."""

    objects: dict[int, ObjectMemory] = field(default_factory=dict)
    features: dict[int, HeldFeatures] = field(default_factory=dict)
    files: dict[int, bytes] = field(default_factory=dict)
    files_bytes: int = 0
    original_hw: tuple[int, int] | None = None
    video: OpenVideo | None = None

    def draft(self) -> SessionState:
        """A copy with stores of its own and the same contents."""
        return SessionState(
            {object_id: memory.copy() for object_id, memory in self.objects.items()},
            self.features.copy(),
            self.files.copy(),
            self.files_bytes,
            self.original_hw,
            self.video,
        )

    @property
    def memory_bytes(self) -> int:
        return sum(memory.size_bytes for memory in self.objects.values())

    @property
    def features_bytes(self) -> int:
        return sum(held.size_bytes for held in self.features.values())

    @property
    def video_bytes(self) -> int:
        return 0 if self.video is None else self.video.size_bytes

    @property
    def size_bytes(self) -> int:
        return self.memory_bytes + self.features_bytes + self.files_bytes + self.video_bytes

    def find_image(self, frame_index: int) -> bytes | None:
        """The file that a held frame is of."""
        held = self.features.get(frame_index)
        return self.files.get(frame_index) if held is None else held.image

    def keep_file(self, frame_index: int, image: bytes, most_bytes: int, most_files: int) -> None:
        """Keeps a frame's file, at the cost of the oldest ones."""
        if frame_index in self.files or len(image) > most_bytes:
            return
        self.files[frame_index] = image
        self.files_bytes += len(image)
        while self.files_bytes > most_bytes or len(self.files) > most_files:
            self.drop_oldest_file()

    def drop_oldest_file(self) -> None:
        self.files_bytes -= len(self.files.pop(next(iter(self.files))))

    def pending_frames(self) -> set[int]:
        """Frames with prompts whose memories are not encoded yet."""
        return {frame for memory in self.objects.values() for frame in memory.pending_frames}
