"""Which calls pass the gateway: inference, health and metadata, in one spelling each."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from sam2_server.process import ADMIN_KEY_HEADER
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.docker.deploy.conftest import ClosedServer
from tests.docker.deploy.gateways import (
    ALICE,
    INFER,
    PATIENCE_SECONDS,
    Gateway,
    answer_one_request,
    gateway_before_a_socket,
    needs_nginx,
)

# Ways to write what the gateway would pass, so that the server could read something else in it.
SPELLINGS = [
    "/v2/repository/index/../../models/sam2/infer",
    "/v2/models/sam2/infer#/v2/repository/index",
    "/v2/models/sam2/infer%23/v2/repository/index",
    "/v2//models/sam2/infer",
    "//v2/models/sam2/infer",
    "/v2/models/./sam2/infer",
    "/v2/models/sam2/x/../infer",
    "/v2/models/sam2_decoder/../sam2/infer",
    "/v2/models/sam%32/infer",
    "/v2/models/%73am2/infer",
    "/v2/models/sam2%2finfer",
    "/v2/models/sam2/infer%0a",
    "/v2/models/sam2/infer%00",
    "/v2/models/sam2/infer/",
    "/v2/models/sam2/infer;x",
    "/V2/models/sam2/infer",
    "/v1//segment",
    "/v1/images/../segment",
    "/v1/%73egment",
]


@pytest.mark.server
@needs_nginx
class TestThroughTheGateway:
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
            ("POST", "/v2/models/sam2/generate"),
            ("GET", "/docs"),
            ("POST", "/v1/segment/../../v2/repository/index"),
            ("DELETE", "/v1/images/../../v2/repository/index"),
            ("POST", "/v1/images/x"),
            ("GET", "/metrics"),
            ("GET", "/v2/../v2/repository/index"),
            ("GET", "/v2?/../repository/index#"),
            ("POST", "/v2/models/sam2/infer/../../../repository/index"),
            ("POST", "/v2/models/sam2%2Finfer/%2e%2e/%2e%2e/%2e%2e/repository/index"),
        ],
    )
    def test_http_administration_never_passes(
        self, gateway: Gateway, closed_server: ClosedServer, method: str, path: str
    ) -> None:
        keys = (("x-api-key", ALICE), (ADMIN_KEY_HEADER, closed_server.key))
        status, body = gateway.as_written(method, path, *keys, body=b"{}")
        if path.startswith("/v2?"):  # what follows is no path
            assert (status, b'"name":"triton-sam2"' in body) == (200, True)
        else:
            assert status == 404

    @pytest.mark.parametrize("path", SPELLINGS)
    def test_a_path_has_one_spelling(self, gateway: Gateway, path: str) -> None:
        status, body = gateway.as_written("POST", path, ("x-api-key", ALICE), body=b"{}")
        # nginx itself refuses what is no path at all; nothing reaches the server.
        word = {404: b"the gateway passes", 400: b"400 Bad Request"}[status]
        assert word in body

    def test_the_right_spelling_reaches_the_server(self, gateway: Gateway) -> None:
        _, body = gateway.as_written("POST", INFER, ("x-api-key", ALICE), body=b"{}")
        assert b"inputs: expected" in body  # the front's word on a request without any

    def test_a_wrong_method_does_not_pass(self, gateway: Gateway) -> None:
        assert gateway.http("GET", INFER, x_api_key=ALICE).status == 404
        assert gateway.http("POST", "/v2/models/sam2", b"{}", x_api_key=ALICE).status == 404
        # No cross-origin calls: a browser's question in advance is refused like any other method.
        answer = gateway.http("OPTIONS", INFER, x_api_key=ALICE, origin="https://page.example")
        assert answer.status == 404
        assert "access-control-allow-origin" not in answer.headers

    @pytest.mark.parametrize("path", [INFER, "/v1/segment", "/v1/everything", "/v1/images/x"])
    def test_a_browsers_question_in_advance_is_the_fronts_to_answer(
        self, gateway: Gateway, path: str
    ) -> None:
        """Without a key, as browsers ask; this front has no origins."""
        asked = {"origin": "https://page.example", "access_control_request_method": "POST"}
        answer = gateway.http("OPTIONS", path, bytes(1000), **asked)
        assert answer.status == 405
        assert "no such method" in answer.json()["error"]
        assert "access-control-allow-origin" not in answer.headers
        for method in ("GET", "POST", "DELETE"):
            assert gateway.http(method, path, b"{}", **asked).status in (401, 404)

    def test_grpc_administration_never_passes(
        self, gateway: Gateway, closed_server: ClosedServer
    ) -> None:
        admin = f"triton-grpc-protocol-{ADMIN_KEY_HEADER}"
        metadata = (("x-api-key", ALICE), (admin, closed_server.key))
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(
                service_pb2.ServerReadyRequest(), metadata=metadata, timeout=PATIENCE_SECONDS
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
                    call(request, metadata=metadata, timeout=PATIENCE_SECONDS)
                assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED

    @pytest.mark.parametrize(
        "method",
        [
            "/inference.GRPCInferenceService/RepositoryIndex/../ServerReady",
            "//inference.GRPCInferenceService/ServerReady",
            "/inference.GRPCInferenceService//ServerReady",
            "/inference.GRPCInferenceService/%53erverReady",
            "/inference.GRPCInferenceService/ServerReady?x",
            "/inference.GRPCInferenceService/ServerReady%0a",
        ],
    )
    def test_a_grpc_method_has_one_spelling(self, gateway: Gateway, method: str) -> None:
        with gateway.channel() as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(
                b"", metadata=(("x-api-key", ALICE),), timeout=PATIENCE_SECONDS
            )
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "the gateway passes" in refused.value.details()


@needs_nginx
def test_the_server_sees_the_path_that_was_checked_and_no_query(tmp_path: Path) -> None:
    with gateway_before_a_socket(tmp_path) as (gateway, upstream), ThreadPoolExecutor(1) as pool:
        target = "/v2/models/sam2?/../../../repository/index"
        sent = pool.submit(gateway.as_written, "GET", target, ("x-api-key", ALICE))
        head = answer_one_request(upstream, end=b"\r\n\r\n")
        assert sent.result()[0] == 200
    assert head[0] == "get /v2/models/sam2 http/1.1"
