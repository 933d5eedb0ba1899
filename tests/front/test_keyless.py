"""The front's port without keys: one model, two methods, named networks; and what may not come by it."""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import grpc
import numpy as np
import pytest
from front.keyless import is_within
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.front.conftest import ALICE, log_lines, written_keys
from tests.paintera import MODEL, OUTPUTS, PATIENCE_SECONDS, Lane, letterboxed
from tests.running_front import RunningFront
from tests.running_server import RunningServer

PICTURE = letterboxed(np.full((60, 90, 3), 90, np.uint8), 256)


@pytest.mark.parametrize(
    ("peer", "networks", "within"),
    [
        ("ipv4:192.168.7.9:50000", ["192.168.7.0/24"], True),
        ("ipv4:192.168.8.9:50000", ["192.168.7.0/24"], False),
        ("ipv4:10.0.0.1:1", ["192.168.7.0/24", "10.0.0.1"], True),
        ("ipv6:%5B::1%5D:50000", ["::1"], True),
        ("ipv6:[fe80::1%25eth0]:50000", ["fe80::/10"], True),
        ("ipv6:%5B::ffff:192.168.7.9%5D:50000", ["192.168.7.0/24"], True),
        ("ipv6:%5B2001:db8::1%5D:1", ["0.0.0.0/0"], False),
        ("ipv4:192.168.7.9:50000", [], False),
        ("unix:/run/front", ["0.0.0.0/0", "::/0"], False),
        ("ipv4:nonsense", ["0.0.0.0/0"], False),
        ("", ["0.0.0.0/0"], False),
    ],
)
def test_an_address_is_in_a_network(peer, networks, within):
    assert is_within(peer, [ip_network(each) for each in networks]) == within


@pytest.fixture(scope="module")
def front_for_paintera(
    paintera_server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFront]:
    folder = tmp_path_factory.mktemp("front_for_paintera")
    keys = written_keys(folder, f"alice {ALICE}\n")
    options = ("--api-keys", keys, "--keyless-port", "0", "--keyless-from", "127.0.0.0/8")
    with RunningFront(paintera_server.grpc_url, folder, *options) as running:
        yield running


@pytest.fixture(scope="module")
def keyless(front_for_paintera: RunningFront) -> str:
    return f"127.0.0.1:{front_for_paintera.ports['keyless']}"


@pytest.mark.server
class TestRunning:
    def test_paintera_is_let_in_without_a_key_and_counted(
        self, front_for_paintera: RunningFront, keyless: str
    ) -> None:
        with Lane(keyless) as lane:
            assert lane.is_ready()
            assert lane.encode(PICTURE).keys() == set(OUTPUTS)
        line = [each for each in log_lines(front_for_paintera) if each.get("call")][-1]
        assert line["call"] == f"infer {MODEL}"
        assert "(no key)" in str(line)

    @pytest.mark.parametrize("model", ["sam2", "sam2_embedding", "sam2_encoder_jpeg", "x" * 500])
    def test_to_no_other_model(self, keyless: str, model: str) -> None:
        with Lane(keyless) as lane:
            request_id = lane.send(PICTURE, model)
            response = lane.answer(request_id)
            assert response.infer_response.id == request_id
            assert f"without an API key: expected {MODEL}, got" in response.error_message
            with pytest.raises(grpc.RpcError) as refused:
                lane.is_ready(model)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert lane.encode(PICTURE).keys() == set(OUTPUTS), "the stream lives"

    def test_by_no_other_method_not_even_with_a_key(self, keyless: str) -> None:
        with grpc.insecure_channel(keyless) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for method, request in (
                (stub.ServerLive, service_pb2.ServerLiveRequest()),
                (stub.ModelInfer, service_pb2.ModelInferRequest(model_name=MODEL)),
                (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name="sam2")),
                (stub.RepositoryIndex, service_pb2.RepositoryIndexRequest()),
                (stub.ModelConfig, service_pb2.ModelConfigRequest(name=MODEL)),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    method(request, metadata=[("x-api-key", ALICE)], timeout=PATIENCE_SECONDS)
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_the_other_port_wants_a_key_still(self, front_for_paintera: RunningFront) -> None:
        with Lane(front_for_paintera.grpc_url) as lane:
            with pytest.raises(grpc.RpcError) as refused:
                lane.encode(PICTURE)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

    def test_from_another_network_nothing(
        self, paintera_server: RunningServer, tmp_path: Path
    ) -> None:
        options = ("--keyless-port", "0", "--keyless-from", "192.168.7.0/24")
        with (
            RunningFront(paintera_server.grpc_url, tmp_path, *options) as running,
            Lane(f"127.0.0.1:{running.ports['keyless']}") as lane,
        ):
            for call in (lane.is_ready, lambda: lane.encode(PICTURE)):
                with pytest.raises(grpc.RpcError) as refused:
                    call()
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert "--keyless-from" in refused.value.details()

    def test_where_the_model_is_missing_the_answer_says_why(
        self, front: RunningFront, server: RunningServer
    ) -> None:
        with Lane(front.grpc_url) as lane:
            assert not lane.is_ready()
            response = lane.answer(lane.send(PICTURE))
            assert "served with Meta's `large` at 1024 px alone" in response.error_message


@pytest.mark.parametrize(
    "options",
    [
        ("--keyless-port", "0"),
        ("--keyless-from", "127.0.0.1"),
        ("--keyless-port", "0", "--keyless-from", "192.168.7.9/24"),
        ("--keyless-port", "0", "--keyless-from", "everybody"),
    ],
)
def test_a_port_without_networks_or_with_wrong_ones_is_no_port(tmp_path: Path, options) -> None:
    with pytest.raises(RuntimeError, match="--keyless-port"):
        RunningFront("127.0.0.1:1", tmp_path, *options).__enter__()
