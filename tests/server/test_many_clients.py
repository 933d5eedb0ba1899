"""Many clients at once: nothing lost, nothing mixed up, nothing left behind."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from tests.patience import wait_until
from tests.photographs import picture_of_discs
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import RunningServer
from tests.server_figures import cache_metrics, resident_bytes, shared_memory_bytes

pytestmark = pytest.mark.server


def test_200_mixed_requests_from_16_threads_are_all_answered_right(server):
    images = [picture_of_discs(seed) for seed in range(20)]
    clicks = [click(40 + 4 * n, 30 + 3 * n) for n in range(10)]
    reference = RawClient(server, "grpc")
    expected = {
        (i, c): reference.infer(image=bytes_tensor(images[i]), **clicks[c])["masks"]
        for i in range(len(images))
        for c in range(len(clicks))
    }
    local = threading.local()

    def client() -> RawClient:
        if not hasattr(local, "client"):
            local.client = RawClient(
                server, random.Random(threading.get_ident()).choice(["grpc", "http"])
            )
        return local.client

    def one(n: int) -> str:
        rng = random.Random(n)
        i, c = rng.randrange(20), rng.randrange(10)
        kind = rng.choice(["bytes", "bytes", "named", "bad image", "bad click"])
        tensors = {"image": bytes_tensor(images[i]), **clicks[c]}
        if kind == "named":
            tensors["image_id"] = bytes_tensor(b"picture %d" % i)
        if kind == "bad image":
            tensors["image"] = bytes_tensor(b"broken %d" % n)
        if kind == "bad click":
            tensors["point_labels"] = np.full((1, 1), 7, np.int32)
        if kind.startswith("bad"):
            with pytest.raises(RefusedError, match="INVALID_ARGUMENT"):
                client().infer(**tensors)
        else:
            assert np.array_equal(client().infer(**tensors)["masks"], expected[i, c]), (n, kind)
        return kind

    def everything() -> list[str]:
        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(one, range(200)))

    everything()  # first use of 16 connections and of the shared memory they need
    children = len(psutil.Process(server.server_pid).children(recursive=True))
    resident_before, shared_before = resident_bytes(server), shared_memory_bytes(server)
    kinds = everything()
    resident_after, shared_after = resident_bytes(server), shared_memory_bytes(server)
    assert len(kinds) == 200
    assert len(set(kinds)) == 4
    assert len(psutil.Process(server.server_pid).children(recursive=True)) == children
    assert shared_after <= shared_before
    assert resident_after - resident_before < 64 << 20


def test_ten_clients_asking_for_one_new_image_share_one_encode(server):
    data = bytes_tensor(picture_of_discs(1_000_000))
    clients = [RawClient(server, "grpc") for _ in range(10)]
    before = clients[0].executions("sam2_encoder")
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda c: c.infer(image=data, **click(40, 30)), clients))
    assert clients[0].executions("sam2_encoder") == before + 1
    for answer in answers:
        assert np.array_equal(answer["masks"], answers[0]["masks"])


@pytest.fixture
def fresh_server(demo_repository, tmp_path):
    with RunningServer(demo_repository, tmp_path, "--no-probe") as server:
        yield server


def test_the_metrics_count_what_the_test_counted(fresh_server):
    client = RawClient(fresh_server, "grpc")
    ids = [
        client.infer(image=bytes_tensor(picture_of_discs(n)), **click(40, 30))["cached_image_id"]
        for n in range(3)
    ]
    for _ in range(5):
        for image_id in ids:
            client.infer(image_id=bytes_tensor(image_id[0]), **click(40, 30))
    with pytest.raises(RefusedError, match="NOT_FOUND"):
        client.infer(image_id=bytes_tensor(b"nobody"), **click(40, 30))
    # Published now and then, all together: once the last event is in, so is all before it.
    wait_until(lambda: cache_metrics(fresh_server)["unknown_ids_total"], "the figures")
    figures = cache_metrics(fresh_server)
    assert (figures["hits_total"], figures["misses_total"], figures["encodes_total"]) == (15, 3, 3)
    assert figures["unknown_ids_total"] == 1
    assert figures["encode_seconds_count"] == 3
    assert figures["entries"] == 3
    per_image = figures["bytes"] / 3
    assert per_image == 2 * (96 * 16 * 16 + 12 * 64 * 64 + 24 * 32 * 32) + 8 + 8
    client.infer(
        "sam2_embedding",
        ["cached_image_id"],
        image_id=bytes_tensor(ids[0][0]),
        forget=np.array([True]),
    )
    wait_until(lambda: cache_metrics(fresh_server)["forgotten_total"], "the figures")
    assert cache_metrics(fresh_server)["forgotten_total"] == 1
