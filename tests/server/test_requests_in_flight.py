"""Requests in flight in sam2_embedding are bounded, those beyond are UNAVAILABLE and counted, and a broken
file takes no name: shown on a server whose encoder waits for as long as the test wants."""

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS, wait_until
from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import RunningServer
from tests.server.test_one_call import fresh
from tests.server_figures import cache_metrics

pytestmark = pytest.mark.server

LIMIT = 3
COINS = photograph("coins.png")
WARM = ["cached_image_id", "original_hw"]


# The same graph behind a gate.
GATED_ENCODER = """\
import time
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")))
        self.outputs = [node.name for node in self.session.get_outputs()]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        while Path({gate!r}).exists():
            time.sleep(0.02)
        image = pb_utils.get_input_tensor_by_name(request, "resized_image").as_numpy()
        values = self.session.run(self.outputs, {{"resized_image": image}})
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in zip(self.outputs, values)]
        )
"""


@pytest.fixture(scope="module")
def own_server(demo_repository, tmp_path_factory) -> Iterator[RunningServer]:
    directory = tmp_path_factory.mktemp("in_flight")
    repository = directory / "models"
    shutil.copytree(demo_repository, repository)
    config = repository / "sam2_embedding/config.pbtxt"
    text = config.read_text()
    usual = 'key: "max_requests_in_flight"  value: { string_value: "1024" }'
    assert usual in text
    config.write_text(text.replace(usual, usual.replace("1024", str(LIMIT))))
    encoder = repository / "sam2_encoder"
    text = (encoder / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in text
    (encoder / "config.pbtxt").write_text(text.replace('"onnxruntime"', '"python"'))
    (encoder / "1/model.py").write_text(GATED_ENCODER.format(gate=str(gate_of(repository))))
    with RunningServer(repository, directory / "run", "--no-probe") as server:
        yield server


def gate_of(repository: Path) -> Path:
    """While this file exists, the encoder waits."""
    return repository.parent / "closed"


@contextlib.contextmanager
def waiting_encoder(server: RunningServer) -> Iterator[None]:
    gate = gate_of(server.repository)
    gate.touch()
    try:
        yield
    finally:
        gate.unlink()


def wait_for_metric(server: RunningServer, name: str, value: float) -> None:
    """Published once a second."""
    wait_until(lambda: cache_metrics(server)[name] == value, f"{name} to be {value}")


def test_beyond_the_limit_requests_are_refused_and_counted(own_server):
    client = RawClient(own_server, "grpc")
    refused_before = cache_metrics(own_server)["refused_requests_total"]
    cold = fresh(COINS)
    with ThreadPoolExecutor(LIMIT) as others:
        with waiting_encoder(own_server):
            # One image for all: encodes are few, requests are many.
            waiting = [
                others.submit(
                    RawClient(own_server, "grpc").infer,
                    "sam2_embedding",
                    WARM,
                    image=bytes_tensor(cold),
                )
                for _ in range(LIMIT)
            ]
            wait_for_metric(own_server, "requests_in_flight", LIMIT)
            for protocol in ("grpc", "http"):
                with pytest.raises(RefusedError) as refused:
                    RawClient(own_server, protocol).infer(
                        image=bytes_tensor(COINS), **click(109, 199)
                    )
                assert refused.value.status == "UNAVAILABLE"
                assert "max_requests_in_flight 3" in refused.value.message
                assert "try again" in refused.value.message
        answers = [future.result(PATIENCE_SECONDS) for future in waiting]
    assert len({answer["cached_image_id"][0] for answer in answers}) == 1
    wait_for_metric(own_server, "requests_in_flight", 0)
    wait_for_metric(own_server, "refused_requests_total", refused_before + 2)
    assert client.infer(image=bytes_tensor(COINS), **click(109, 199))["masks"].any()


def test_a_broken_file_does_not_take_the_name_of_an_image_under_way(own_server):
    name = bytes_tensor(b"page-1")
    sound = fresh(COINS)
    with ThreadPoolExecutor(1) as other:
        with waiting_encoder(own_server):
            first = other.submit(
                RawClient(own_server, "grpc").infer,
                image=bytes_tensor(sound),
                image_id=name,
                **click(109, 199),
            )
            wait_for_metric(own_server, "pending_encodes", 1)
            client = RawClient(own_server, "http")
            with pytest.raises(RefusedError, match="INVALID_ARGUMENT: .*image: "):
                client.infer(image=bytes_tensor(sound[:500]), image_id=name, **click(109, 199))
        answered = first.result(PATIENCE_SECONDS)
    assert answered["cached_image_id"][0] == b"page-1"
    again = client.infer(image_id=name, **click(109, 199))
    assert (again["masks"] == answered["masks"]).all()
