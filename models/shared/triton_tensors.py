"""A request's tensors and an answer's error, as every adapter reads and makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from answer_room import check_room

Array = npt.NDArray[Any]


class InvalidTextError(ValueError):
    """A BYTES tensor that should hold text does not."""


def read(request: Any, name: str) -> Array | None:
    """The tensor as an array, or None where the request has no such tensor."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def read_text(request: Any, name: str) -> str | None:
    """The first element of a BYTES tensor as text, or None; raises InvalidTextError unless it is UTF-8."""
    values = read(request, name)
    if values is None:
        return None
    try:
        return str(values[0], "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTextError(f"{name}: expected UTF-8 text, got {error}") from error


def answer(tensors: Mapping[str, Array]) -> Any:
    """A response with these arrays, by name; raises NoSharedMemoryError where they have no room."""
    check_room(tensors.values())
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, values) for name, values in tensors.items()]
    )


def refuse(error: Exception | str, code: int) -> Any:
    """A response that is an error; `code` is one of pb_utils.TritonError's."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def refuse_cancelled() -> Any:
    """What a request gets whose client no longer wants an answer."""
    return refuse("the client cancelled this request", pb_utils.TritonError.CANCELLED)
