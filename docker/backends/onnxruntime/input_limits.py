"""What a model's configuration says about the size of its inputs, and how a large request is cut into rows.

Parameters of a `config.pbtxt`; Triton's C++ backend of the same name ignores them all:

    rows_at_once             inputs that begin with the same dynamic axis are run so many rows at a time
    elements_at_once:INPUT   ... and fewer rows where this input has many elements
    max_elements:INPUT       most elements of this input
    values:INPUT             LEAST..MOST, for an input of whole numbers
    max_waiting_requests     requests of one run that wait for it or are run; more are UNAVAILABLE
    max_waiting_bytes        ... and the bytes of their inputs
    max_heavy_requests       requests of several runs that are under way at a time; more are UNAVAILABLE
    max_heavy_bytes          ... and the bytes of their inputs and outputs
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, Any]
# A graph's axes by input: a size where it is fixed, else the axis's name.
Axes = Mapping[str, Sequence[int | str | None]]

DEFAULT_WAITING_REQUESTS = 256
DEFAULT_WAITING_BYTES = 1 << 29
DEFAULT_HEAVY_REQUESTS = 16
DEFAULT_HEAVY_BYTES = 1 << 30
SINGLE_NUMBERS = (
    "rows_at_once",
    "max_waiting_requests",
    "max_waiting_bytes",
    "max_heavy_requests",
    "max_heavy_bytes",
)


class InvalidSettingError(ValueError):
    """A parameter is unusable; the message names it, what was expected and what came."""


class InvalidInputError(ValueError):
    """An input cannot be run; the message names the tensor, what was expected and what came."""


@dataclass(frozen=True)
class InputLimits:
    """The parameters above. rows_at_once 0: requests are run as they come."""

    rows_at_once: int = 0
    elements_at_once: Mapping[str, int] = field(default_factory=dict)
    max_elements: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    max_waiting_requests: int = DEFAULT_WAITING_REQUESTS
    max_waiting_bytes: int = DEFAULT_WAITING_BYTES
    max_heavy_requests: int = DEFAULT_HEAVY_REQUESTS
    max_heavy_bytes: int = DEFAULT_HEAVY_BYTES


def parse_limits(parameters: Mapping[str, str], axes: Axes) -> InputLimits:
    """Reads a configuration's parameters; those that are none of the above are not looked at."""
    single: dict[str, int] = {}
    of_inputs: dict[str, dict[str, int]] = {"elements_at_once": {}, "max_elements": {}}
    values: dict[str, tuple[int, int]] = {}
    for key, text in parameters.items():
        kind, _, name = key.partition(":")
        if kind in (*of_inputs, "values") and name not in axes:
            raise InvalidSettingError(
                f"parameter {key}: expected one of the inputs {sorted(axes)}, got {name!r}"
            )
        if kind in of_inputs:
            of_inputs[kind][name] = _number(key, text)
        elif kind == "values":
            found = re.fullmatch(r"(-?\d+)\.\.(-?\d+)", text)
            if found is None:
                raise InvalidSettingError(f"parameter {key}: expected LEAST..MOST, got {text!r}")
            values[name] = (int(found[1]), int(found[2]))
        elif key in SINGLE_NUMBERS:
            single[key] = _number(key, text)
    return InputLimits(**single, **of_inputs, values=values)  # type: ignore[arg-type]


def check_inputs(arrays: Arrays, axes: Axes, limits: InputLimits) -> None:
    """Sizes and values within the limits, and axes of one name of one size.

    Raises:
        InvalidInputError: naming the first input that is not so.
    """
    for name, most in limits.max_elements.items():
        if arrays[name].size > most:
            raise InvalidInputError(
                f"{name}: expected at most {most} elements (max_elements:{name}), got"
                f" {list(arrays[name].shape)} = {arrays[name].size}"
            )
    for name, (least, most) in limits.values.items():
        outside = arrays[name][(arrays[name] < least) | (arrays[name] > most)]
        if outside.size:
            raise InvalidInputError(
                f"{name}: expected numbers from {least} to {most}, got {outside.flat[0]}"
            )
    sizes: dict[str, tuple[str, int]] = {}
    for name, named_axes in axes.items():
        for axis, size in zip(named_axes, arrays[name].shape, strict=False):
            if not isinstance(axis, str):
                continue
            first, expected = sizes.setdefault(axis, (name, size))
            if size != expected:
                raise InvalidInputError(
                    f"{name}: expected {axis} = {expected} as {first} has, got {list(arrays[name].shape)}"
                )


def row_inputs(axes: Axes) -> set[str]:
    """The inputs whose first axis is the first dynamic one: cutting them cuts a request."""
    first = [named[0] for named in axes.values() if named and isinstance(named[0], str)]
    return {name for name, named in axes.items() if named and first and named[0] == first[0]}


def cut_into_rows(arrays: Arrays, axes: Axes, limits: InputLimits) -> list[Arrays]:
    """The inputs of each run. One of them, the whole, where nothing is to be cut."""
    cut = row_inputs(axes)
    rows = min((len(arrays[name]) for name in cut), default=0)
    if not limits.rows_at_once or rows <= 1:
        return [arrays]
    step = limits.rows_at_once
    for name, elements in limits.elements_at_once.items():
        in_a_row = max(1, arrays[name].size // rows)
        step = min(step, max(1, elements // in_a_row))
    return [
        {
            name: array[start : start + step] if name in cut else array
            for name, array in arrays.items()
        }
        for start in range(0, rows, step)
    ]


def joined(parts: list[list[Any]], whole: Sequence[bool]) -> Iterator[Any]:
    """Each output's array from those of all runs; one that has no rows (`whole`) is the first run's."""
    for output, has_no_rows in zip(zip(*parts, strict=True), whole, strict=True):
        yield output[0] if has_no_rows or len(output) == 1 else np.concatenate(output)


def _number(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InvalidSettingError(f"parameter {key}: expected a number >= 1, got {text!r}")
    return int(text)
