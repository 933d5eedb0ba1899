"""Calls from one model to another (BLS), and what their errors mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt
import triton_python_backend_utils as pb_utils

Array = npt.NDArray[Any]

# What Triton says, in a message whose code is always INTERNAL, where an inner model is not there (yet).
NOT_READY_MESSAGES = (
    "is not ready",
    "Server not ready",
    "unknown model",
    "has no available versions",
    "not found",
)


class InnerModelError(RuntimeError):
    """A model that was called answered with an error; the message is its own."""


async def call(
    model_name: str, inputs: Mapping[str, Array], output_names: Iterable[str]
) -> dict[str, Array]:
    """One BLS call; arrays in and out, by name. Outputs come to host memory.

    Raises:
        InnerModelError: the model's own message. Its code is lost: see restore_code.
    """
    wanted = list(output_names)
    request = pb_utils.InferenceRequest(
        model_name=model_name,
        requested_output_names=wanted,
        inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = await request.async_exec()
    if response.has_error():
        raise InnerModelError(response.error().message())
    return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in wanted}


def restore_code(message: str) -> tuple[str, int]:
    """Inner models' errors all arrive as INTERNAL; what they say tells what they were."""
    if "image: " in message:  # how every refusal of sam2_preprocess begins
        return message[message.index("image: ") :], pb_utils.TritonError.INVALID_ARG
    if any(sign in message for sign in NOT_READY_MESSAGES):
        return f"{message}; try again in a moment", pb_utils.TritonError.UNAVAILABLE
    return message, pb_utils.TritonError.INTERNAL
