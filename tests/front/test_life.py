"""How a front begins and ends, what happens to work that nobody waits for, several workers."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2_grpc

from tests.front.conftest import log_lines, written_keys
from tests.front.samples import click_request
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.photographs import photograph
from tests.raw_client import RawClient, bytes_tensor, click
from tests.running_front import RunningFront
from tests.running_server import ROOT

pytestmark = pytest.mark.server


class WaitingTriton(grpc.GenericRpcHandler):
    """In Triton's place: describes the models, holds each inference until it is let go or cancelled."""

    def __init__(self):
        self.go, self.cancelled, self.arrived = (threading.Event() for _ in range(3))

    def service(self, details):
        from tests.front.samples import metadata

        if details.method.endswith("/ModelMetadata"):
            return grpc.unary_unary_rpc_method_handler(
                lambda _request, _context: metadata("sam2").SerializeToString()
            )
        if details.method.endswith("/ModelInfer"):
            return grpc.unary_unary_rpc_method_handler(self._infer)
        return None

    def _infer(self, _request, context):
        context.add_callback(lambda: context.is_active() or self.cancelled.set())
        self.arrived.set()
        self.go.wait(PATIENCE_SECONDS)
        return b""


@pytest.fixture
def waiting_triton():
    from concurrent.futures import ThreadPoolExecutor

    triton = WaitingTriton()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[triton])
    triton.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield triton
    triton.go.set()
    server.stop(0)


@pytest.fixture
def waiting_front(waiting_triton, tmp_path):
    with RunningFront(waiting_triton.url, tmp_path) as front:
        yield front


def http_request() -> bytes:
    inputs = [
        {"name": "image_id", "shape": [1], "datatype": "BYTES", "data": ["x"]},
        {"name": "box", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 2, 2]},
    ]
    body = json.dumps({"inputs": inputs}).encode()
    head = f"POST /v2/models/sam2/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_client_that_hangs_up_ends_its_work(waiting_triton, waiting_front):
    host, port = waiting_front.http_url.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(http_request())
        assert waiting_triton.arrived.wait(PATIENCE_SECONDS)
    assert waiting_triton.cancelled.wait(PATIENCE_SECONDS)
    wait_until(
        lambda: any(line.get("status") == "CANCELLED" for line in log_lines(waiting_front)),
        "the log to say so",
    )


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_grpc_call_that_is_cancelled_ends_its_work(waiting_triton, waiting_front, method):
    with grpc.insecure_channel(waiting_front.grpc_url) as channel:
        call = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")(
            iter([click_request().SerializeToString()])
        )
        assert waiting_triton.arrived.wait(PATIENCE_SECONDS)
        call.cancel()
        assert waiting_triton.cancelled.wait(PATIENCE_SECONDS)


def test_a_deadline_is_tritons_too(waiting_triton, waiting_front):
    with grpc.insecure_channel(waiting_front.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(click_request(), timeout=0.3)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert waiting_triton.cancelled.wait(PATIENCE_SECONDS)


def test_asked_to_stop_it_finishes_what_it_has_begun(waiting_triton, tmp_path):
    with RunningFront(waiting_triton.url, tmp_path) as front:
        host, port = front.http_url.split(":")
        with socket.create_connection((host, int(port)), PATIENCE_SECONDS) as connection:
            connection.sendall(http_request())
            assert waiting_triton.arrived.wait(PATIENCE_SECONDS)
            front.process.send_signal(signal.SIGTERM)
            # Others are refused meanwhile.
            with grpc.insecure_channel(front.grpc_url) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                wait_until(lambda: _status(stub) == "UNAVAILABLE", "new requests to be refused")
            assert front.process.poll() is None
            waiting_triton.go.set()
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert front.stop() == 0


def _status(stub):
    try:
        stub.ModelInfer(click_request(), timeout=1)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def test_without_triton_it_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with RunningFront(address, tmp_path) as front:
        with grpc.insecure_channel(front.grpc_url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(click_request())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert address not in refused.value.details()


def test_workers_share_ports_and_are_replaced(server, tmp_path):
    ports = []
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(sock.getsockname()[1])
    # The last port given wins, and the metrics of two workers want two.
    options = ("--workers", "2", "--http-port", str(ports[0]), "--grpc-port", str(ports[1]))
    options += ("--metrics-port", str(ports[2]))
    with RunningFront(server.grpc_url, tmp_path, *options) as front:
        wait_until(lambda: front.output().count("front ready") == 2, "both workers")
        image = bytes_tensor(photograph("coins.png"))
        for protocol in ("grpc", "http"):
            assert RawClient(front, protocol).infer(image=image, **click(109, 199))["masks"].any()
        workers = [
            child
            for child in psutil.Process(front.process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        os.kill(workers[0].pid, signal.SIGKILL)
        wait_until(lambda: front.output().count("front ready") == 3, "another worker")
        assert RawClient(front, "http").infer(image=image, **click(109, 199))["masks"].any()
        assert front.stop() == 0
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize("text", ["alice", "alice short", "a b c d e"])
def test_keys_that_cannot_be_used_end_the_start(tmp_path, text):
    done = subprocess.run(
        [sys.executable, "-m", "front", "--api-keys", written_keys(tmp_path, text)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "client"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "line 1:" in done.stderr
    assert "expected" in done.stderr


def test_five_hundred_idle_connections_disturb_nobody(front):
    host, port = front.http_url.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(socket.create_connection((host, int(port))))
        found = RawClient(front, "http").infer(
            image=bytes_tensor(photograph("coins.png")), **click(109, 199)
        )
    assert found["masks"].any()
