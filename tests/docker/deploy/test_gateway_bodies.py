"""What a request may carry through the gateway: its size, its pieces, its compression."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient import grpc as triton_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.docker.deploy.gateways import (
    ALICE,
    INFER,
    PATIENCE_SECONDS,
    Gateway,
    answer_one_request,
    gateway_before_a_socket,
    needs_nginx,
)


@needs_nginx
def test_the_server_gets_whole_bodies_that_are_no_forms(tmp_path: Path) -> None:
    """In one piece, under one length, whatever the sender's chunks and headers were."""
    with gateway_before_a_socket(tmp_path) as (gateway, upstream), ThreadPoolExecutor(1) as pool:
        sent = pool.submit(
            gateway.http,
            "POST",
            INFER,
            iter([b"{"] * 500),  # chunks of one byte
            x_api_key=ALICE,
            content_type="application/x-www-form-urlencoded",
            inference_header_content_length="500",
        )
        head = answer_one_request(upstream, end=b"{" * 500)
        assert sent.result().status == 200
    assert "content-type: application/octet-stream" in head
    assert "content-length: 500" in head
    assert head.count("inference-header-content-length: 500") == 1
    assert not any(line.startswith(("transfer-encoding", "x-api-key")) for line in head)


@needs_nginx
@pytest.mark.parametrize("encodings", [("identity",), ("identity", "gzip")])
def test_the_server_hears_of_no_encoding(tmp_path: Path, encodings: tuple[str, ...]) -> None:
    """Also where two headers say different things, and nginx looked at the first alone."""
    body = b"a body like any other"
    headers = [("content-encoding", encoding) for encoding in encodings]
    with gateway_before_a_socket(tmp_path) as (gateway, upstream), ThreadPoolExecutor(2) as pool:
        key = ("x-api-key", ALICE)
        sent = pool.submit(gateway.as_written, "POST", INFER, key, *headers, body=body)
        read = pool.submit(answer_one_request, upstream, body)
        if sent.result()[0] == 415:  # nginx from 1.23 on joins the two
            assert len(encodings) == 2
            assert gateway.as_written("POST", INFER, key, body=body)[0] == 200
        head = read.result()
    assert f"content-length: {len(body)}" in head
    assert not any(line.startswith("content-encoding") for line in head)


@pytest.mark.server
@needs_nginx
class TestThroughTheGateway:
    def test_http_oversized_is_413(self, gateway: Gateway) -> None:
        response = gateway.http("POST", INFER, bytes((1 << 20) + 1), x_api_key=ALICE)
        assert response.status == 413
        assert "larger" in response.json()["error"]

    def test_json_of_a_megabyte_is_413_and_of_unknown_length_411(self, gateway: Gateway) -> None:
        """Triton's parser recurses into it."""
        for body, headers, status in (
            (b"[" * 1_000_000, {}, 413),
            (b"[" * 1_000, {"inference_header_content_length": "1000000"}, 413),
            (b"[" * 1_000, {"inference_header_content_length": "-1"}, 413),
            (b"[" * 999_999, {}, 500),  # Triton's own answer to what is not JSON
            (iter([b"[" * 1_000]), {}, 411),
        ):
            response = gateway.http("POST", INFER, body, x_api_key=ALICE, **headers)
            assert response.status == status, (headers, response.data)
            assert response.json()["error"]
        assert gateway.http("GET", "/v2/health/ready", x_api_key=ALICE).status == 200

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity, gzip", "br"])
    def test_a_compressed_body_is_415(self, gateway: Gateway, encoding: str) -> None:
        """Three million brackets in 3 kB, which the server would unpack and recurse into."""
        bomb = gzip.compress(b"[" * 3_000_000, 9)
        assert len(bomb) < 10_000
        response = gateway.http("POST", INFER, bomb, x_api_key=ALICE, content_encoding=encoding)
        assert response.status == 415, response.data
        assert "uncompressed" in response.json()["error"]
        assert gateway.http("GET", "/v2/health/ready", x_api_key=ALICE).status == 200

    def test_compressed_messages_are_unimplemented(self, gateway: Gateway) -> None:
        """100 kB that would be 100 MB in the server, past every limit but Triton's own."""
        image = service_pb2.ModelInferRequest.InferInputTensor(
            name="image", datatype="BYTES", shape=[1]
        )
        content = bytes(100 << 20)
        request = service_pb2.ModelInferRequest(
            model_name="sam2",
            inputs=[image],
            raw_input_contents=[len(content).to_bytes(4, "little") + content],
        )
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for call, message in (
                (stub.ModelInfer, request),
                (stub.ModelReady, service_pb2.ModelReadyRequest(name="s" * (100 << 20))),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    call(
                        message,
                        metadata=(("x-api-key", ALICE),),
                        timeout=PATIENCE_SECONDS,
                        compression=grpc.Compression.Gzip,
                    )
                assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
                assert "uncompressed" in refused.value.details()

    def test_grpc_oversized_is_resource_exhausted(self, gateway: Gateway) -> None:
        inputs = [triton_grpc.InferInput("image", [1], "BYTES")]
        inputs[0].set_data_from_numpy(np.array([bytes(3 << 20)], np.object_))
        with (
            triton_grpc.InferenceServerClient(
                f"localhost:{gateway.port}", ssl=True, root_certificates=gateway.ca_file
            ) as client,
            pytest.raises(triton_grpc.InferenceServerException) as refused,
        ):
            client.infer(
                "sam2", inputs, headers={"x-api-key": ALICE}, client_timeout=PATIENCE_SECONDS
            )
        assert "RESOURCE_EXHAUSTED" in str(refused.value.status()), refused.value
