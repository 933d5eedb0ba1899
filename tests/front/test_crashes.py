"""Small requests that end Triton 24.10 itself: the front refuses each, and the server lives.

The shapes whose product wraps, `classification`, JSON under gzip and JSON that claims more than it brings.
"""

import gzip
import json
import re
from pathlib import Path

import grpc
import numpy as np
import pytest
import urllib3
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.front.samples import click_request, strings
from tests.photographs import photograph
from tests.raw_client import RawClient, bytes_tensor, click

pytestmark = pytest.mark.server
INFER = "/v2/models/sam2/infer"


def overflowing(shape: list[int], raw: bytes) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="sam2")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.inputs.add(name="point_labels", datatype="INT32", shape=shape)
    request.raw_input_contents.extend([strings(photograph("coins.png")), raw])
    request.outputs.add(name="iou_predictions")
    return request


def classifying(output: str) -> service_pb2.ModelInferRequest:
    request = click_request()
    request.outputs.add(name=output).parameters["classification"].int64_param = 1
    return request


def as_http(request: service_pb2.ModelInferRequest) -> tuple[bytes, dict[str, str]]:
    """The same request's body and headers."""
    inputs = [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(raw)},
        }
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    ]
    outputs = [
        {
            "name": output.name,
            "parameters": dict.fromkeys(output.parameters, 1),
        }
        for output in request.outputs
    ]
    header = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    return header + b"".join(request.raw_input_contents), {
        "Inference-Header-Content-Length": str(len(header))
    }


LABELS = {"name": "point_labels", "datatype": "INT32", "data": [1]}
MESSAGES = {
    "C1 2^61 x 2^62": overflowing([2**61, 2**62], b""),
    "C1 -2 x -5": overflowing([-2, -5], bytes(40)),
    "C1 0 x 2^62": overflowing([0, 2**62], b""),
    "C3 masks_rle": classifying("masks_rle"),
    "C3 cached_image_id": classifying("cached_image_id"),
    "C6 mask_logits": classifying("mask_logits"),
}
BODIES = {
    "C2 gzip of nested JSON": (gzip.compress(b"[" * 3_000_000), {"Content-Encoding": "gzip"}),
    "C4 gzip of 600 MB": (gzip.compress(bytes(600_000_000), 1), {"Content-Encoding": "gzip"}),
    "C7 4e8 x 262144": (
        json.dumps({"inputs": [LABELS | {"shape": [4 * 10**8, 262144]}]}).encode(),
        {},
    ),
    "C7 800 x 262144": (json.dumps({"inputs": [LABELS | {"shape": [800, 262144]}]}).encode(), {}),
}


@pytest.fixture(autouse=True)
def alive(server, front):
    """The same tritonserver process before and after, and a good request right on both protocols."""
    pid, restarts = server.server_pid, server.state["restarts"]
    yield
    assert (server.server_pid, server.state["restarts"]) == (pid, restarts)
    expected = RawClient(server, "grpc").infer(
        image=bytes_tensor(photograph("coins.png")), **click(109, 199)
    )
    for protocol in ("grpc", "http"):
        found = RawClient(front, protocol).infer(
            image=bytes_tensor(photograph("coins.png")), **click(109, 199)
        )
        np.testing.assert_array_equal(found["masks"], expected["masks"])
        assert found["masks"].any()


def post(front, body: bytes, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(retries=False, timeout=120) as pool:
        url = f"http://{front.http_url}{INFER}"
        return pool.request("POST", url, body=body, headers={"Accept-Encoding": "gzip", **headers})


@pytest.mark.parametrize("name", MESSAGES)
def test_over_grpc(front, name):
    with grpc.insecure_channel(front.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(MESSAGES[name], timeout=120)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        (answer,) = stub.ModelStreamInfer(iter([MESSAGES[name]]), timeout=120)
    assert answer.error_message == refused.value.details()


@pytest.mark.parametrize("name", MESSAGES)
def test_over_http(front, name):
    answer = post(front, *as_http(MESSAGES[name]))
    assert answer.status in (400, 413)
    assert answer.json()["error"]


@pytest.mark.parametrize("name", BODIES)
def test_bodies(front, name):
    answer = post(front, *BODIES[name])
    assert answer.status in (400, 413)
    assert answer.json()["error"]


@pytest.mark.parametrize("name", MESSAGES)
def test_gzip_over_grpc(front, name):
    with grpc.insecure_channel(front.grpc_url, compression=grpc.Compression.Gzip) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(MESSAGES[name], timeout=120)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def most_memory(front) -> int:
    """The most that the front's process has held so far, in bytes."""
    status = Path(f"/proc/{front.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def test_a_small_grpc_message_that_unpacks_to_200_mb(front):
    request = click_request()
    request.raw_input_contents[0] = strings(bytes(200_000_000))
    before = most_memory(front)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(
        front.grpc_url, options, compression=grpc.Compression.Gzip
    ) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request, timeout=120)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    print("grew by", most_memory(front) - before)
    assert most_memory(front) - before < 120_000_000
