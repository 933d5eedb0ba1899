"""Segment Anything 2.1 on NVIDIA Triton: from an image file's bytes to masks in one call."""

from triton_sam2._calls.flows import RetryPolicy
from triton_sam2._clients.asynchronous import AsyncSAM2TritonClient
from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._clients.speculative import (
    SpeculativeSAM2Client,
    queue_multiple_requests,
    wait_for_latest_result,
)
from triton_sam2._errors import (
    AccessDeniedError,
    CallCancelledError,
    CallTimeoutError,
    ImageChangedError,
    ImageNotFoundError,
    InvalidInputError,
    MissingExtraError,
    ModelNotFoundError,
    NoImageError,
    NotOverServerError,
    NotRequestedError,
    ServerError,
    ServerUnavailableError,
    ServerUnreachableError,
    TritonSam2Error,
)
from triton_sam2._inputs.generator import GeneratorParameters
from triton_sam2._inputs.images import ImageHandle
from triton_sam2._results.generated import GeneratedMasks, MaskRecord
from triton_sam2._results.masks import CocoAnnotation, CocoRle
from triton_sam2._results.segmentation import Segmentation

__all__ = [
    "AccessDeniedError",
    "AsyncSAM2TritonClient",
    "CallCancelledError",
    "CallTimeoutError",
    "CocoAnnotation",
    "CocoRle",
    "GeneratedMasks",
    "GeneratorParameters",
    "ImageChangedError",
    "ImageHandle",
    "ImageNotFoundError",
    "InvalidInputError",
    "MaskRecord",
    "MissingExtraError",
    "ModelNotFoundError",
    "NoImageError",
    "NotOverServerError",
    "NotRequestedError",
    "RetryPolicy",
    "SAM2TritonClient",
    "Segmentation",
    "ServerError",
    "ServerUnavailableError",
    "ServerUnreachableError",
    "SpeculativeSAM2Client",
    "TritonSam2Error",
    "queue_multiple_requests",
    "wait_for_latest_result",
]
