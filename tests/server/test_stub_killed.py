"""The process of any model is killed: what was under way gets an error, and the server comes back."""

import re
import signal
import threading
import time

import psutil
import pytest

from tests.patience import PATIENCE_SECONDS, wait_until
from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import RunningServer
from tests.server_figures import processes

pytestmark = [pytest.mark.server, pytest.mark.slow]

MODELS = [
    "sam2_embedding",
    "sam2_preprocess",
    "sam2_encoder",
    "sam2_prompt",
    "sam2_decoder",
    "sam2_postprocess",
    "sam2_automask",
]
COINS = bytes_tensor(photograph("coins.png"))


@pytest.fixture(scope="module")
def own_server(demo_repository, tmp_path_factory):
    directory = tmp_path_factory.mktemp("killed")
    with RunningServer(demo_repository, directory) as server:
        yield server


def stub_of(server: RunningServer, model: str) -> psutil.Process:
    """A process that runs this model, by the instance name in its command line."""
    pattern = re.compile(rf"(^|\s){model}_\d+_\d+(\s|$)")
    return next(p for p in processes(server)[1:] if pattern.search(" ".join(p.cmdline())))


@pytest.mark.parametrize("model", MODELS)
def test_the_server_is_back_after_the_kill_of(own_server, model):
    client = RawClient(own_server, "grpc")
    assert client.infer(image=COINS, **click(109, 199))["masks"].any()
    restarts = own_server.state["restarts"]
    stop, outcomes = threading.Event(), []

    def keep_asking() -> None:
        while not stop.is_set():
            try:
                client.infer(image=COINS, **click(109, 199))
                outcomes.append("answered")
            except RefusedError as error:
                outcomes.append(error.status)
                time.sleep(0.05)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        wait_until(lambda: "answered" in outcomes, "a first answer")
        killed_at = time.monotonic()
        stub_of(own_server, model).send_signal(signal.SIGKILL)
        wait_until(lambda: set(outcomes) - {"answered"}, "a request to fail")
        wait_until(lambda: own_server.state["restarts"] > restarts, "the restart")
        wait_until(lambda: outcomes[-1] == "answered", "an answer")
    finally:
        stop.set()
        asking.join(PATIENCE_SECONDS)
    assert not asking.is_alive(), "a request hangs"
    print(f"{model}: back after {time.monotonic() - killed_at:.1f} s")
    assert own_server.state["last_crash"]
