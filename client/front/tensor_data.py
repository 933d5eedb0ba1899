"""Data types, shapes and bytes of tensors from the wire, in Python's unbounded whole numbers."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from front.refusals import invalid

NUMPY_TYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
# What JSON's values are in Python, for each kind of number.
_PYTHON_TYPES: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}}
_LENGTH = struct.Struct("<I")


def count_elements(shape: Sequence[int]) -> int:
    """The product of a shape's sides, which Triton computes in 64 bits and we do not."""
    return math.prod(shape)


def check_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> None:
    """Raises a Refusal unless the bytes are exactly the elements of the shape."""
    expected = count_elements(shape)
    if datatype == "BYTES":
        found = count_strings(name, raw, expected)
        if found != expected:
            shown = f"{found}" if found < expected else "more"
            raise invalid(
                f"{name}: expected {expected} elements for shape {list(shape)}, got {shown}"
            )
        return
    size = expected * np.dtype(NUMPY_TYPES[datatype]).itemsize
    if len(raw) != size:
        raise invalid(f"{name}: expected {size} bytes for {datatype} {list(shape)}, got {len(raw)}")


def count_strings(name: str, raw: bytes | memoryview, most: int) -> int:
    """How many length-prefixed strings the bytes are, counted to one more than `most`.

    Raises a Refusal where they do not come out even.
    """
    offset, count = 0, 0
    while offset < len(raw) and count <= most:
        if len(raw) - offset < _LENGTH.size:
            raise invalid(
                f"{name}: expected a length of 4 bytes at byte {offset}, got {len(raw) - offset}"
            )
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset += _LENGTH.size + length
        count += 1
    if offset > len(raw):
        raise invalid(
            f"{name}: the last element claims {offset - len(raw)} bytes more than there are"
        )
    return count


def pack_strings(values: Sequence[bytes]) -> bytes:
    """BYTES elements as they travel: each behind its length, little-endian."""
    return b"".join(part for value in values for part in (_LENGTH.pack(len(value)), value))


def unpack_strings(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor that was checked, or that Triton made."""
    values, offset = [], 0
    while offset < len(raw):
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset += _LENGTH.size
        values.append(raw[offset : offset + length])
        offset += length
    return values


def json_to_raw(
    name: str, datatype: str, shape: Sequence[int], data: Any, encoding: str | None
) -> bytes:
    """A tensor's `data` in a JSON request, flat or nested as its shape says, as bytes.

    Raises a Refusal that names the tensor where an element is not of the data type: no text for a number,
    no fraction for a whole number, nothing out of range.
    """
    if not isinstance(data, list):
        raise invalid(f"{name}: expected data as a list, got {_kind(data)}")
    if datatype == "BYTES":
        return pack_strings(_strings(name, data, shape, encoding))
    if encoding is not None:
        raise invalid(f"{name}: encoding is for BYTES tensors, this one is {datatype}")
    return _numbers(name, datatype, _flat(name, data, shape)).tobytes()


def _flat(name: str, data: list[Any], shape: Sequence[int]) -> list[Any]:
    """The elements of data that is flat, or nested exactly as its shape says."""
    flat, expected = data, count_elements(shape)
    if any(isinstance(value, list) for value in data):
        for depth, side in enumerate(shape):
            if depth and not all(isinstance(row, list) for row in flat):
                raise invalid(f"{name}: expected data flat or nested as shape {list(shape)} says")
            rows = flat if depth else [data]
            if any(len(row) != side for row in rows):
                raise invalid(f"{name}: expected rows of {side} at depth {depth + 1} of data")
            flat = [value for row in rows for value in row]
    if len(flat) != expected:
        raise invalid(
            f"{name}: expected {expected} elements for shape {list(shape)}, got {len(flat)}"
        )
    return flat


def _numbers(name: str, datatype: str, flat: list[Any]) -> npt.NDArray[Any]:
    wanted = np.dtype(NUMPY_TYPES[datatype])
    allowed = _PYTHON_TYPES[wanted.kind]
    # Before they become an array: numpy would make texts of a list in which one element is a text.
    if not set(map(type, flat)) <= allowed:
        offender = next(value for value in flat if type(value) not in allowed)
        raise invalid(
            f"{name}: expected elements of {datatype}, got {_kind(offender)} {str(offender)[:40]!r}"
        )
    if wanted.kind in "iu" and flat:
        check_whole_numbers(name, datatype, min(flat), max(flat))
    with np.errstate(over="ignore"):
        return np.array(flat, wanted)


def check_whole_numbers(name: str, datatype: str, least: int, most: int) -> None:
    """Raises a Refusal unless the data type holds everything from least to most."""
    limits = np.iinfo(NUMPY_TYPES[datatype])  # type: ignore[type-var]
    if least < limits.min or most > limits.max:
        beyond = least if least < limits.min else most
        raise invalid(f"{name}: expected {datatype}, {limits.min} to {limits.max}, got {beyond}")


def _strings(name: str, data: list[Any], shape: Sequence[int], encoding: str | None) -> list[bytes]:
    if encoding not in (None, "base64"):
        raise invalid(f"{name}: expected encoding base64 or none, got {encoding!r:.40}")
    flat = _flat(name, data, shape)
    for value in flat:
        if not isinstance(value, str):
            raise invalid(f"{name}: expected elements of BYTES as text, got {_kind(value)}")
    try:
        if encoding == "base64":
            return [base64.b64decode(value, validate=True) for value in flat]
        return [value.encode() for value in flat]
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        raise invalid(f"{name}: expected base64, got text that is none ({error})") from error


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a fraction" if isinstance(value, float) else "a number")
