"""Segment Anything 2.1 on NVIDIA Triton: from an image file's bytes to masks in one call."""

from triton_sam2._calls.flows import RetryPolicy
from triton_sam2._calls.video_state import VideoState
from triton_sam2._clients.asynchronous import AsyncSAM2TritonClient
from triton_sam2._clients.blocking import SAM2TritonClient
from triton_sam2._clients.speculative import (
    SpeculativeSAM2Client,
    queue_multiple_requests,
    wait_for_latest_result,
)
from triton_sam2._clients.video_asynchronous import AsyncSAM2VideoClient
from triton_sam2._clients.video_blocking import SAM2VideoClient
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
    SessionExistsError,
    SessionNotFoundError,
    TritonSam2Error,
)
from triton_sam2._inputs.generator import GeneratorParameters
from triton_sam2._inputs.images import ImageHandle
from triton_sam2._results.generated import GeneratedMasks, MaskRecord
from triton_sam2._results.masks import CocoAnnotation, CocoRle
from triton_sam2._results.segmentation import Segmentation
from triton_sam2._results.tracked import TrackedFrame

__all__ = [
    "AccessDeniedError",
    "AsyncSAM2TritonClient",
    "AsyncSAM2VideoClient",
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
    "SAM2VideoClient",
    "Segmentation",
    "ServerError",
    "ServerUnavailableError",
    "ServerUnreachableError",
    "SessionExistsError",
    "SessionNotFoundError",
    "SpeculativeSAM2Client",
    "TrackedFrame",
    "TritonSam2Error",
    "VideoState",
    "queue_multiple_requests",
    "wait_for_latest_result",
]
