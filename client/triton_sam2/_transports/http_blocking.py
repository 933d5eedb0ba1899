"""HTTP: Triton's own encoding of tensors over urllib3's connection pool.

Triton's HTTP client itself is bound to gevent: it cannot be shared between threads, and its timeouts are
per connection, not per call.
"""

import json
from typing import Any

import tritonclient.http as triton
import urllib3
from tritonclient.utils import np_to_triton_dtype

from triton_sam2._errors import CallTimeoutError, ServerError, TritonSam2Error
from triton_sam2._transports.credentials import Credentials
from triton_sam2._transports.grpc_blocking import MALFORMED_ANSWER, closed_error, read_answer
from triton_sam2._transports.rpc import InferRequest, Tensors
from triton_sam2._transports.statuses import error_from_status, http_status_name, unreachable
from triton_sam2._transports.urls import Endpoint

_HEADER_LENGTH = "Inference-Header-Content-Length"
_POOL_SIZE = 32


class HttpTransport:
    """A pool of connections that any number of threads may share."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._headers = dict(credentials.headers)
        self._is_closed = False
        # A pool of connections to the server itself: unlike gRPC, it follows no proxy variable.
        self._pool = urllib3.PoolManager(
            maxsize=_POOL_SIZE,
            retries=False,  # what is retried is decided in one place, the flows
            **tls_arguments(endpoint, credentials),
        )

    def infer(self, request: InferRequest) -> Tensors:
        """The outputs asked for, by name."""
        if self._is_closed:
            raise closed_error()
        body, header_length = encode_request(request)
        headers = {**self._headers, **request.headers, "Content-Type": "application/octet-stream"}
        if header_length is not None:
            headers[_HEADER_LENGTH] = str(header_length)
        response = self._post(f"/v2/models/{request.model}/infer", body, headers, request.timeout_s)
        if response.status != 200:
            raise error_from_status(http_status_name(response.status), _error_text(response))
        return decode_answer(response.data, response.headers.get(_HEADER_LENGTH), request)

    def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        self._pool.clear()

    def _post(
        self, path: str, body: bytes, headers: dict[str, str], timeout_s: float
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                "POST",
                f"{self._endpoint}{path}",
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(total=timeout_s),
            )
        except urllib3.exceptions.NewConnectionError as error:  # first: it is a timeout error, too
            raise unreachable(self._endpoint, str(error).rpartition(": ")[2]) from error
        except urllib3.exceptions.TimeoutError as error:
            raise CallTimeoutError(f"no answer from {self._endpoint} in time") from error
        except urllib3.exceptions.HTTPError as error:
            raise _connection_error(self._endpoint, error) from error


def encode_request(request: InferRequest) -> tuple[bytes, int | None]:
    """The body of a request, and how much of it is its JSON header."""
    inputs = []
    for name, array in request.inputs.items():
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array, binary_data=True))
    outputs = [triton.InferRequestedOutput(name, binary_data=True) for name in request.outputs]
    body, header_length = triton.InferenceServerClient.generate_request_body(
        inputs, outputs=outputs, request_id=request.request_id
    )
    return body, header_length


def decode_answer(body: bytes, header_length: str | None, request: InferRequest) -> Tensors:
    """The outputs asked for, by name."""
    try:
        result = triton.InferenceServerClient.parse_response_body(
            body, header_length=None if header_length is None else int(header_length)
        )
    except MALFORMED_ANSWER as error:
        raise ServerError(
            "the server's answer is not one of Triton's inference protocol"
        ) from error
    return read_answer(result, request)


def _error_text(response: urllib3.BaseHTTPResponse) -> str:
    try:
        return str(json.loads(response.data)["error"])
    except (ValueError, KeyError, TypeError):  # a gateway's page, not Triton's JSON
        return f"HTTP {response.status}: {response.data[:200].decode(errors='replace')}"


def _connection_error(endpoint: Endpoint, error: urllib3.exceptions.HTTPError) -> TritonSam2Error:
    if isinstance(error, urllib3.exceptions.ProtocolError) and "BadStatusLine" not in repr(error):
        return error_from_status("UNAVAILABLE", f"the connection to {endpoint} broke: {error}")
    return unreachable(endpoint, str(error))


def tls_arguments(endpoint: Endpoint, credentials: Credentials) -> dict[str, Any]:
    """The pool's arguments for TLS."""
    if not endpoint.has_tls:
        return {}
    files = {
        "ca_certs": credentials.ca_file,
        "cert_file": credentials.cert_file,
        "key_file": credentials.key_file,
    }
    return {name: str(path) for name, path in files.items() if path is not None}
