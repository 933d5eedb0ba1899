"""The health probe: one real inference through `sam2`, on one tiny image.

Triton's own readiness stays good when a model's process has died, so only an answer counts. The image
is always the same, so it takes one entry of the embedding cache, and all but the first probe are hits.
"""

import io
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

MODEL = "sam2"
IMAGE_SIDE = 32
# Its own name in the cache, so that logs and counts tell it from users' images.
IMAGE_ID = "sam2-health-probe"
REQUESTED_OUTPUT = "iou_predictions"
# What Triton says of a stub that gave no sign of life for a second: hung, or starved of processor time.
STUCK_STUB = re.compile(r"Stub process '\S+' is not healthy")


@dataclass(frozen=True)
class ProbeResult:
    healthy: bool
    message: str
    # Nothing came back that a working model would say: hung, busy or gone.
    no_answer: bool = False


def probe_image() -> bytes:
    """A PNG of a bright square on a dark ground."""
    picture = Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), (20, 30, 40))
    picture.paste((230, 220, 210), (8, 8, 24, 24))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def probe_inputs() -> dict[str, tuple[str, Any]]:
    """Tensor name ► Triton dtype and array of the probing request."""
    centre = IMAGE_SIDE / 2
    return {
        "image": ("BYTES", np.array([probe_image()], dtype=np.object_)),
        "image_id": ("BYTES", np.array([IMAGE_ID.encode()], dtype=np.object_)),
        "point_coords": ("FP32", np.array([[[centre, centre]]], dtype=np.float32)),
        "point_labels": ("INT32", np.array([[1]], dtype=np.int32)),
    }


def probe(url: str, timeout_seconds: float) -> ProbeResult:
    """Ask the server at grpc://HOST:PORT or http://HOST:PORT (or grpcs, https) for one mask."""
    scheme, _, address = url.partition("://")
    if scheme in ("grpc", "grpcs"):
        return _probe_grpc(address, timeout_seconds, ssl=scheme == "grpcs")
    if scheme in ("http", "https"):
        return _probe_http(address, timeout_seconds, ssl=scheme == "https")
    raise ValueError(f"expected a URL grpc://, grpcs://, http:// or https://, got {url!r}")


def _probe_grpc(address: str, timeout_seconds: float, *, ssl: bool) -> ProbeResult:
    from tritonclient import grpc  # noqa: PLC0415 - only the transport in use is imported
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415

    with grpc.InferenceServerClient(address, ssl=ssl) as client:
        try:
            result = client.infer(
                MODEL,
                _request_inputs(grpc.InferInput),
                outputs=[grpc.InferRequestedOutput(REQUESTED_OUTPUT)],
                client_timeout=timeout_seconds,
            )
        except InferenceServerException as error:
            message = f"{error.status()}: {error.message()}"
            return ProbeResult(False, message, _is_silence(error))
    return _judge(result.as_numpy(REQUESTED_OUTPUT))


def _probe_http(address: str, timeout_seconds: float, *, ssl: bool) -> ProbeResult:
    from tritonclient import http  # noqa: PLC0415
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415

    with http.InferenceServerClient(
        address, ssl=ssl, connection_timeout=timeout_seconds, network_timeout=timeout_seconds
    ) as client:
        try:
            result = client.infer(
                MODEL,
                _request_inputs(http.InferInput),
                outputs=[http.InferRequestedOutput(REQUESTED_OUTPUT)],
            )
        except InferenceServerException as error:
            message = error.message()
            return ProbeResult(False, message, bool(STUCK_STUB.search(message)))
        except TimeoutError:
            return ProbeResult(False, f"no answer within {timeout_seconds:g} s", no_answer=True)
        except OSError as error:
            return ProbeResult(False, str(error), no_answer=True)
    return _judge(result.as_numpy(REQUESTED_OUTPUT))


def _is_silence(error: Any) -> bool:
    """Whether no model made the error. Triton says UNAVAILABLE too, of a full queue."""
    if "DEADLINE_EXCEEDED" in str(error.status()) or STUCK_STUB.search(error.message()):
        return True
    return "UNAVAILABLE" in str(error.status()) and bool(
        re.search(r"connect|Socket closed|Stream removed|recvmsg", error.message())
    )


def _request_inputs(infer_input: Any) -> list[Any]:
    inputs = []
    for name, (dtype, array) in probe_inputs().items():
        tensor = infer_input(name, list(array.shape), dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def _judge(iou_predictions: Any) -> ProbeResult:
    if iou_predictions is None or iou_predictions.shape != (1, 1):
        shape = None if iou_predictions is None else iou_predictions.shape
        return ProbeResult(False, f"expected {REQUESTED_OUTPUT} of shape (1, 1), got {shape}")
    if not math.isfinite(iou_predictions[0, 0]):
        return ProbeResult(False, f"expected a finite {REQUESTED_OUTPUT}, got {iou_predictions}")
    return ProbeResult(True, "healthy")
