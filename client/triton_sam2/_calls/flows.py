"""The calls themselves: which requests, in which order, and what is tried again."""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from triton_sam2._errors import (
    ImageChangedError,
    ImageNotFoundError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from triton_sam2._inputs.images import ImageHandle
from triton_sam2._inputs.prompts import Prompts
from triton_sam2._results.generated import (
    GENERATED_OUTPUTS,
    RECORD_TENSORS,
    GeneratedFormat,
    GeneratedMasks,
)
from triton_sam2._results.segmentation import (
    FORMAT_OUTPUTS,
    IMAGE_FACTS,
    MaskFormat,
    Segmentation,
    read_image_facts,
)
from triton_sam2._transports.rpc import Deadline, Flow, InferRequest, Pause, Tensors, bytes_tensor

PREDICT_MODEL = "sam2"
EMBEDDING_MODEL = "sam2_embedding"
AUTOMASK_MODEL = "sam2_automask"
AnyResult = TypeVar("AnyResult", Segmentation, GeneratedMasks)


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which pauses, a call is tried again when the server is briefly unable to serve it.

    Every call is an inference, which changes nothing but the cache, so that sending it twice is safe. A busy
    server, one that stops or starts, and a connection that breaks are tried again; so is a refused connection
    where the same call was put off before, since then the server is restarting. Nothing else is: not a server
    that was never there, not a timeout, not an error of the server.
    """

    retries: int = 8
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0

    def pauses_s(self) -> Iterator[float]:
        """Pauses that double, each shortened at random so that many clients do not return at once."""
        for attempt in range(self.retries):
            pause_s = min(self.first_pause_s * 2**attempt, self.longest_pause_s)
            yield pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not cryptography


@dataclass(frozen=True)
class CallOptions:
    """What a call needs besides its tensors."""

    timeout_s: float
    retry: RetryPolicy
    request_id: str = ""


@dataclass(frozen=True)
class Wanted:
    """Which parts of an answer the caller will look at; nothing else is computed or transferred."""

    formats: tuple[MaskFormat, ...] = ("bitmap",)
    low_res_masks: bool = False
    multimask_output: bool = False

    def inputs(self) -> dict[str, Any]:
        """The optional inputs that say so to the server; defaults are left out."""
        inputs: dict[str, Any] = {}
        if self.formats != ("bitmap",):
            inputs["mask_format"] = bytes_tensor(*self.formats)
        if self.multimask_output:
            inputs["multimask_output"] = np.array([True])
        return inputs

    def outputs(self) -> tuple[str, ...]:
        """The outputs to request."""
        low_res = ("low_res_masks",) if self.low_res_masks else ()
        masks = tuple(FORMAT_OUTPUTS[mask_format] for mask_format in self.formats)
        return (*masks, "iou_predictions", *low_res, *IMAGE_FACTS)


def encode_flow(
    image_bytes: bytes | None, image_id: str | None, options: CallOptions
) -> Flow[ImageHandle]:
    """Have the server encode and keep an image (or look up one it has), without predicting anything."""
    request = InferRequest(EMBEDDING_MODEL, _image_inputs(image_bytes, image_id), IMAGE_FACTS)
    answer = yield from send(request, options, Deadline(options.timeout_s))
    known_id, original_hw = read_image_facts(answer)
    return ImageHandle(known_id, original_hw, image_bytes, is_named=image_id is not None)


def forget_flow(image_id: str, options: CallOptions) -> Flow[None]:
    """Have the server drop an image under all its ids."""
    inputs = {"image_id": bytes_tensor(image_id), "forget": np.array([True])}
    request = InferRequest(EMBEDDING_MODEL, inputs, IMAGE_FACTS[:1])
    yield from send(request, options, Deadline(options.timeout_s))


def segment_flow(
    image_bytes: bytes, image_id: str | None, prompts: Prompts, wanted: Wanted, options: CallOptions
) -> Flow[tuple[Segmentation, ImageHandle]]:
    """One request with image and prompts."""
    request = _predict_request(_image_inputs(image_bytes, image_id), prompts, wanted)
    deadline = Deadline(options.timeout_s)
    result = Segmentation.from_tensors((yield from _resend(request, options, deadline)))
    handle = ImageHandle(
        result.image_id, result.original_hw, image_bytes, is_named=image_id is not None
    )
    return result, handle


def predict_flow(
    handle: ImageHandle, prompts: Prompts, wanted: Wanted, options: CallOptions
) -> Flow[Segmentation]:
    """One request with the image's id alone; the image itself goes along once the server has forgotten it."""

    def make(image_inputs: dict[str, Any]) -> InferRequest:
        return _predict_request(image_inputs, prompts, wanted)

    answer = yield from _send_known(handle, make, options)
    return _of_the_same_image(Segmentation.from_tensors(answer), handle)


@dataclass(frozen=True)
class WantedMasks:
    """How to generate masks, by the generator's own names, and in which formats they shall come."""

    parameters: Mapping[str, Any]
    formats: tuple[GeneratedFormat, ...] = ("rle",)

    def request(self, image_inputs: dict[str, Any]) -> InferRequest:
        """The request for an image; defaults are left out."""
        inputs = dict(image_inputs)
        if self.parameters:
            inputs["parameters"] = bytes_tensor(json.dumps(self.parameters))
        if self.formats != ("rle",):
            inputs["mask_format"] = bytes_tensor(*self.formats)
        masks = tuple(GENERATED_OUTPUTS[each] for each in self.formats)
        return InferRequest(AUTOMASK_MODEL, inputs, (*masks, *RECORD_TENSORS, *IMAGE_FACTS))


def generate_flow(
    image_bytes: bytes, image_id: str | None, wanted: WantedMasks, options: CallOptions
) -> Flow[tuple[GeneratedMasks, ImageHandle]]:
    """One request with the image."""
    request = wanted.request(_image_inputs(image_bytes, image_id))
    answer = yield from _resend(request, options, Deadline(options.timeout_s))
    result = GeneratedMasks.from_tensors(answer)
    named = image_id is not None
    return result, ImageHandle(result.image_id, result.original_hw, image_bytes, is_named=named)


def generate_known_flow(
    handle: ImageHandle, wanted: WantedMasks, options: CallOptions
) -> Flow[GeneratedMasks]:
    """One request with the image's id alone; the image goes along where the server lacks a part of it."""
    answer = yield from _send_known(handle, wanted.request, options)
    return _of_the_same_image(GeneratedMasks.from_tensors(answer), handle)


def _send_known(
    handle: ImageHandle, make: Callable[[dict[str, Any]], InferRequest], options: CallOptions
) -> Flow[Tensors]:
    """Send a request that names its image; again with the image where the server has forgotten it."""
    deadline = Deadline(options.timeout_s)
    try:
        return (yield from send(make(_image_inputs(None, handle.image_id)), options, deadline))
    except ImageNotFoundError:
        if handle.image_bytes is None:
            raise
    name = handle.image_id if handle.is_named else None
    return (yield from _resend(make(_image_inputs(handle.image_bytes, name)), options, deadline))


def _of_the_same_image(result: AnyResult, handle: ImageHandle) -> AnyResult:
    """The result, unless the id has come to stand for another image: somebody else uses the same name."""
    wanted = handle.image_id
    if (result.image_id, result.original_hw) != (wanted, handle.original_hw):
        (height, width), (now_height, now_width) = handle.original_hw, result.original_hw
        raise ImageChangedError(
            f"image_id: {wanted!r} was an image of {width} x {height} pixels and now stands for "
            f"{result.image_id!r} of {now_width} x {now_height}: it was given to another image. "
            "Set the image again, under a name of its own or without one"
        )
    return result


def _resend(request: InferRequest, options: CallOptions, deadline: Deadline) -> Flow[Tensors]:
    """Send a request that carries its image.

    While the server switches from one encoder to the next, even such a request can find embeddings and
    decoder apart; that is over in moments, so it is sent again, a bounded number of times.
    """
    for pause_s in options.retry.pauses_s():
        try:
            return (yield from send(request, options, deadline))
        except ImageNotFoundError:
            yield Pause(min(pause_s, deadline.remaining_s()))
    return (yield from send(request, options, deadline))


def send(
    request: InferRequest,
    options: CallOptions,
    deadline: Deadline,
    is_safe: Callable[[ServerUnavailableError], bool] = lambda _: True,
) -> Flow[Tensors]:
    """Send a request; when the server cannot serve it now, and sending it twice is safe, send it again."""
    request = replace(request, request_id=options.request_id)
    was_there = False
    for pause_s in options.retry.pauses_s():
        try:
            return (yield replace(request, timeout_s=deadline.remaining_s()))
        except ServerUnavailableError as error:
            if isinstance(error, ServerUnreachableError) and not was_there:
                raise
            if not is_safe(error):
                raise
            was_there = True
            if pause_s >= deadline.remaining_s():
                raise
            yield Pause(pause_s)
    return (yield replace(request, timeout_s=deadline.remaining_s()))


def _predict_request(
    image_inputs: dict[str, Any], prompts: Prompts, wanted: Wanted
) -> InferRequest:
    inputs = {**image_inputs, **prompts, **wanted.inputs()}
    return InferRequest(PREDICT_MODEL, inputs, wanted.outputs())


def _image_inputs(image_bytes: bytes | None, image_id: str | None) -> dict[str, Any]:
    inputs = {}
    if image_bytes is not None:
        inputs["image"] = bytes_tensor(image_bytes)
    if image_id is not None:
        inputs["image_id"] = bytes_tensor(image_id)
    return inputs
