"""A request's tensors as the command that they stand for, checked for what belongs to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from memory_selection import NO_LIMIT
from tenant_shares import NO_TENANT
from tracking import TrackingOptions
from video_errors import InvalidStepError

FIRST_TENSORS = ("session_id", "command")
OPTIONS = tuple(option.name for option in dataclasses.fields(TrackingOptions))
# What each command takes: the tensors that it must have, and those that it may have.
TENSORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "start": ((), ("video", *OPTIONS)),
    "prompt": (
        ("frame_index", "object_id"),
        (
            *("image", "point_coords", "point_labels", "box", "mask"),
            *("clear_old_points", "mask_format"),
        ),
    ),
    "track": (("frame_index",), ("image", "reverse", "mask_format")),
    "clear_prompts": (("frame_index", "object_id"), ("mask_format",)),
    "remove_object": (("object_id",), ()),
    "reset": ((), ()),
    "close": ((), ()),
    "status": ((), ()),
}
LEAST_COND_FRAMES = 2


@dataclass(frozen=True)
class Command:
    """One step as its client asked for it; what a command does not take has its default."""

    session_id: str
    name: str
    frame_index: int = -1
    object_id: int = 0
    image: bytes | None = None
    video: bytes | None = None
    point_coords: npt.NDArray[np.float32] | None = None
    point_labels: npt.NDArray[np.int32] | None = None
    box: npt.NDArray[np.float32] | None = None
    mask: npt.NDArray[np.uint8] | None = None
    clear_old_points: bool = True
    reverse: bool = False
    mask_format: tuple[bytes, ...] | None = None
    options: TrackingOptions = field(default_factory=TrackingOptions)
    tenant: str = NO_TENANT

    @property
    def size_bytes(self) -> int:
        """What the command itself holds in memory."""
        arrays = (self.point_coords, self.point_labels, self.box, self.mask)
        files = len(self.image or b"") + len(self.video or b"")
        return files + sum(a.nbytes for a in arrays if a is not None)


def parse_command(
    tensors: Mapping[str, npt.NDArray[Any]], max_session_id_bytes: int, tenant: str = NO_TENANT
) -> Command:
    """Reads the tensors that a tenant's client sent, by name.

    Raises:
        InvalidStepError: naming the tensor that is missing, out of place or out of range.
    """
    for name in FIRST_TENSORS:
        if name not in tensors:
            raise InvalidStepError(f"{name}: expected in every request, got none")
    command = _text("command", tensors["command"])
    if command not in TENSORS:
        raise InvalidStepError(
            f"command: expected one of {', '.join(TENSORS)}, got {command[:40]!r}"
        )
    _check_presence(command, tensors)
    session_id = _text("session_id", tensors["session_id"])
    length_bytes = len(tensors["session_id"][0])
    if not 1 <= length_bytes <= max_session_id_bytes:
        raise InvalidStepError(
            f"session_id: expected 1 to {max_session_id_bytes} bytes (max_session_id_bytes), got"
            f" {length_bytes}"
        )
    given: dict[str, Any] = {
        name: values
        for name, values in tensors.items()
        if name in ("point_coords", "point_labels", "box", "mask")
    }
    for name in ("frame_index", "object_id"):
        if name in tensors:
            given[name] = int(tensors[name][0])
    for name in ("clear_old_points", "reverse"):
        if name in tensors:
            given[name] = bool(tensors[name][0])
    for name in ("image", "video"):
        if name in tensors:
            given[name] = tensors[name][0]
    if "mask_format" in tensors:
        given["mask_format"] = tuple(tensors["mask_format"].tolist())
    if given.get("frame_index", 0) < 0:
        raise InvalidStepError(f"frame_index: expected 0 or more, got {given['frame_index']}")
    return Command(session_id, command, **given, options=_options(tensors), tenant=tenant)


def _check_presence(command: str, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    required, optional = TENSORS[command]
    for name in required:
        if name not in tensors:
            raise InvalidStepError(f"{name}: expected with command {command}, got none")
    for name in tensors:
        if name not in (*FIRST_TENSORS, *required, *optional):
            listed = ", ".join(required + optional) or "none"
            raise InvalidStepError(
                f"{name}: not expected with command {command}, which takes {listed} besides"
                " session_id and command"
            )


def _options(tensors: Mapping[str, npt.NDArray[Any]]) -> TrackingOptions:
    given = {name: tensors[name][0].item() for name in OPTIONS if name in tensors}
    options = TrackingOptions(**given)
    if options.num_frames is not None and options.num_frames < 1:
        raise InvalidStepError(
            f"num_frames: expected at least 1, or no tensor for a live stream, got {options.num_frames}"
        )
    limit = options.max_cond_frames_in_attn
    if limit != NO_LIMIT and limit < LEAST_COND_FRAMES:
        raise InvalidStepError(
            f"max_cond_frames_in_attn: expected -1 (all) or at least {LEAST_COND_FRAMES}, got {limit}"
        )
    if options.fill_hole_area < 0:
        raise InvalidStepError(
            f"fill_hole_area: expected 0 (none) or more pixels, got {options.fill_hole_area}"
        )
    return options


def _text(name: str, values: npt.NDArray[Any]) -> str:
    try:
        return bytes(values[0]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidStepError(f"{name}: expected UTF-8 text, got {error}") from error
