"""The gateway's real configuration under Debian's nginx, before a real server, over TLS."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import urllib3
from deploy.gateway import (
    GatewaySettings,
    make_certificates,
    read_api_keys,
    render,
    render_api_keys,
)
from sam2_server.process import ADMIN_KEY_HEADER
from triton_sam2 import SAM2TritonClient
from tritonclient import grpc as triton_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.docker.deploy.conftest import ClosedServer
from tests.running_server import ROOT

IMAGE = ROOT / "client/examples/images/coins.png"
KEY = "test-key-of-alice-0123456789abcdef"
# Debian puts it where users without privileges do not look.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx: apt-get install nginx-light")


@dataclass(frozen=True)
class Gateway:
    port: int
    directory: Path

    @property
    def ca_file(self) -> str:
        return str(self.directory / "ca.pem")

    @property
    def log(self) -> str:
        return (self.directory / "access.log").read_text()

    def http(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        with urllib3.PoolManager(ca_certs=self.ca_file, retries=False, timeout=30) as pool:
            return pool.request(
                method,
                f"https://localhost:{self.port}{path}",
                body=body,
                headers={name.replace("_", "-"): value for name, value in headers.items()},
            )

    def channel(self) -> grpc.Channel:
        authority = Path(self.ca_file).read_bytes()
        return grpc.secure_channel(
            f"localhost:{self.port}", grpc.ssl_channel_credentials(authority)
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _settings(directory: Path, port: int, http: str, grpc: str) -> GatewaySettings:
    return GatewaySettings(
        listen=f"127.0.0.1:{port}",
        upstream_http=http,
        upstream_grpc=grpc,
        config_dir=str(directory),
        runtime_dir=str(directory / "run"),
        access_log=str(directory / "access.log"),
        workers="1",
        # An image of 80 MB for each test would be slow; the mechanism is the same.
        max_body="1m",
        # Slow enough that a busy machine does not refill it as fast as a test sends.
        requests_per_second="1r/s",
        burst=40,
    )


def _write(directory: Path, settings: GatewaySettings) -> None:
    (directory / "run").mkdir(exist_ok=True)
    (directory / "api_keys.conf").write_text(render_api_keys({"alice": KEY}))
    (directory / "nginx.conf").write_text(render(settings))


@contextmanager
def _running(settings: GatewaySettings) -> Iterator[Gateway]:
    directory, port = Path(settings.config_dir), int(settings.listen.rpartition(":")[2])
    make_certificates(directory, ["localhost", "127.0.0.1"])
    shutil.copy(directory / "ca.pem", directory / "client_ca.pem")
    _write(directory, settings)
    assert NGINX is not None
    # Started by root it gives its work to another user, who cannot get at this directory.
    main_settings = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    process = subprocess.Popen(
        [NGINX, "-c", directory / "nginx.conf", "-e", "stderr", "-g", main_settings]
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None, "nginx ended"
            assert time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield Gateway(port, directory)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def gateway(
    closed_server: ClosedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("gateway")
    running = closed_server.running
    with _running(
        _settings(directory, _free_port(), running.http_url, running.grpc_url)
    ) as started:
        yield started


@needs_nginx
def test_the_server_gets_whole_bodies_that_are_no_forms(tmp_path: Path) -> None:
    """In one piece, under one length, whatever the sender's chunks and headers were."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        address = f"127.0.0.1:{upstream.getsockname()[1]}"
        with (
            _running(_settings(tmp_path, _free_port(), address, address)) as gateway,
            ThreadPoolExecutor(1) as pool,
        ):
            sent = pool.submit(
                gateway.http,
                "POST",
                "/v2/models/sam2/infer",
                iter([b"{"] * 500),  # chunks of one byte
                x_api_key=KEY,
                content_type="application/x-www-form-urlencoded",
                inference_header_content_length="500",
            )
            connection, _ = upstream.accept()
            with connection:
                connection.settimeout(20)
                got = b""
                while not got.endswith(b"{" * 500):
                    more = connection.recv(1 << 16)
                    assert more, got
                    got += more
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            assert sent.result().status == 200
    head = got.partition(b"\r\n\r\n")[0].decode().lower().splitlines()
    assert "content-type: application/octet-stream" in head
    assert "content-length: 500" in head
    assert head.count("inference-header-content-length: 500") == 1
    assert not any(line.startswith(("transfer-encoding", "x-api-key")) for line in head)


@pytest.mark.server
@needs_nginx
class TestThroughTheGateway:
    @pytest.mark.parametrize("header", ["x-api-key", "authorization"])
    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_a_call_with_a_key_brings_a_mask(
        self, gateway: Gateway, scheme: str, header: str
    ) -> None:
        value = KEY if header == "x-api-key" else f"Bearer {KEY}"
        client = SAM2TritonClient(
            f"{scheme}://localhost:{gateway.port}",
            headers={header: value},
            ca_file=gateway.ca_file,
        )
        masks, _ = client.segment(str(IMAGE), [[109, 199]], [1])
        assert masks.shape == (1, 1, 303, 384)
        assert 800 < (masks > 0).sum() < 6000
        client.set_image(str(IMAGE))
        again, _ = client.predict([[109, 199]], [1])
        np.testing.assert_array_equal(masks, again)

    @pytest.mark.parametrize("headers", [{}, {"x_api_key": KEY[:-1]}, {"authorization": KEY}])
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v2/models/sam2/infer"),
            ("GET", "/v2/health/ready"),
            ("GET", "/nowhere"),
            ("POST", "/v2/repository/index"),
        ],
    )
    def test_http_without_a_key_is_401(
        self, gateway: Gateway, method: str, path: str, headers: dict[str, str]
    ) -> None:
        response = gateway.http(method, path, **headers)
        assert response.status == 401
        assert "API key" in response.json()["error"]

    def test_http_with_a_key_is_200(self, gateway: Gateway) -> None:
        for path in ("/v2/health/ready", "/v2", "/v2/models/sam2", "/v2/models/sam2/ready"):
            assert gateway.http("GET", path, x_api_key=KEY).status == 200, path

    def test_http_oversized_is_413(self, gateway: Gateway) -> None:
        path = "/v2/models/sam2/infer"
        response = gateway.http("POST", path, bytes((1 << 20) + 1), x_api_key=KEY)
        assert response.status == 413
        assert "larger" in response.json()["error"]

    def test_json_of_a_megabyte_is_413_and_of_unknown_length_411(self, gateway: Gateway) -> None:
        """Triton's parser recurses into it."""
        path = "/v2/models/sam2/infer"
        for body, headers, status in (
            (b"[" * 1_000_000, {}, 413),
            (b"[" * 1_000, {"inference_header_content_length": "1000000"}, 413),
            (b"[" * 1_000, {"inference_header_content_length": "-1"}, 413),
            (b"[" * 999_999, {}, 500),  # Triton's own answer to what is not JSON
            (iter([b"[" * 1_000]), {}, 411),
        ):
            response = gateway.http("POST", path, body, x_api_key=KEY, **headers)
            assert response.status == status, (headers, response.data)
            assert response.json()["error"]
        assert gateway.http("GET", "/v2/health/ready", x_api_key=KEY).status == 200

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v2/repository/index"),
            ("POST", "/v2/repository/models/sam2_encoder/load"),
            ("POST", "/v2/repository/models/sam2/unload"),
            ("GET", "/v2/models/sam2/config"),
            ("GET", "/v2/models/sam2/stats"),
            ("GET", "/v2/models/stats"),
            ("GET", "/v2/systemsharedmemory/status"),
            ("POST", "/v2/systemsharedmemory/region/x/register"),
            ("POST", "/v2/cudasharedmemory/region/x/register"),
            ("GET", "/v2/trace/setting"),
            ("POST", "/v2/logging"),
            ("POST", "/v2/models/sam2_decoder/infer"),
            ("POST", "/v2/models/sam2/versions/1/infer"),
            ("GET", "/metrics"),
            ("GET", "/v2/../v2/repository/index"),
            ("POST", "/v2/models/sam2/infer/../../../repository/index"),
            ("POST", "/v2/models/sam2%2Finfer/%2e%2e/%2e%2e/%2e%2e/repository/index"),
        ],
    )
    def test_http_administration_never_passes(
        self, gateway: Gateway, closed_server: ClosedServer, method: str, path: str
    ) -> None:
        headers = {"x_api_key": KEY, ADMIN_KEY_HEADER: closed_server.key}
        assert gateway.http(method, path, b"{}", **headers).status == 404

    def test_a_wrong_method_does_not_pass(self, gateway: Gateway) -> None:
        assert gateway.http("GET", "/v2/models/sam2/infer", x_api_key=KEY).status == 404
        assert gateway.http("POST", "/v2/models/sam2", b"{}", x_api_key=KEY).status == 404

    def test_grpc_without_a_key_is_unauthenticated(self, gateway: Gateway) -> None:
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for call, request in (
                (stub.ServerReady, service_pb2.ServerReadyRequest()),
                (stub.ModelInfer, service_pb2.ModelInferRequest(model_name="sam2")),
                (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    call(request, timeout=10)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
                assert "API key" in refused.value.details()

    def test_grpc_administration_never_passes(
        self, gateway: Gateway, closed_server: ClosedServer
    ) -> None:
        admin = f"triton-grpc-protocol-{ADMIN_KEY_HEADER}"
        metadata = (("x-api-key", KEY), (admin, closed_server.key))
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(
                service_pb2.ServerReadyRequest(), metadata=metadata, timeout=10
            ).ready
            for call, request in (
                (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
                (
                    stub.RepositoryModelLoad,
                    service_pb2.RepositoryModelLoadRequest(model_name="sam2_encoder"),
                ),
                (stub.ModelConfig, service_pb2.ModelConfigRequest(name="sam2")),
                (stub.ModelStatistics, service_pb2.ModelStatisticsRequest(name="sam2")),
                (stub.SystemSharedMemoryStatus, service_pb2.SystemSharedMemoryStatusRequest()),
                (stub.CudaSharedMemoryStatus, service_pb2.CudaSharedMemoryStatusRequest()),
                (stub.TraceSetting, service_pb2.TraceSettingRequest()),
                (stub.LogSettings, service_pb2.LogSettingsRequest()),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    call(request, metadata=metadata, timeout=10)
                assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED

    def test_grpc_oversized_is_resource_exhausted(self, gateway: Gateway) -> None:
        inputs = [triton_grpc.InferInput("image", [1], "BYTES")]
        inputs[0].set_data_from_numpy(np.array([bytes(3 << 20)], np.object_))
        with (
            triton_grpc.InferenceServerClient(
                f"localhost:{gateway.port}", ssl=True, root_certificates=gateway.ca_file
            ) as client,
            pytest.raises(triton_grpc.InferenceServerException) as refused,
        ):
            client.infer("sam2", inputs, headers={"x-api-key": KEY}, client_timeout=20)
        assert "RESOURCE_EXHAUSTED" in str(refused.value.status()), refused.value

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
    def test_no_plain_text_and_no_old_tls(self, gateway: Gateway) -> None:
        with urllib3.PoolManager(retries=False, timeout=10) as pool:
            answer = pool.request("GET", f"http://localhost:{gateway.port}/v2/health/ready")
        assert answer.status == 400
        context = ssl.create_default_context(cafile=gateway.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with (
            socket.create_connection(("127.0.0.1", gateway.port)) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
        ):
            context.wrap_socket(plain, server_hostname="localhost")

    def test_too_many_requests_are_429_and_another_time_welcome(self, gateway: Gateway) -> None:
        def status(_: int) -> int:
            return gateway.http("POST", "/v2/models/sam2/infer", b"{}", x_api_key=KEY).status

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(status, range(80)))
        # The server's own word on a request without tensors: the gateway let it through.
        passed = [status for status in statuses if status != 429]
        assert set(passed) <= {400, 500}
        assert 15 <= len(passed) < 80
        deadline = time.monotonic() + 20
        while status(0) == 429:
            assert time.monotonic() < deadline
            time.sleep(0.5)

    def test_the_log_names_clients_and_holds_no_key(self, gateway: Gateway) -> None:
        gateway.http("GET", f"/v2/health/ready?token={KEY}", x_api_key=KEY)
        time.sleep(0.1)
        assert 'client="alice" GET /v2/health/ready 200' in gateway.log
        assert 'client="" ' in gateway.log
        assert KEY not in gateway.log
        assert KEY[:-1] not in gateway.log


@needs_nginx
def test_a_silent_server_costs_a_second_and_strangers_need_a_certificate(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = replace(
            _settings(tmp_path, _free_port(), address, address),
            answer_timeout="1s",
            client_certificates=True,
        )
        with _running(settings) as gateway:
            assert gateway.http("GET", "/v2", x_api_key=KEY).status == 400
            certificate = {
                "cert_file": str(tmp_path / "server.pem"),
                "key_file": str(tmp_path / "server.key"),
            }
            url = f"https://localhost:{gateway.port}/v2"
            started = time.monotonic()
            with urllib3.PoolManager(
                ca_certs=gateway.ca_file, retries=False, timeout=20, **certificate
            ) as pool:
                assert pool.request("GET", url).status == 401
                answer = pool.request("GET", url, headers={"x-api-key": KEY})
            assert answer.status == 503
            assert "does not answer" in answer.json()["error"]
            credentials = grpc.ssl_channel_credentials(
                Path(gateway.ca_file).read_bytes(),
                (tmp_path / "server.key").read_bytes(),
                (tmp_path / "server.pem").read_bytes(),
            )
            with (
                grpc.secure_channel(f"localhost:{gateway.port}", credentials) as channel,
                pytest.raises(grpc.RpcError) as refused,
            ):
                service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerReady(
                    service_pb2.ServerReadyRequest(), metadata=(("x-api-key", KEY),), timeout=20
                )
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - started < 15


@needs_nginx
def test_the_deployed_configuration_is_valid(tmp_path: Path) -> None:
    assert NGINX is not None
    make_certificates(tmp_path, ["gpu7.example", "192.0.2.7"])
    shutil.copy(tmp_path / "ca.pem", tmp_path / "client_ca.pem")
    for settings in (GatewaySettings(), GatewaySettings(client_certificates=True)):
        # Names of the container's network do not resolve here.
        here = replace(
            settings,
            config_dir=str(tmp_path),
            runtime_dir=str(tmp_path / "run"),
            upstream_http="127.0.0.1:8000",
            upstream_grpc="127.0.0.1:8001",
            access_log=str(tmp_path / "access.log"),
        )
        _write(tmp_path, here)
        done = subprocess.run(
            [NGINX, "-t", "-c", tmp_path / "nginx.conf", "-e", "stderr"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("ssl_verify_client on" in render(here)) == settings.client_certificates


def test_a_key_file_cannot_break_out_of_the_configuration() -> None:
    assert read_api_keys(f"# ours\n\nalice {KEY}\nbob {KEY}2 # his\n") == {
        "alice": KEY,
        "bob": f"{KEY}2",
    }
    for text in ("alice", f"alice {KEY} more", f"alice {KEY}\nalice {KEY}"):
        with pytest.raises(ValueError, match="expected NAME KEY"):
            read_api_keys(text)
    with pytest.raises(ValueError, match="API key of alice"):
        render_api_keys({"alice": "short"})
    with pytest.raises(ValueError, match="API key of alice"):
        render_api_keys({"alice": f'{KEY}" "root"; #'})
    with pytest.raises(ValueError, match="client name"):
        render_api_keys({'a";': KEY})
