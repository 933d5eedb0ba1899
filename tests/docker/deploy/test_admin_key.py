"""Administrative calls with and without the key, on a real server as it is deployed."""

import uuid
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from typing import Any

import numpy as np
import pytest
from sam2_server.probe import probe
from sam2_server.process import ADMIN_KEY_HEADER
from tritonclient import grpc, http
from tritonclient.utils import InferenceServerException

from tests.docker.deploy.conftest import ClosedServer

pytestmark = pytest.mark.server

Call = Callable[[Any, dict[str, str]], Any]
CALLS: dict[str, Call] = {
    "repository index": lambda client, headers: client.get_model_repository_index(headers=headers),
    "model load": lambda client, headers: client.load_model("sam2_prompt", headers=headers),
    "configuration": lambda client, headers: client.get_model_config("sam2", headers=headers),
    "statistics": lambda client, headers: client.get_inference_statistics("sam2", headers=headers),
    "shared memory status": lambda client, headers: client.get_system_shared_memory_status(
        headers=headers
    ),
    "trace": lambda client, headers: client.get_trace_settings(headers=headers),
    "logging": lambda client, headers: client.get_log_settings(headers=headers),
}


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, closed_server: ClosedServer) -> Iterator[Any]:
    if request.param == "grpc":
        with grpc.InferenceServerClient(closed_server.running.grpc_url) as made:
            yield made
    else:
        with http.InferenceServerClient(
            closed_server.running.http_url, network_timeout=120
        ) as made:
            yield made


def with_key(client: Any, key: str) -> dict[str, str]:
    """The header, as each protocol wants it."""
    over_grpc = isinstance(client, grpc.InferenceServerClient)
    return {f"{'triton-grpc-protocol-' if over_grpc else ''}{ADMIN_KEY_HEADER}": key}


@pytest.mark.parametrize("name", CALLS)
def test_refused_without_the_key_or_with_a_wrong_one(
    client: Any, closed_server: ClosedServer, name: str
) -> None:
    for headers in ({}, with_key(client, "wrong" + closed_server.key[5:]), with_key(client, "")):
        with pytest.raises(InferenceServerException) as refused:
            CALLS[name](client, headers)
        assert "restricted" in refused.value.message(), refused.value


@pytest.mark.parametrize("name", CALLS)
def test_served_with_the_key(client: Any, closed_server: ClosedServer, name: str) -> None:
    CALLS[name](client, with_key(client, closed_server.key))


def test_shared_memory_is_registered_with_the_key_only(
    client: Any, closed_server: ClosedServer
) -> None:
    memory = shared_memory.SharedMemory(create=True, size=4096)
    name = f"test-{uuid.uuid4().hex}"
    try:
        with pytest.raises(InferenceServerException, match="restricted"):
            client.register_system_shared_memory(name, f"/{memory.name}", 4096)
        headers = with_key(client, closed_server.key)
        client.register_system_shared_memory(name, f"/{memory.name}", 4096, headers=headers)
        client.unregister_system_shared_memory(name, headers=headers)
    finally:
        memory.close()
        memory.unlink()


def test_inference_and_health_stay_open(client: Any, closed_server: ClosedServer) -> None:
    assert client.is_server_ready()
    assert client.is_model_ready("sam2")
    over_grpc = isinstance(client, grpc.InferenceServerClient)
    running = closed_server.running
    url = f"grpc://{running.grpc_url}" if over_grpc else f"http://{running.http_url}"
    assert probe(url, 60).healthy


def test_a_model_can_be_loaded_and_answers(client: Any, closed_server: ClosedServer) -> None:
    client.load_model("sam2_prompt", headers=with_key(client, closed_server.key))
    module = grpc if isinstance(client, grpc.InferenceServerClient) else http
    tensors = {
        "original_hw": np.array([100, 200], np.int32),
        "box": np.array([[10, 10, 20, 20]], np.float32),
    }
    inputs = []
    for name, values in tensors.items():
        tensor = module.InferInput(
            name, values.shape, "INT32" if values.dtype == np.int32 else "FP32"
        )
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    labels = client.infer("sam2_prompt", inputs).as_numpy("token_labels")
    assert labels[0, :2].tolist() == [2, 3]
