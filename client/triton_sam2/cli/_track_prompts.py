"""Prompts on frames as options spell them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triton_sam2._errors import InvalidInputError

T = TypeVar("T")


@dataclass
class FramePrompt:
    """All that is said of one object on one frame."""

    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: list[float] | None = None
    mask: NDArray[np.bool_] | None = None


Prompts = dict[tuple[int, int], FramePrompt]
"""By frame and object."""


def read_prompts(points: list[str], boxes: list[str], masks: list[str]) -> Prompts:
    """Read options that begin with FRAME:OBJECT: and go on with X,Y[,LABEL], X0,Y0,X1,Y1 or a FILE."""
    prompts: Prompts = {}
    for text in points:
        frame, number, rest = _split(text, "--point", "X,Y[,LABEL]")
        numbers = _numbers(rest, text, "--point", (2, 3), "X,Y[,LABEL]")
        label = numbers[2] if len(numbers) == 3 else 1.0
        if label not in (0, 1):
            raise InvalidInputError(f"--point: expected LABEL 1 or 0, got {text!r}")
        prompt = prompts.setdefault((frame, number), FramePrompt())
        prompt.points.append((numbers[0], numbers[1]))
        prompt.labels.append(int(label))
    for text in boxes:
        frame, number, rest = _split(text, "--box", "X0,Y0,X1,Y1")
        prompt = prompts.setdefault((frame, number), FramePrompt())
        if prompt.box is not None:
            raise InvalidInputError(f"--box: object {number} has a box on frame {frame} already")
        prompt.box = _numbers(rest, text, "--box", (4,), "X0,Y0,X1,Y1")
    for text in masks:
        frame, number, rest = _split(text, "--mask", "FILE")
        if (frame, number) in prompts:
            raise InvalidInputError(
                f"--mask: object {number} has another prompt on frame {frame}; a mask stands alone"
            )
        prompts[frame, number] = FramePrompt(mask=_mask(Path(rest)))
    return dict(sorted(prompts.items()))


def _split(text: str, option: str, form: str) -> tuple[int, int, str]:
    parts = text.split(":", 2)
    frame, number = (_whole(part) for part in [*parts, "", ""][:2])
    if len(parts) != 3 or frame is None or number is None or frame < 0:
        raise InvalidInputError(f"{option}: expected FRAME:OBJECT:{form}, got {text!r}")
    return frame, number, parts[2]


def _numbers(rest: str, text: str, option: str, counts: tuple[int, ...], form: str) -> list[float]:
    numbers = [_or_none(float, part) for part in rest.split(",")]
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    if len(finite) != len(numbers) or len(numbers) not in counts:
        raise InvalidInputError(f"{option}: expected FRAME:OBJECT:{form}, got {text!r}")
    return finite


def _mask(path: Path) -> NDArray[np.bool_]:
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("L")) > 0
    except Exception as error:  # Pillow raises nearly anything at a file that it cannot read
        raise InvalidInputError(f"--mask: cannot read {path}: {error}") from error


def _whole(text: str) -> int | None:
    return _or_none(int, text)


def _or_none(read: Callable[[str], T], text: str) -> T | None:
    try:
        return read(text)
    except ValueError:
        return None
