"""`FakeSam` behind real sockets, in the Open Inference Protocol over gRPC and HTTP."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from triton_sam2._errors import (
    AccessDeniedError,
    ImageNotFoundError,
    InvalidInputError,
    ServerUnavailableError,
    SessionExistsError,
    SessionNotFoundError,
)
from triton_sam2._transports.rpc import InferRequest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from tests.client.fakes import FakeSam

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
STATUSES = {
    InvalidInputError: (grpc.StatusCode.INVALID_ARGUMENT, 400),
    ImageNotFoundError: (grpc.StatusCode.NOT_FOUND, 404),
    SessionNotFoundError: (grpc.StatusCode.NOT_FOUND, 404),
    SessionExistsError: (grpc.StatusCode.ALREADY_EXISTS, 409),
    AccessDeniedError: (grpc.StatusCode.UNAUTHENTICATED, 401),
    ServerUnavailableError: (grpc.StatusCode.UNAVAILABLE, 503),
}
INTERNAL = (grpc.StatusCode.INTERNAL, 500)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """gRPC; remembers how large each request was and which headers came with it."""

    def __init__(self, sam: FakeSam) -> None:
        self.sam = sam
        self.sizes: list[int] = []
        self.metadata: list[dict[str, str]] = []
        self.before: Callable[[Any], None] | None = None  # called with the RPC's context

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.sizes.append(request.ByteSize())
        self.metadata.append(dict(context.invocation_metadata()))
        if self.before is not None:
            self.before(context)
        try:
            answer = self.sam.infer(self._read(request))
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            context.abort(STATUSES.get(type(error), INTERNAL)[0], f"in ensemble 'sam2', {error}")
        return self._response(request, answer)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Any:  # noqa: N802
        """Ordinary answers in order; errors without a status, as Triton does."""
        for request in requests:
            self.metadata.append(dict(context.invocation_metadata()))
            try:
                answer = self.sam.infer(self._read(request))
            except Exception as error:  # noqa: BLE001
                yield pb.ModelStreamInferResponse(error_message=str(error))
                continue
            yield pb.ModelStreamInferResponse(infer_response=self._response(request, answer))

    @staticmethod
    def _read(request: Any) -> InferRequest:
        inputs = {
            tensor.name: to_array(raw, tensor.datatype, list(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        outputs = tuple(output.name for output in request.outputs)
        return InferRequest(request.model_name, inputs, outputs, request.id)

    @staticmethod
    def _response(request: Any, answer: Any) -> Any:
        response = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, array in answer.items():
            response.outputs.add(
                name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape
            )
            response.raw_output_contents.append(to_raw(array))
        return response


@contextlib.contextmanager
def grpc_server(
    sam: FakeSam,
    credentials: Any = None,
    port: int = 0,
    options: Sequence[tuple[str, int]] = (),
) -> Iterator[tuple[str, Servicer]]:
    """A gRPC server on a free port, or this one: its address and its servicer."""
    server = grpc.server(ThreadPoolExecutor(8), options=[*UNLIMITED, *options])
    servicer = Servicer(sam)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        server.stop(0).wait()


class Handler(BaseHTTPRequestHandler):
    """HTTP; a `reply` of the server, where set, comes instead of an answer."""

    protocol_version = "HTTP/1.1"
    server: "HttpServer"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers), len(body)))
        if self.server.reply is not None:
            self._send(*self.server.reply)
            return
        header_length = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        header = json.loads(body[:header_length])
        inputs, at = {}, header_length
        for tensor in header["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            inputs[tensor["name"]] = to_array(
                body[at : at + size], tensor["datatype"], tensor["shape"]
            )
            at += size
        outputs = tuple(output["name"] for output in header["outputs"])
        model = self.path.split("/")[-2]
        try:
            answer = self.server.sam.infer(InferRequest(model, inputs, outputs))
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            status = STATUSES.get(type(error), INTERNAL)[1]
            self._send(status, json.dumps({"error": str(error)}).encode())
            return
        raws = {name: to_raw(array) for name, array in answer.items()}
        described = [
            {
                "name": name,
                "datatype": np_to_triton_dtype(array.dtype),
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(raws[name])},
            }
            for name, array in answer.items()
        ]
        text = json.dumps({"model_name": model, "outputs": described}).encode()
        self._send(
            200, text + b"".join(raws.values()), {"Inference-Header-Content-Length": str(len(text))}
        )

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silent."""


class HttpServer(ThreadingHTTPServer):
    """One thread per connection."""

    daemon_threads = True

    def __init__(self, sam: FakeSam) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sam = sam
        self.requests: list[tuple[dict[str, str], int]] = []
        self.reply: tuple[Any, ...] | None = None  # status, body, headers


@contextlib.contextmanager
def http_server(sam: FakeSam) -> Iterator[tuple[str, HttpServer]]:
    """An HTTP server on a free port: its URL and itself."""
    server = HttpServer(sam)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def to_array(raw: bytes, datatype: str, shape: list[int]) -> np.ndarray:
    if datatype == "BYTES":
        return deserialize_bytes_tensor(raw).reshape(shape)
    return np.frombuffer(raw, triton_to_np_dtype(datatype)).reshape(shape)


def to_raw(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return serialize_byte_tensor(array).item() if array.size else b""
