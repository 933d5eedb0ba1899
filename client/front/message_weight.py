"""How much memory a ModelInferRequest would take, judged from its bytes before it is laid out.

Two bytes on the wire can become an object of a hundred in memory: 80 MB of empty tensors are gigabytes. What
a large request honestly consists of is a few long byte strings (images, masks); everything else is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from front.refusals import Refusal, invalid, too_large
from front.settings import Limits

# Field numbers of ModelInferRequest, its inputs and their contents, from the protocol's definition.
_REQUEST, _INPUT, _CONTENTS = "request", "input", "contents"
_NESTED = {(_REQUEST, 5): _INPUT, (_INPUT, 5): _CONTENTS}
# Fields that take in memory what they take on the wire: raw bytes, strings of bytes, packed bool, FP32, FP64.
_HEAVY = {_REQUEST: (7,), _INPUT: (), _CONTENTS: (1, 6, 7, 8)}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_MODEL_NAME = 256


def check_weight(data: bytes, limits: Limits) -> None:
    """Raises a Refusal for a message of too many parts, or of bytes that are no message."""
    weight = _Weight(data, limits)
    weight.add(_REQUEST, 0, len(data))


def split_raws(data: bytes) -> tuple[bytes, list[memoryview]]:
    """A ModelInferRequest without its raw_input_contents, and these, not copied."""
    rest: list[memoryview] = []
    raws: list[memoryview] = []
    view = memoryview(data)
    for field in _fields(data, 0, len(data)):
        if (field.number, field.wire_type) == (7, _BYTES):
            raws.append(view[field.start : field.end])
        else:
            rest.append(view[field.field_start : field.end])
    return b"".join(rest), raws


def read_id(data: bytes, longest: int) -> str:
    """A request's id, for the answer to a message that nobody has parsed; "" where it cannot be read."""
    return _read_text(data, 3, longest)


def read_model_name(data: bytes) -> str:
    """The model that a message is for, which nobody has parsed; "" where it cannot be read."""
    return _read_text(data, 1, _LONGEST_MODEL_NAME)


def _read_text(data: bytes, number: int, longest: int) -> str:
    found = b""
    try:
        for seen, field in enumerate(_fields(data, 0, len(data))):
            if (field.number, field.wire_type) == (number, _BYTES):
                found = data[field.start : field.end]
            if seen > 100:
                break
        return found.decode() if len(found) <= longest else ""
    except (Refusal, UnicodeDecodeError):
        return ""


@dataclass(frozen=True)
class _Field:
    number: int
    wire_type: int
    field_start: int
    start: int
    end: int


def _fields(data: bytes, start: int, end: int) -> Iterator[_Field]:
    """The fields of a message; a Refusal where the bytes are none."""
    at = start
    while at < end:
        field_at = at
        tag, at = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _BYTES:
            length, at = _varint(data, at, end)
        elif wire_type == _VARINT:
            _, after = _varint(data, at, end)
            length = after - at
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise not_a_message("ModelInferRequest", len(data))
        if at + length > end:
            raise not_a_message("ModelInferRequest", len(data))
        yield _Field(number, wire_type, field_at, at, at + length)
        at += length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise not_a_message("ModelInferRequest", len(data))


class _Weight:
    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._fields = 0
        self._small_bytes = 0

    def add(self, kind: str, start: int, end: int) -> None:
        """Counts the fields of one message, and those of the messages in it (three deep at most)."""
        for field in _fields(self._data, start, end):
            self._count_field()
            nested = _NESTED.get((kind, field.number))
            if field.wire_type == _BYTES and nested is not None:
                self.add(nested, field.start, field.end)
            elif field.wire_type != _BYTES or field.number not in _HEAVY[kind]:
                self._count_small(field.end - field.field_start)

    def _count_field(self) -> None:
        self._fields += 1
        if self._fields > self._limits.max_message_fields:
            raise too_large(
                f"expected a ModelInferRequest of at most {self._limits.max_message_fields} fields"
                " (max_message_fields), got more"
            )

    def _count_small(self, count: int) -> None:
        self._small_bytes += count
        if self._small_bytes > self._limits.max_message_small_bytes:
            raise too_large(
                f"expected at most {self._limits.max_message_small_bytes} bytes besides raw_input_contents,"
                " bytes_contents and packed bool, FP32 and FP64 contents (max_message_small_bytes), got more"
            )


def not_a_message(kind: str, count: int) -> Refusal:
    """What is answered to bytes that are no such message."""
    return invalid(f"expected a {kind}, got {count} bytes that are none")
