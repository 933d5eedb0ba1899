"""gRPC, through Triton's own client."""

import struct
from pathlib import Path
from typing import Any

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from triton_sam2._errors import ServerError, TritonSam2Error
from triton_sam2._transports.credentials import Credentials
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2._transports.statuses import error_from_status, unreachable
from triton_sam2._transports.urls import Endpoint

_INT32_MAX = 2**31 - 1
# A connection that a router has dropped without a word (NAT, load balancers) is found out by pings during a
# call: one after 10 s of silence, given up after 30 s without an echo. Less would take a slow line for a dead
# one, on which an echo waits behind megabytes of image; more would not fit into a call's usual 60 s.
# Servers count pings on a silent connection and end it after three; gRPC's own limit of two (then one a
# minute) stays within that for two minutes, and our launcher allows any number.
PING_AFTER_MS = 10_000
PING_TIMEOUT_MS = 30_000
_CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # Images and masks beyond gRPC's 4 MB default.
    ("grpc.max_send_message_length", _INT32_MAX),
    ("grpc.max_receive_message_length", _INT32_MAX),
    # A server that is back is found again at once, not after gRPC's usual back-off of up to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# What Triton's parsers raise on a body that is not one of its answers.
MALFORMED_ANSWER = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    struct.error,
    InferenceServerException,
)
# How gRPC words it when there is nobody; a busy or restarting server has the same status.
_CONNECTION_FAILURES = (
    "failed to connect to all addresses",
    "resolution failed",
    "errors resolving",
)


def channel_arguments(endpoint: Endpoint, credentials: Credentials) -> dict[str, Any]:
    """Arguments of Triton's gRPC clients, blocking and asyncio alike."""
    return {
        "url": endpoint.address,
        "ssl": endpoint.has_tls,
        "root_certificates": _text(credentials.ca_file),
        "private_key": _text(credentials.key_file),
        "certificate_chain": _text(credentials.cert_file),
        "channel_args": channel_options(endpoint),
    }


def channel_options(endpoint: Endpoint) -> list[tuple[str, int]]:
    """gRPC's options for a connection to an endpoint."""
    return [
        *_CHANNEL_OPTIONS,
        ("grpc.keepalive_time_ms", PING_AFTER_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),  # the kernel's own: unacknowledged bytes
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
        # A proxy (http_proxy, https_proxy) that leads elsewhere never knows what listens on this machine.
        *([("grpc.enable_http_proxy", 0)] if endpoint.is_loopback else []),
    ]


def infer_arguments(request: InferRequest, credentials: Credentials) -> dict[str, Any]:
    """Arguments of `infer` of Triton's gRPC clients."""
    inputs = []
    for name, array in request.inputs.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array))
    return {
        "model_name": request.model,
        "inputs": inputs,
        "outputs": [triton.InferRequestedOutput(name) for name in request.outputs],
        "request_id": request.request_id,
        "client_timeout": request.timeout_s,
        "headers": {**credentials.headers, **request.headers},
    }


def read_answer(result: Any, request: InferRequest) -> Tensors:
    """The outputs asked for, by name."""
    try:
        arrays = {name: result.as_numpy(name) for name in request.outputs}
    except MALFORMED_ANSWER as error:
        raise ServerError(
            f"the server's answer does not fit its own description: {error}"
        ) from error
    missing = [name for name, array in arrays.items() if array is None]
    if missing:
        raise ServerError(f"the server's answer lacks {', '.join(missing)}")
    return arrays


def translate_error(error: InferenceServerException, endpoint: Endpoint) -> TritonSam2Error:
    """Triton's one exception ► ours."""
    status = str(error.status() or "").removeprefix("StatusCode.")
    message = str(error.message() or "")
    if status == "UNAVAILABLE" and _is_connection_failure(message):
        return unreachable(endpoint, message.rpartition("last error: ")[2])
    return error_from_status(status, message)


class GrpcTransport:
    """A connection that any number of threads may share."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._client = triton.InferenceServerClient(**channel_arguments(endpoint, credentials))
        self._is_closed = False

    def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name."""
        if self._is_closed:
            raise closed_error()
        try:
            result = self._client.infer(**infer_arguments(request, self._credentials))
        except InferenceServerException as error:
            raise translate_error(error, self._endpoint) from error
        except ValueError as error:  # gRPC's word for a channel that another thread has just closed
            if self._is_closed:
                raise closed_error() from error
            raise
        return read_answer(result, request)

    def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        self._client.close()


def closed_error() -> TritonSam2Error:
    """What a call on a closed client raises."""
    return TritonSam2Error("this client is closed")


def _is_connection_failure(message: str) -> bool:
    return any(phrase in message for phrase in _CONNECTION_FAILURES)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
