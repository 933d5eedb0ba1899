"""Prompt files of `triton-sam2 batch` that are tables: CSV as spreadsheets and pandas write it."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from triton_sam2._errors import InvalidInputError
from triton_sam2.cli._batch_prompts import (
    ObjectPrompt,
    PromptFile,
    box_xyxy,
    whole_number,
)

_DELIMITERS = ";\t|,"
_CORNERS = ("x0", "y0", "x1", "y1")
_COLUMNS = ("image", "object", "x", "y", "label", *_CORNERS, "category_id")
_MISSING = {"", "nan"}  # pandas writes the one or the other


def parse_table(text: str, path: Path) -> PromptFile:
    """Prompts by image name; raises InvalidInputError, naming line and column.

    A header row with `image` and `x, y[, label]` or `x0, y0, x1, y1`, and optionally `object` (rows of one
    object belong together) and `category_id`; other columns are not looked at. Columns are separated by
    commas, semicolons, tabs or bars, as the header is.
    """
    prompts: PromptFile = {}
    objects: dict[tuple[str, str], ObjectPrompt] = {}
    table = _Table(text)
    try:
        for row in table:
            name = row["image"]
            if not name:
                raise ValueError("no image")
            # Without an object column, every row is an object of its own.
            key = (name, _given(row, "object") or f"line {table.line}")
            is_new = key not in objects
            prompt = objects.setdefault(key, ObjectPrompt())
            if is_new:
                prompts.setdefault(name, []).append(prompt)
            _add_row(prompt, row, is_new)
    except (ValueError, OverflowError, csv.Error) as error:
        raise InvalidInputError(f"--prompts: {path}, line {table.line}: {error}") from error
    return prompts


class _Table:
    """Rows as cells by column name; `line` is where in the file the latest one ends."""

    def __init__(self, text: str) -> None:
        hint, _, rest = text.partition("\n")
        self._skipped = 0
        self._delimiter = ""
        if hint.strip().lower().startswith("sep=") and len(hint.strip()) == 5:  # Excel's own
            text, self._skipped, self._delimiter = rest, 1, hint.strip()[4]
        self._delimiter = self._delimiter or _delimiter(text)
        self._reader = csv.reader(
            io.StringIO(text, newline=""), delimiter=self._delimiter, skipinitialspace=True
        )

    @property
    def line(self) -> int:
        return self._reader.line_num + self._skipped

    def __iter__(self) -> Iterator[dict[str, str]]:
        columns: list[str] | None = None
        for cells in self._reader:
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if columns is None:
                columns = _checked_columns([value.lower() for value in values])
                continue
            if any(values[len(columns) :]):
                raise ValueError(
                    f"expected {len(columns)} cells like the header, got {len(values)}"
                )
            row = dict(zip(columns, [*values, *[""] * len(columns)], strict=False))
            yield row if self._delimiter == "," else _with_decimal_points(row)


def _with_decimal_points(row: Mapping[str, str]) -> dict[str, str]:
    """Numbers of a table whose cells are not separated by commas, so that a comma is the decimal sign."""
    return {
        name: value if name in ("image", "object") else value.replace(",", ".")
        for name, value in row.items()
    }


def _delimiter(text: str) -> str:
    """The one that separates the most of our columns in the first line that says anything."""
    header = next((line for line in text.splitlines() if line.strip()), "").lower()

    def known(delimiter: str) -> int:
        return sum(cell.strip(' "') in _COLUMNS for cell in header.split(delimiter))

    return max(reversed(_DELIMITERS), key=known)


def _checked_columns(columns: list[str]) -> list[str]:
    known = [name for name in columns if name in _COLUMNS]
    twice = [name for name in known if known.count(name) > 1]
    if twice:
        raise ValueError(f"the column {twice[0]!r} stands there twice")
    has_points = {"x", "y"} <= set(known)
    has_boxes = set(_CORNERS) <= set(known)
    if "image" not in known or not (has_points or has_boxes):
        raise ValueError(
            "expected the columns image and x, y[, label] or x0, y0, x1, y1, got "
            f"{', '.join(columns)}"
        )
    return columns


def _add_row(prompt: ObjectPrompt, row: Mapping[str, str], is_new: bool) -> None:
    point = [_number(row, name) for name in ("x", "y")]
    corners = [_number(row, name) for name in _CORNERS]
    label, category = _number(row, "label"), _number(row, "category_id")
    for values in (point, corners):
        if None in values and values != [None] * len(values):
            raise ValueError("expected x and y, or x0, y0, x1 and y1")
    if point == [None, None] and corners == [None] * 4:
        raise ValueError("expected x and y, or x0, y0, x1 and y1, got an empty row")
    if point != [None, None]:
        prompt.points_xy.append((float(point[0] or 0), float(point[1] or 0)))
        prompt.labels.append(1 if label is None else _whole(label, "label"))
    if corners != [None] * 4:
        if prompt.box_xyxy is not None:
            raise ValueError("x0, y0, x1, y1: a second box for one object")
        prompt.box_xyxy = box_xyxy(corners)
    if category is not None:
        number = _whole(category, "category_id")
        if not is_new and number != prompt.category_id:
            raise ValueError(f"category_id: {number} for an object of {prompt.category_id}")
        prompt.category_id = number


def _given(row: Mapping[str, str], column: str) -> str | None:
    value = row.get(column, "")
    return None if value.lower() in _MISSING else value


def _number(row: Mapping[str, str], column: str) -> float | None:
    value = _given(row, column)
    try:
        return None if value is None else float(value)
    except ValueError as error:
        raise ValueError(f"{column}: expected a number, got {value!r}") from error


def _whole(value: float, column: str) -> int:
    try:
        return whole_number(value)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from error
