"""What the blocking and the asyncio client have in common: settings, the current image, the calls to make."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import ArrayLike

from triton_sam2._calls.flows import (
    CallOptions,
    RetryPolicy,
    Wanted,
    WantedMasks,
    encode_flow,
    forget_flow,
    generate_flow,
    generate_known_flow,
    predict_flow,
    segment_flow,
)
from triton_sam2._errors import InvalidInputError, NoImageError
from triton_sam2._inputs.generator import plain_parameters
from triton_sam2._inputs.images import ImageHandle, ImageSource, image_file_bytes
from triton_sam2._inputs.prompts import PointsLike, Prompts, prompt_tensors
from triton_sam2._results.generated import GeneratedMasks, check_generated_formats
from triton_sam2._results.segmentation import Segmentation, check_formats
from triton_sam2._transports.credentials import Credentials
from triton_sam2._transports.rpc import Flow
from triton_sam2._transports.urls import Endpoint, choose_url, parse_url

Formats = tuple[str, ...] | list[str] | str


@dataclass
class Settings:
    """How a client calls: where, for how long, how often, as whom."""

    endpoint: Endpoint
    credentials: Credentials
    timeout_s: float
    retry: RetryPolicy

    @classmethod
    def read(
        cls,
        url: str | None,
        timeout: float,
        retry: RetryPolicy | None,
        headers: Mapping[str, str] | None,
        tls_files: tuple[str | Path | None, str | Path | None, str | Path | None],
    ) -> "Settings":
        """Check the constructor's arguments of a client."""
        endpoint = parse_url(choose_url(url, os.environ))
        ca_file, cert_file, key_file = tls_files
        credentials = Credentials.read(endpoint, ca_file, cert_file, key_file, headers)
        return cls(endpoint, credentials, _checked_timeout(timeout), retry or RetryPolicy())

    def require_grpc(self, who: str) -> None:
        """Raise InvalidInputError for an HTTP URL."""
        if not self.endpoint.is_grpc:
            raise InvalidInputError(
                f"url: {who} speaks gRPC only, got {self.endpoint} (Triton's gRPC port is 8001 by default)"
            )

    def call_options(self, timeout: float | None, request_id: str = "") -> CallOptions:
        """Options of one call; None stands for the client's own timeout."""
        timeout_s = self.timeout_s if timeout is None else _checked_timeout(timeout)
        return CallOptions(timeout_s, self.retry, request_id)


class ImageState:
    """The current image of a client, and flows for it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: ImageHandle | None = None

    def encode(
        self, image: ImageSource | None, image_id: str | None, timeout: float | None
    ) -> Flow[ImageHandle]:
        """Encode an image, or look up an id, and leave the current image as it is."""
        if image is None and image_id is None:
            raise InvalidInputError("image: missing; give an image, an image_id of one, or both")
        image_bytes = None if image is None else image_file_bytes(image)
        return encode_flow(image_bytes, _checked_id(image_id), self.settings.call_options(timeout))

    def set_image(
        self, image: ImageSource | ImageHandle | None, image_id: str | None, timeout: float | None
    ) -> Flow[ImageHandle]:
        """Make an image the current one, encoding it unless it is a handle already."""
        if isinstance(image, ImageHandle):
            if image_id is not None:
                raise InvalidInputError("image_id: a handle has one already")
            handle = image
        else:
            handle = yield from self.encode(image, image_id, timeout)
        self.current = handle
        return handle

    def segment(
        self,
        image: ImageSource,
        image_id: str | None,
        prompts: "PromptArguments",
        timeout: float | None,
    ) -> Flow[Segmentation]:
        """Image and prompts in one request; the image becomes the current one."""
        result, handle = yield from segment_flow(
            image_file_bytes(image),
            _checked_id(image_id),
            prompts.tensors(),
            prompts.wanted(),
            self.settings.call_options(timeout),
        )
        self.current = handle
        return result

    def forget(self, image: ImageHandle | str | None, timeout: float | None) -> Flow[None]:
        """Drop an image from the server: a handle's, an id's or the current one."""
        if image is None and self.current is None:
            raise NoImageError("no image to forget: name one, or call set_image first")
        handle = self.current if image is None else image
        image_id = handle.image_id if isinstance(handle, ImageHandle) else _checked_id(handle)
        return forget_flow(str(image_id), self.settings.call_options(timeout))

    def predict(
        self,
        image: ImageHandle | None,
        prompts: "PromptArguments",
        timeout: float | None,
        request_id: str = "",
    ) -> Flow[Segmentation]:
        """Prompts for a handle, or for the current image."""
        handle = image or self.current
        if handle is None:
            raise NoImageError("no image: call set_image first, or use segment")
        return predict_flow(
            handle,
            prompts.tensors(),
            prompts.wanted(),
            self.settings.call_options(timeout, request_id),
        )

    def generate(
        self,
        image: ImageSource | ImageHandle | None,
        image_id: str | None,
        wanted: WantedMasks,
        timeout: float | None,
    ) -> Flow[GeneratedMasks]:
        """All masks of an image file (then the current one), of a handle, or of the current image."""
        options = self.settings.call_options(timeout)
        if image is None or isinstance(image, ImageHandle):
            if image_id is not None:
                raise InvalidInputError(
                    "image_id: goes with an image file; a handle has one already"
                )
            handle = image or self.current
            if handle is None:
                raise NoImageError("no image: give one, or call set_image first")
            return (yield from generate_known_flow(handle, wanted, options))
        result, self.current = yield from generate_flow(
            image_file_bytes(image), _checked_id(image_id), wanted, options
        )
        return result


def wanted_masks(parameters: Mapping[str, object], formats: Formats) -> WantedMasks:
    """The generator's parameters and formats of a public method, as they go to the server."""
    return WantedMasks(plain_parameters(parameters), check_generated_formats(formats))


@dataclass(frozen=True)
class PromptArguments:
    """The prompt arguments of a public method, unchecked."""

    point_coords: PointsLike | None
    point_labels: PointsLike | None
    box: ArrayLike | None
    mask_input: ArrayLike | None
    multimask_output: bool
    formats: Formats
    low_res_masks: bool

    def tensors(self) -> Prompts:
        """The server's prompt tensors by name."""
        return prompt_tensors(self.point_coords, self.point_labels, self.box, self.mask_input)

    def wanted(self) -> Wanted:
        """The parts of the answer to ask for."""
        return Wanted(check_formats(self.formats), self.low_res_masks, bool(self.multimask_output))


def _checked_timeout(timeout: float) -> float:
    if not 0 < timeout < float("inf"):
        raise InvalidInputError(f"timeout: expected a positive number of seconds, got {timeout!r}")
    return float(timeout)


def _checked_id(image_id: str | None) -> str | None:
    if image_id is None:
        return None
    if not isinstance(image_id, str):
        raise InvalidInputError(f"image_id: expected a string, got {type(image_id).__name__}")
    if not image_id:  # how long it may be is the server's setting
        raise InvalidInputError("image_id: expected a name, got an empty string")
    return image_id
