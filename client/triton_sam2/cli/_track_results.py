"""What was tracked so far, and what becomes of it: masks, a JSON file, a video to look at.

Each frame is written down as it comes, so that an interrupted run goes on where it was.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triton_sam2._errors import InvalidInputError
from triton_sam2._inputs.frames import open_source
from triton_sam2._results.drawing import draw_masks, upright_rgb
from triton_sam2._results.masks import CocoRle, rle_area, rle_box_xywh, rle_to_mask
from triton_sam2._results.movies import MOVIE_ENDINGS, MovieWriter, choose_codec
from triton_sam2._results.tracked import TrackedFrame
from triton_sam2.cli._outputs import check_files, check_folder, write_bytes


@dataclass(frozen=True)
class ObjectOnFrame:
    """One object's answer on one frame."""

    rle: CocoRle
    object_score: float
    predicted_iou: float

    @property
    def is_there(self) -> bool:
        """Whether the object is in the frame."""
        return self.object_score > 0


Frames = dict[int, dict[int, ObjectOnFrame]]


@dataclass(frozen=True)
class Outputs:
    """Where results go: folders, JSON files, videos."""

    folders: list[Path]
    documents: list[Path]
    movies: list[Path]

    @classmethod
    def read(cls, targets: list[Path], video: Path) -> "Outputs":
        """Outputs by their endings, once it is clear that all of them can be written."""
        folders = [path for path in targets if not path.suffix]
        documents = [path for path in targets if path.suffix.lower() == ".json"]
        movies = [path for path in targets if path.suffix.lower() in MOVIE_ENDINGS]
        for path in targets:
            if path not in (*folders, *documents, *movies):
                raise InvalidInputError(
                    f"--output: expected a folder, .json or {', '.join(MOVIE_ENDINGS)}, got {path.name!r}"
                )
        if movies:
            choose_codec()
        for folder in folders:
            if video.is_dir() and folder.resolve() == video.resolve():
                raise InvalidInputError(f"--output: {folder} is the folder of the frames already")
            check_folder(folder, "--output")
        written = [(path, "--output") for path in (*documents, *movies)]
        check_files([*written, (journal_path(targets[0]), "--output")], {video: "the video"})
        return cls(folders, documents, movies)


def journal_path(target: Path) -> Path:
    """Where a run is written down as long as it is under way."""
    return target.with_name(f"{target.name}.tracking")


@dataclass
class Journal:
    """Frames so far, in a file: a line of JSON about the run, then one for each frame."""

    path: Path
    run: dict[str, Any]
    frames: Frames = field(default_factory=dict)

    def load(self) -> None:
        """Take up what an earlier start of the same run wrote, if it did."""
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines()
        try:
            if json.loads(lines[0]) != self.run:
                return
            for line in lines[1:]:
                self._read(json.loads(line))
        except (ValueError, KeyError, IndexError, TypeError):
            return  # what was being written when it was interrupted

    def begin(self) -> None:
        """Write down what there is, for the rest to be added."""
        lines = [json.dumps(self.run), *(self._line(frame) for frame in self.frames)]
        write_bytes(self.path, "".join(f"{line}\n" for line in lines).encode())

    def add(self, frame: TrackedFrame) -> None:
        """One frame more, or again."""
        self.frames[frame.frame_idx] = {
            number: ObjectOnFrame(
                frame.rle(number),
                float(frame.object_score_logits[row]),
                float(frame.iou_predictions[row]),
            )
            for row, number in enumerate(frame.object_ids)
        }
        with self.path.open("a") as file:
            file.write(self._line(frame.frame_idx) + "\n")

    def remove(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)

    def _line(self, frame_idx: int) -> str:
        objects = {str(number): vars(one) for number, one in self.frames[frame_idx].items()}
        return json.dumps([frame_idx, objects])

    def _read(self, entry: Any) -> None:
        frame_idx, objects = entry
        self.frames[int(frame_idx)] = {
            int(number): ObjectOnFrame(**one) for number, one in objects.items()
        }


def save_frame_masks(folders: list[Path], frame: TrackedFrame) -> None:
    """`OBJECT/FRAME.png`, 0 and 255, as the masks of SA-V and Meta's tools lie."""
    for folder in folders:
        for number in frame.object_ids:
            target = folder / str(number) / f"{frame.frame_idx:05}.png"
            target.parent.mkdir(exist_ok=True)
            write_bytes(target, frame.png(number))


def to_youtube_vis(frames: Frames, video: str, num_frames: int) -> list[dict[str, Any]]:
    """One entry for each object as YouTube-VIS has results: a mask, or null, for every frame of the video."""
    numbers = sorted({number for objects in frames.values() for number in objects})
    return [_track_entry(frames, number, video, num_frames) for number in numbers]


def write_movie(path: Path, video: Path, frames: Frames) -> None:
    """The tracked part of the video with its masks, objects in colours of their own."""
    numbers = sorted({number for objects in frames.values() for number in objects})
    source = open_source(video, "png", None)
    try:
        with MovieWriter(path, source.frames_per_second) as movie:
            for frame_idx in range(min(frames), max(frames) + 1):
                content = source.read(frame_idx)
                if content is None:
                    return
                objects = frames.get(frame_idx, {})
                pixels = upright_rgb(content)
                # One that is not there has an empty mask, and keeps its colour for later.
                masks = (
                    rle_to_mask(objects[number].rle) if number in objects else _nothing(pixels)
                    for number in numbers
                )
                movie.write(draw_masks(pixels, masks))
    finally:
        source.close()


def _nothing(pixels: Any) -> Any:
    return pixels[:, :, 0] * 0


def _track_entry(frames: Frames, number: int, video: str, num_frames: int) -> dict[str, Any]:
    each = [frames.get(frame, {}).get(number) for frame in range(num_frames)]
    there = [one if one is not None and one.is_there else None for one in each]
    ious = [one.predicted_iou for one in there if one is not None]
    return {
        "video_id": video,
        "object_id": number,
        "category_id": 1,
        "score": sum(ious) / len(ious) if ious else 0.0,
        "segmentations": [one and one.rle for one in there],
        "bboxes": [one and rle_box_xywh(one.rle) for one in there],
        "areas": [one and rle_area(one.rle) for one in there],
        "object_scores": [one and one.object_score for one in each],
    }


def remaining(planned: Iterator[int] | range, done: Frames) -> list[int]:
    """Frames from the first one on that is not there yet."""
    frames = list(planned)
    for at, frame in enumerate(frames):
        if frame not in done:
            return frames[at:]
    return []
