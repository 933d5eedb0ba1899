"""What a request may carry through the gateway: its size, its pieces, its compression."""

import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import urllib3
from tritonclient import grpc as triton_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.docker.deploy.gateways import (
    ALICE,
    BOB,
    INFER,
    PATIENCE_SECONDS,
    Gateway,
    answer_one_request,
    gateway_before_a_socket,
    needs_nginx,
)
from tests.front.samples import click_request, strings
from tests.photographs import photograph


@needs_nginx
def test_the_front_gets_whole_bodies_and_the_key(tmp_path: Path) -> None:
    """In one piece, under one length, whatever the sender's chunks and headers were."""
    with gateway_before_a_socket(tmp_path) as (gateway, upstream), ThreadPoolExecutor(1) as pool:
        sent = pool.submit(
            gateway.http,
            "POST",
            INFER,
            iter([b"{"] * 500),  # chunks of one byte
            x_api_key=ALICE,
            content_type="multipart/form-data",
            inference_header_content_length="500",
            content_encoding="gzip",
            sam2_admin_key="guessed",
        )
        head = answer_one_request(upstream, end=b"{" * 500)
        assert sent.result().status == 200
    assert "content-type: multipart/form-data" in head
    assert "content-length: 500" in head
    assert "content-encoding: gzip" in head
    assert head.count("inference-header-content-length: 500") == 1
    assert f"x-api-key: {ALICE}".lower() in head
    assert not any(line.startswith(("transfer-encoding", "sam2-admin-key")) for line in head)


@pytest.mark.server
@needs_nginx
class TestThroughTheGateway:
    def test_http_oversized_is_413(self, gateway: Gateway) -> None:
        response = gateway.http("POST", INFER, bytes((1 << 20) + 1), x_api_key=ALICE)
        assert response.status == 413
        assert "larger" in response.json()["error"]

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity, gzip", "br"])
    def test_a_bomb_ends_nothing(self, gateway: Gateway, encoding: str) -> None:
        """Three million brackets in 3 kB, which Triton would unpack and recurse into."""
        pack = zlib.compress if encoding == "deflate" else gzip.compress
        bomb = pack(b"[" * 3_000_000)
        assert len(bomb) < 10_000
        response = gateway.http("POST", INFER, bomb, x_api_key=ALICE, content_encoding=encoding)
        assert response.status == (413 if "," not in encoding and encoding != "br" else 415)
        assert response.json()["error"]
        assert gateway.http("GET", "/v2/health/ready", x_api_key=ALICE).status == 200

    def test_a_compressed_image_is_an_image(self, gateway: Gateway) -> None:
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = click_request(b"packed")
            request.inputs.add(name="image", datatype="BYTES", shape=[1])
            request.raw_input_contents.append(strings(photograph("coins.png")))
            answer = stub.ModelInfer(
                request,
                metadata=(("x-api-key", ALICE),),
                timeout=PATIENCE_SECONDS,
                compression=grpc.Compression.Gzip,
            )
        assert answer.outputs

    def test_a_message_that_unpacks_to_100_mb_is_refused(self, gateway: Gateway) -> None:
        request = click_request()
        request.raw_input_contents[0] = strings(bytes(100 << 20))
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(
                    request,
                    metadata=(("x-api-key", ALICE),),
                    timeout=PATIENCE_SECONDS,
                    compression=grpc.Compression.Gzip,
                )
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    def test_the_rest_line_of_the_readme(self, gateway: Gateway) -> None:
        fields = [("image", ("coins.png", photograph("coins.png"))), ("point", "109,199")]
        body, kind = urllib3.encode_multipart_formdata(fields)
        answer = gateway.http("POST", "/v1/segment", body, x_api_key=ALICE, content_type=kind)
        assert answer.status == 200
        assert answer.json()["objects"]
        body, kind = urllib3.encode_multipart_formdata(fields[:1])
        warmed = gateway.http("POST", "/v1/images", body, x_api_key=ALICE, content_type=kind)
        assert (warmed.status, warmed.json()["image_id"]) == (200, answer.json()["image_id"])
        body, kind = urllib3.encode_multipart_formdata([*fields[:1], ("points_per_side", "2")])
        found = gateway.http("POST", "/v1/everything", body, x_api_key=ALICE, content_type=kind)
        assert (found.status, "masks" in found.json()) == (200, True)
        name = answer.json()["image_id"]
        assert gateway.http("DELETE", f"/v1/images/{name}", x_api_key=ALICE).status == 204
        assert gateway.http("DELETE", f"/v1/images/{name}", x_api_key=ALICE).status == 404
        assert gateway.http("GET", f"/v1/images/{name}", x_api_key=ALICE).status == 404
        assert name not in gateway.log

    def test_a_video_by_rest(self, gateway: Gateway) -> None:
        started = gateway.http("POST", "/v1/videos", b"", x_api_key=ALICE)
        session_id = started.json()["session_id"]
        session = f"/v1/videos/{session_id}"
        fields = [("image", ("0.png", photograph("coins.png"))), ("frame", "0"), ("point", "9,9")]
        body, kind = urllib3.encode_multipart_formdata(fields)
        prompted = gateway.http(
            "POST", f"{session}/prompt", body, x_api_key=ALICE, content_type=kind
        )
        assert (prompted.status, len(prompted.json()["objects"])) == (200, 1)
        assert gateway.http("GET", session, x_api_key=BOB).status == 404
        assert gateway.http("GET", session, x_api_key=ALICE).status == 200
        for method, path in (("POST", session), ("GET", f"{session}/track"), ("PUT", session)):
            refused = gateway.http(method, path, b"", x_api_key=ALICE)
            assert (refused.status, "the gateway passes" in refused.json()["error"]) == (404, True)
        assert gateway.http("GET", session).status == 401
        assert gateway.http("DELETE", session, x_api_key=ALICE).status == 204
        assert session_id not in gateway.log

    def test_streams_pass_in_order_and_beyond_the_size_of_one_body(self, gateway: Gateway) -> None:
        request = click_request(b"stream")
        request.inputs.add(name="image", datatype="BYTES", shape=[1])
        request.raw_input_contents.append(strings(photograph("coins.png")))
        messages = []
        for number in range(20):
            request.id = str(number)
            messages.append(service_pb2.ModelInferRequest.FromString(request.SerializeToString()))
        assert sum(message.ByteSize() for message in messages) > 1 << 20
        with gateway.channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            metadata = (("x-api-key", ALICE),)
            answers = list(stub.ModelStreamInfer(iter(messages), metadata=metadata))
        assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(20)]
        assert not any(answer.error_message for answer in answers)

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
