"""Prompts as options spell them."""

from dataclasses import dataclass

from triton_sam2._errors import InvalidInputError


@dataclass(frozen=True)
class PromptOptions:
    """Points and boxes by object, as the client's methods take them."""

    point_coords: list[list[tuple[float, float]]] | None
    point_labels: list[list[int]] | None
    box: list[list[float]] | None

    @property
    def objects(self) -> int:
        """How many objects these prompts are for."""
        return len(self.point_labels or self.box or [])


def read_prompts(
    points: list[str], boxes: list[str], *, point: str = "--point", box: str = "--box"
) -> PromptOptions:
    """Read `--point X,Y[,LABEL[,OBJECT]]` and `--box X0,Y0,X1,Y1` options.

    The k-th box belongs to object k; a point to object 1 unless it says otherwise. `point` and `box`
    are what messages call them.
    """
    coords: dict[int, list[tuple[float, float]]] = {}
    labels: dict[int, list[int]] = {}
    for text in points:
        numbers = _numbers(text, point, (2, 3, 4), "X,Y[,LABEL[,OBJECT]]")
        label, index = [*numbers[2:], *[1.0, 1.0][len(numbers) - 2 :]]
        if not (label.is_integer() and index.is_integer() and index >= 1):
            raise InvalidInputError(f"{point}: expected LABEL 1 or 0, OBJECT 1, 2, …, got {text!r}")
        coords.setdefault(int(index), []).append((numbers[0], numbers[1]))
        labels.setdefault(int(index), []).append(int(label))
    box_rows = [_numbers(text, box, (4,), "X0,Y0,X1,Y1") for text in boxes]
    if not coords and not box_rows:
        raise InvalidInputError(f"give at least one {point} X,Y or {box} X0,Y0,X1,Y1")
    highest = max(coords, default=0)  # any number that was typed: counted with, never counted up to
    if box_rows and highest > len(box_rows):
        raise InvalidInputError(
            f"{box}: {len(box_rows)} boxes for {highest} objects; give every object a box, or none"
        )
    if not box_rows and highest > len(coords):
        without = next(index for index in range(1, highest) if index not in coords)
        raise InvalidInputError(f"{point}: no point for object {without}, yet one for {highest}")
    objects = range(1, max(highest, len(box_rows)) + 1)
    return PromptOptions(
        [coords.get(index, []) for index in objects] if coords else None,
        [labels.get(index, []) for index in objects] if coords else None,
        box_rows or None,
    )


def _numbers(text: str, option: str, counts: tuple[int, ...], form: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise InvalidInputError(f"{option}: expected {form}, got {text!r}")
    return numbers
