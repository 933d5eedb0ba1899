"""Calls from one model to another (BLS), and what their errors mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from shared_words import SEND_AGAIN, TRY_AGAIN

Array = npt.NDArray[Any]

# What Triton says, in a message whose code is always INTERNAL, where an inner model is not there (yet, or any
# more: once the server is stopping it refuses to run inner calls at all).
NOT_READY_MESSAGES = (
    "is not ready",
    "Server not ready",
    "unknown model",
    "has no available versions",
    "not found",
    "Error when running inference",
    "Server is stopping",
    "Server exiting",
)
NOT_READY = "a model that is needed is not there at the moment; try again in a moment"
# What the Python backend says where /dev/shm is full; it goes on with the name of a region.
NO_SHARED_MEMORY = "shared memory"
NO_ROOM = "the server has no shared memory left for this image; try again in a moment"
FAILED = "the image could not be encoded; the server's log says why"


class InnerModelError(RuntimeError):
    """A model that was called answered with an error; the message is its own."""


async def call(
    model_name: str,
    inputs: Mapping[str, Array],
    output_names: Iterable[str],
    parameters: Mapping[str, str] | None = None,
) -> dict[str, Array]:
    """One BLS call; arrays in and out, by name. Outputs come to host memory.

    `parameters`: on whose behalf (Callers.inner_parameters), where the model asks for that.

    Raises:
        InnerModelError: the model's own message. Its code is lost: see restore_code.
    """
    wanted = list(output_names)
    request = pb_utils.InferenceRequest(
        model_name=model_name,
        requested_output_names=wanted,
        inputs=[pb_utils.Tensor(name, values) for name, values in inputs.items()],
        parameters=dict(parameters or {}),
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )
    response = await request.async_exec()
    if response.has_error():
        raise InnerModelError(response.error().message())
    return {name: pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in wanted}


def restore_code(message: str) -> tuple[str, int]:
    """Inner models' errors all arrive as INTERNAL; their words tell what they were."""
    codes = pb_utils.TritonError
    if message.endswith(SEND_AGAIN):
        return message, codes.NOT_FOUND
    if message.endswith(TRY_AGAIN):  # before the next: an image that must wait is not refused
        return message, codes.UNAVAILABLE
    refusal = _refusal(message)
    if refusal is not None:
        return refusal, codes.INVALID_ARG
    if any(sign in message for sign in NOT_READY_MESSAGES):
        return NOT_READY, codes.UNAVAILABLE
    if NO_SHARED_MEMORY in message:
        return NO_ROOM, codes.UNAVAILABLE
    return FAILED, codes.INTERNAL


def _refusal(message: str) -> str | None:
    """What sam2_embedding or sam2_preprocess said of a request that is wrong; None for anything else."""
    if message.startswith(("image_id: ", "sam2_tenant: ", "expected image")):
        return message
    return message[message.index("image: ") :] if "image: " in message else None
