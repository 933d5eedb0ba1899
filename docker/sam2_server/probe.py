"""The health probe: one real inference through `sam2`, on one tiny image.

Triton's own readiness stays good when a model's process has died, so only an answer counts. Who asks as one
`Asker` again and again takes one entry of the embedding cache and mostly meets it; a fresh question brings an
image that the server cannot know, so it goes through preprocessing and the encoder as well, and is forgotten
afterwards.
"""

import contextlib
import io
import math
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

MODEL = "sam2"
IMAGE_SIDE = 32
# Its images' names in the cache begin like this, so that people can tell them from users' images.
IMAGE_ID_PREFIX = "sam2-health-probe-"
REQUESTED_OUTPUT = "iou_predictions"
# The models' names (request_caller.py) for what a request from the inside carries: the process's secret, and
# a tenant that no client can be, whose images take nothing from anybody's share.
SECRET_VARIABLE = "SAM2_INNER_SECRET"  # noqa: S105 - the variable's name
SECRET_PARAMETER, TENANT_PARAMETER = "sam2_inner_secret", "sam2_tenant"
PROBE_TENANT = ":probe"
CACHE_MODEL = "sam2_embedding"
# A health check is about the server, not about the proxy that the environment names.
GRPC_CHANNEL_ARGUMENTS = [("grpc.enable_http_proxy", 0)]
# What Triton says of a stub that gave no sign of life for a second: hung, or starved of processor time.
STUCK_STUB = re.compile(r"Stub process '(?P<instance>\S+?)' is not healthy")


@dataclass(frozen=True)
class ProbeResult:
    healthy: bool
    message: str
    # Nothing came back that a working model would say: hung, busy or gone.
    no_answer: bool = False

    @property
    def stuck_instance(self) -> str | None:
        """The model instance whose process gave Triton no sign of life for a second."""
        match = STUCK_STUB.search(self.message)
        return match["instance"] if match is not None else None


@dataclass(frozen=True)
class Asker:
    """Whose question it is. The token is in the image and in its name, so that nobody who does not know it
    can take the name, have the image forgotten, or learn from the cache that it is there.
    """

    token: str
    # The server process's; without it the question is as anybody's.
    inner_secret: str = field(default="", repr=False)

    @classmethod
    def new(cls, inner_secret: str = "") -> "Asker":
        return cls(secrets.token_hex(16), inner_secret)

    @property
    def parameters(self) -> dict[str, str] | None:
        if not self.inner_secret:
            return None
        return {TENANT_PARAMETER: PROBE_TENANT, SECRET_PARAMETER: self.inner_secret}

    @property
    def image_id(self) -> str:
        return IMAGE_ID_PREFIX + self.token


def probe_image(token: str) -> bytes:
    """A PNG of a bright square on a dark ground, with the token as a comment."""
    picture = Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), (20, 30, 40))
    picture.paste((230, 220, 210), (8, 8, 24, 24))
    file = io.BytesIO()
    comment = PngImagePlugin.PngInfo()
    comment.add_text("Comment", token)
    picture.save(file, format="PNG", pnginfo=comment)
    return file.getvalue()


def probe_inputs(asker: Asker) -> dict[str, tuple[str, Any]]:
    """Tensor name ► Triton dtype and array of the probing request."""
    centre = IMAGE_SIDE / 2
    return {
        "image": ("BYTES", np.array([probe_image(asker.token)], dtype=np.object_)),
        "image_id": ("BYTES", np.array([asker.image_id.encode()], dtype=np.object_)),
        "point_coords": ("FP32", np.array([[[centre, centre]]], dtype=np.float32)),
        "point_labels": ("INT32", np.array([[1]], dtype=np.int32)),
    }


def probe(
    url: str, timeout_seconds: float, asker: Asker | None = None, *, fresh: bool = False
) -> ProbeResult:
    """Ask the server at grpc://HOST:PORT or http://HOST:PORT (or grpcs, https) for one mask.

    Without an `asker`, or with `fresh`, the question is a fresh one, and forgotten.
    """
    if asker is None or fresh:
        asker, fresh = Asker.new("" if asker is None else asker.inner_secret), True
    scheme, _, address = url.partition("://")
    if scheme not in ("grpc", "grpcs", "http", "https"):
        raise ValueError(f"expected a URL grpc://, grpcs://, http:// or https://, got {url!r}")
    ask = _probe_grpc if scheme.startswith("grpc") else _probe_http
    return ask(address, timeout_seconds, asker, fresh=fresh, ssl=scheme in ("grpcs", "https"))


def _probe_grpc(
    address: str, timeout_seconds: float, who: Asker, *, fresh: bool, ssl: bool
) -> ProbeResult:
    from tritonclient import grpc  # noqa: PLC0415 - only the transport in use is imported
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415

    with grpc.InferenceServerClient(
        address, ssl=ssl, channel_args=GRPC_CHANNEL_ARGUMENTS
    ) as client:
        try:
            result = client.infer(
                MODEL,
                _tensors(grpc.InferInput, probe_inputs(who)),
                outputs=[grpc.InferRequestedOutput(REQUESTED_OUTPUT)],
                client_timeout=timeout_seconds,
                parameters=who.parameters,
            )
        except InferenceServerException as error:
            message = f"{error.status()}: {error.message()}"
            return ProbeResult(False, message, _is_silence(error))
        if fresh:
            # Where there is no such cache, there is nothing to forget.
            with contextlib.suppress(InferenceServerException):
                client.infer(
                    CACHE_MODEL,
                    _tensors(grpc.InferInput, _forget_inputs(who)),
                    outputs=[grpc.InferRequestedOutput("cached_image_id")],
                    client_timeout=timeout_seconds,
                    parameters=who.parameters,
                )
    return _judge(result.as_numpy(REQUESTED_OUTPUT))


def _probe_http(
    address: str, timeout_seconds: float, who: Asker, *, fresh: bool, ssl: bool
) -> ProbeResult:
    from tritonclient import http  # noqa: PLC0415
    from tritonclient.utils import InferenceServerException  # noqa: PLC0415

    with http.InferenceServerClient(
        address, ssl=ssl, connection_timeout=timeout_seconds, network_timeout=timeout_seconds
    ) as client:
        try:
            result = client.infer(
                MODEL,
                _tensors(http.InferInput, probe_inputs(who)),
                outputs=[http.InferRequestedOutput(REQUESTED_OUTPUT)],
                parameters=who.parameters,
            )
        except InferenceServerException as error:
            message = error.message()
            return ProbeResult(False, message, bool(STUCK_STUB.search(message)))
        except TimeoutError:
            return ProbeResult(False, f"no answer within {timeout_seconds:g} s", no_answer=True)
        except OSError as error:
            return ProbeResult(False, str(error), no_answer=True)
        if fresh:
            with contextlib.suppress(InferenceServerException, OSError):
                client.infer(
                    CACHE_MODEL,
                    _tensors(http.InferInput, _forget_inputs(who)),
                    outputs=[http.InferRequestedOutput("cached_image_id")],
                    parameters=who.parameters,
                )
    return _judge(result.as_numpy(REQUESTED_OUTPUT))


def _is_silence(error: Any) -> bool:
    """Whether no model made the error. Triton says UNAVAILABLE too, of a full queue."""
    if "DEADLINE_EXCEEDED" in str(error.status()) or STUCK_STUB.search(error.message()):
        return True
    return "UNAVAILABLE" in str(error.status()) and bool(
        re.search(r"connect|Socket closed|Stream removed|recvmsg", error.message())
    )


def _forget_inputs(asker: Asker) -> dict[str, tuple[str, Any]]:
    return {
        "image_id": ("BYTES", np.array([asker.image_id.encode()], dtype=np.object_)),
        "forget": ("BOOL", np.array([True])),
    }


def _tensors(infer_input: Any, arrays: dict[str, tuple[str, Any]]) -> list[Any]:
    inputs = []
    for name, (dtype, array) in arrays.items():
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
