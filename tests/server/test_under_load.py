"""The short soak, memory after eviction, and a hot reload under traffic."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.http
from triton_sam2 import SAM2TritonClient

from export.repository import assemble_repository
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.photographs import picture_of_discs
from tests.raw_client import RawClient, bytes_tensor, click
from tests.running_server import ROOT, RunningServer
from tests.server_figures import resident_bytes, shared_memory_bytes
from tests.soak.soak import soak, soak_repository

pytestmark = [pytest.mark.server, pytest.mark.slow]

SOAK_SECONDS = 60


@pytest.fixture(scope="module")
def small_cache_server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("soak")
    budget = soak_repository(directory / "repository")
    with RunningServer(directory / "repository", directory / "state") as server:
        yield server, budget


def test_a_minute_of_full_load(small_cache_server):
    server, budget = small_cache_server
    report = soak(server, budget, SOAK_SECONDS)
    print(report.text())
    assert report.problems() == []
    assert server.state["restarts"] == 0


def test_memory_is_returned_after_eviction(small_cache_server):
    """Many images through a cache of 20: what the evicted ones took is free again."""
    server, _ = small_cache_server
    client = RawClient(server, "grpc")

    def send(first: int, count: int) -> tuple[int, int]:
        for seed in range(first, first + count):
            client.infer(image=bytes_tensor(picture_of_discs(seed)), **click(80, 60))
        return resident_bytes(server), shared_memory_bytes(server)

    resident_before, shared_before = send(10_000, 60)
    resident_after, shared_after = send(20_000, 200)  # 39 MB of embeddings through a cache of 4 MB
    print(f"resident {resident_before >> 20} ► {resident_after >> 20} MiB")
    assert resident_after - resident_before < 16 << 20
    assert shared_after <= shared_before


CLIENTS, IMAGES, XY = 6, 12, [[80, 60]]


def masks_of(onnx_dir, directory):
    """Every image's mask from a server that has only these weights."""
    assemble_repository(onnx_dir, directory / "repository", video=False)
    with (
        RunningServer(directory / "repository", directory / "state", "--no-probe") as server,
        SAM2TritonClient(server.grpc_url) as client,
    ):
        return [client.segment(picture_of_discs(i), XY, [1]).masks for i in range(IMAGES)]


def test_a_hot_reload_under_traffic_gives_no_wrong_mask(other_weights, tmp_path):
    """Encoder and decoder change weights while clients click: each answer is the old model's or the new
    one's, never a mixture, and once both are loaded it is the new one's."""
    old = ROOT / "export/demo_model/onnx"
    masks = {
        name: masks_of(onnx, tmp_path / name)
        for name, onnx in (("old", old), ("new", other_weights))
    }
    assert not any(np.array_equal(*pair) for pair in zip(masks["old"], masks["new"], strict=True))

    repository = tmp_path / "repository"
    assemble_repository(old, repository, video=False)
    reloaded, stop = threading.Event(), threading.Event()

    answers = [[] for _ in range(CLIENTS)]

    def click_on(server, seed):
        seen = answers[seed]
        rng = np.random.default_rng(seed)
        with SAM2TritonClient(server.grpc_url) as client:
            handles = client.prefetch([picture_of_discs(i) for i in range(IMAGES)])
            while not stop.is_set():
                i = int(rng.integers(IMAGES))
                settled = reloaded.is_set()
                got = client.predict(XY, [1], image=handles[i]).masks
                which = [name for name in masks if np.array_equal(got, masks[name][i])]
                assert which, f"image {i}: neither the old model's mask nor the new one's"
                assert which == ["new"] or not settled, "the old model's mask after the reload"
                seen += which

    def everybody_gets(count):
        """Wait until each client has so many more answers, or one has failed."""
        goals = [len(seen) + count for seen in answers]
        wait_until(
            lambda: (
                any(client.done() for client in clicking)
                or all(len(seen) >= goal for seen, goal in zip(answers, goals, strict=True))
            ),
            f"{count} answers for everybody",
        )

    options = ("--no-probe", "--explicit-models")
    with (
        RunningServer(repository, tmp_path / "state", *options) as server,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):
        clicking = [threads.submit(click_on, server, seed) for seed in range(CLIENTS)]
        try:
            everybody_gets(20)
            admin = tritonclient.http.InferenceServerClient(server.http_url, network_timeout=120)
            for model, file in (("sam2_encoder", "encoder.onnx"), ("sam2_decoder", "decoder.onnx")):
                shutil.copyfile(other_weights / file, repository / model / "1" / "model.onnx")
                admin.load_model(model)
            everybody_gets(2)  # requests that the old instances still had
            reloaded.set()
            everybody_gets(20)
        finally:
            stop.set()
        for client in clicking:
            client.result(PATIENCE_SECONDS)
        assert server.state["restarts"] == 0
    seen = [name for of_client in answers for name in of_client]
    print({name: seen.count(name) for name in masks})
    assert min(seen.count("old"), seen.count("new")) >= 20 * CLIENTS
