"""Who gets through the gateway: API keys, client certificates, TLS; and what its log holds of them."""

import socket
import ssl
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import urllib3
from deploy.errors import DeployError
from deploy.files import DeployDir, Deployment
from deploy.gateway import render_api_keys
from front.api_keys import ApiKey, ApiKeysError, read_api_keys
from triton_sam2 import SAM2TritonClient
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.docker.deploy.gateways import (
    ALICE,
    BOB,
    PATIENCE_SECONDS,
    Gateway,
    gateway_before_a_socket,
    needs_nginx,
)
from tests.running_server import ROOT

IMAGE = ROOT / "client/examples/images/coins.png"


@pytest.mark.server
@needs_nginx
class TestThroughTheGateway:
    @pytest.mark.parametrize("header", ["x-api-key", "authorization"])
    @pytest.mark.parametrize("scheme", ["grpcs", "https"])
    def test_a_call_with_a_key_brings_a_mask(
        self, gateway: Gateway, scheme: str, header: str
    ) -> None:
        value = ALICE if header == "x-api-key" else f"Bearer {ALICE}"
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

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"x_api_key": ALICE[:-1]},
            {"x_api_key": ALICE + "0"},
            {"authorization": ALICE},
            # nginx finds plain strings whatever their case.
            {"x_api_key": ALICE.upper()},
            {"x_api_key": BOB.lower()},
            {"x_api_key": BOB.swapcase()},
            {"authorization": f"Bearer {ALICE.upper()}"},
        ],
    )
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v2/models/sam2/infer"),
            ("GET", "/v2/health/ready"),
            ("GET", "/nowhere"),
            ("POST", "/v2/repository/index"),
        ],
    )
    def test_http_without_a_right_key_is_401(
        self, gateway: Gateway, method: str, path: str, headers: dict[str, str]
    ) -> None:
        response = gateway.http(method, path, **headers)
        assert response.status == 401
        assert "API key" in response.json()["error"]

    @pytest.mark.parametrize("key", [ALICE, BOB])
    def test_http_with_a_key_is_200(self, gateway: Gateway, key: str) -> None:
        for path in ("/v2/health/ready", "/v2", "/v2/models/sam2", "/v2/models/sam2/ready"):
            assert gateway.http("GET", path, x_api_key=key).status == 200, path

    @pytest.mark.parametrize("metadata", [(), (("x-api-key", ALICE.upper()),)])
    def test_grpc_without_a_right_key_is_unauthenticated(
        self, gateway: Gateway, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for call, request in (
                (stub.ServerReady, service_pb2.ServerReadyRequest()),
                (stub.ModelInfer, service_pb2.ModelInferRequest(model_name="sam2")),
                (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    call(request, metadata=metadata, timeout=PATIENCE_SECONDS)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
                assert "API key" in refused.value.details()
            stream = stub.ModelStreamInfer(iter(()), metadata=metadata, timeout=PATIENCE_SECONDS)
            with pytest.raises(grpc.RpcError) as refused:
                next(stream)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
    def test_no_plain_text_and_no_old_tls(self, gateway: Gateway) -> None:
        with urllib3.PoolManager(retries=False, timeout=PATIENCE_SECONDS) as pool:
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

    def test_the_log_names_clients_and_holds_no_key(self, gateway: Gateway) -> None:
        gateway.http("GET", "/v2/health/ready?stranger")
        gateway.http("GET", f"/v2/health/ready?token={ALICE}", x_api_key=ALICE)
        # nginx writes a line once the answer is sent.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while 'client="alice" GET /v2/health/ready 200' not in gateway.log:
            assert time.monotonic() < deadline, gateway.log
            time.sleep(0.05)
        assert 'client="" GET /v2/health/ready 401' in gateway.log
        assert ALICE[:-1].lower() not in gateway.log.lower()


@needs_nginx
def test_strangers_need_a_certificate_as_well(tmp_path: Path) -> None:
    with gateway_before_a_socket(tmp_path, client_certificates=True) as (gateway, _):
        assert gateway.http("GET", "/v2", x_api_key=ALICE).status == 400
        with urllib3.PoolManager(
            ca_certs=gateway.ca_file,
            cert_file=str(tmp_path / "server.pem"),
            key_file=str(tmp_path / "server.key"),
            retries=False,
            timeout=PATIENCE_SECONDS,
        ) as pool:
            assert pool.request("GET", f"https://localhost:{gateway.port}/v2").status == 401


def test_a_key_file_cannot_break_out_of_the_configuration() -> None:
    keys = read_api_keys(f"# ours\n\nalice {ALICE}\nbob {BOB} guests # his\n")
    assert render_api_keys(keys) == f'"~^{ALICE}$" "alice";\n"~^{BOB}$" "bob";\n'
    for text in ("alice", f"alice {ALICE} guests more"):
        with pytest.raises(ApiKeysError, match="expected NAME KEY"):
            read_api_keys(text)
    # The last one would become a pattern.
    for key in ("short", f'{ALICE}"root";', ".*" * 20):
        with pytest.raises(ApiKeysError, match="alice: expected a key of"):
            ApiKey("alice", key, "alice")
    for name in ('a";', "", "x" * 65, ":probe"):
        with pytest.raises(ApiKeysError, match="expected names of"):
            ApiKey(name, ALICE, "alice")
        with pytest.raises(ApiKeysError, match="expected names of"):
            ApiKey("alice", ALICE, name)


def test_two_clients_cannot_have_one_key_but_keys_that_differ_in_case_are_two() -> None:
    for text in (f"alice {ALICE}\nbob {ALICE}", f"alice {ALICE}\nalice {BOB}"):
        with pytest.raises(ApiKeysError, match="line 2: expected each name and each key once"):
            read_api_keys(text)
    both = read_api_keys(f"alice {ALICE}\nbob {ALICE.upper()}")
    assert render_api_keys(both).count("\n") == 2


def test_a_deployment_says_which_line_is_wrong(tmp_path: Path) -> None:
    deploy_dir = DeployDir(tmp_path / "deployment")
    deployment = Deployment("demo", None, ["cpu", "secure"])
    deploy_dir.prepare(deployment)
    (deploy_dir.path / "secrets/api_keys").write_text(f"alice {ALICE}\nbob short\n")
    with pytest.raises(DeployError, match="api_keys: line 2: bob: expected a key of"):
        deploy_dir.prepare(deployment)
