"""How often and how long: the gateway's rate for each key, and its patience with the server."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from deploy.gateway import GatewaySettings, make_certificates, render
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.docker.deploy.conftest import ClosedServer
from tests.docker.deploy.gateways import (
    ALICE,
    BOB,
    INFER,
    PATIENCE_SECONDS,
    complaints,
    gateway_before_a_socket,
    gateway_settings,
    needs_nginx,
    running_gateway,
    write_gateway,
)


@pytest.mark.server
@needs_nginx
def test_too_many_requests_are_429_for_that_key_and_another_time_welcome(
    closed_server: ClosedServer, tmp_path: Path
) -> None:
    server = closed_server.running
    settings = replace(
        gateway_settings(tmp_path, server.http_url, server.grpc_url),
        # Far slower than any machine sends.
        requests_per_second="12r/m",
        burst=5,
    )
    with running_gateway(settings) as gateway:

        def status(key: str) -> int:
            return gateway.http("POST", INFER, b"{}", x_api_key=key).status

        # The server's own word on a request without tensors: the gateway let it through.
        assert {status(ALICE) for _ in range(1 + settings.burst)} <= {400, 500}
        # One more is one too many, unless this machine took five seconds for those.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while status(ALICE) != 429:
            assert time.monotonic() < deadline
        response = gateway.http("POST", INFER, b"{}", x_api_key=ALICE)
        while response.status != 429:
            assert time.monotonic() < deadline
            response = gateway.http("POST", INFER, b"{}", x_api_key=ALICE)
        assert "try again later" in response.json()["error"]
        assert status(BOB) != 429
        deadline = time.monotonic() + PATIENCE_SECONDS
        while status(ALICE) == 429:
            assert time.monotonic() < deadline
            time.sleep(0.5)


@needs_nginx
def test_a_silent_server_is_unavailable(tmp_path: Path) -> None:
    with gateway_before_a_socket(tmp_path, answer_timeout="1s") as (gateway, _):
        answer = gateway.http("GET", "/v2", x_api_key=ALICE)
        assert answer.status == 503
        assert "does not answer" in answer.json()["error"]
        with gateway.channel() as channel, pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerReady(
                service_pb2.ServerReadyRequest(),
                metadata=(("x-api-key", ALICE),),
                timeout=PATIENCE_SECONDS,
            )
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


@needs_nginx
def test_the_deployed_configuration_is_valid(tmp_path: Path) -> None:
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
        write_gateway(here)
        assert complaints(here) is None
        assert ("ssl_verify_client on" in render(here)) == settings.client_certificates
