"""How often and how long: the gateway's rate for each key, and its patience with the server."""

import shutil
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import urllib3
from deploy.gateway import GatewaySettings, make_certificates, render
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.docker.deploy.conftest import ClosedServer
from tests.docker.deploy.gateways import (
    ALICE,
    BOB,
    INFER,
    PATIENCE_SECONDS,
    answer_one_request,
    complaints,
    gateway_before_a_socket,
    gateway_settings,
    needs_nginx,
    running_gateway,
    write_gateway,
)
from tests.running_front import RunningFront


@pytest.mark.server
@needs_nginx
def test_too_many_requests_are_429_for_that_key_alone(
    closed_server: ClosedServer, tmp_path: Path
) -> None:
    """The front counts them; its word comes through as it is."""
    keys = tmp_path / "api_keys"
    keys.write_text(f"alice {ALICE}\nbob {BOB}\n")
    options = ("--api-keys", str(keys), "--requests-per-second", "0.1", "--burst", "5")
    with RunningFront(closed_server.running.grpc_url, tmp_path / "front", *options) as front:
        settings = gateway_settings(tmp_path, front.http_url, front.grpc_url)
        with running_gateway(settings) as gateway:

            def ask(key: str) -> urllib3.BaseHTTPResponse:
                return gateway.http("POST", INFER, b"{}", x_api_key=key)

            assert [ask(ALICE).status for _ in range(5)] == [400] * 5
            refused = [ask(ALICE) for _ in range(10)]
            assert refused[-1].status == 429
            assert "requests_per_second" in refused[-1].json()["error"]
            assert ask(BOB).status == 400
            metadata = (("x-api-key", ALICE),)
            with gateway.channel() as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                messages = iter([service_pb2.ModelInferRequest(model_name="sam2")] * 3)
                answers = list(stub.ModelStreamInfer(messages, metadata=metadata))
            assert all("requests_per_second" in answer.error_message for answer in answers)


@needs_nginx
def test_slow_senders_take_a_keys_places_and_nobody_elses(tmp_path: Path) -> None:
    with gateway_before_a_socket(tmp_path, connections_at_once=1) as (gateway, upstream):
        context = ssl.create_default_context(cafile=gateway.ca_file)
        with (
            socket.create_connection(("localhost", gateway.port), PATIENCE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as slow,
            ThreadPoolExecutor(1) as pool,
        ):
            head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX-API-Key: {ALICE}"
            slow.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
            # nginx asks for the body: this one has its place.
            assert slow.recv(1000).startswith(b"HTTP/1.1 100")
            assert gateway.http("POST", INFER, b"{}", x_api_key=ALICE).status == 429
            sent = pool.submit(gateway.http, "POST", INFER, b"{}", x_api_key=BOB)
            answer_one_request(upstream, end=b"{}")
            assert sent.result().status == 200


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
