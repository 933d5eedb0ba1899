import asyncio
import threading

import numpy as np
import pytest
from triton_sam2 import (
    InvalidInputError,
    NoImageError,
    SAM2TritonClient,
    ServerError,
    SpeculativeSAM2Client,
    TritonSam2Error,
    queue_multiple_requests,
    wait_for_latest_result,
)

from tests.client.fake_servers import grpc_server
from tests.client.fakes import AsyncFakeSam, FakeSam, png_of
from tests.patience import PATIENCE_SECONDS, wait_until

MOVES = [[[10 + 2 * index, 20]] for index in range(20)]
LABELS = [[1]] * len(MOVES)


class Gate:
    """Holds predictions back until the test lets them pass; images pass at once."""

    def __init__(self):
        self.arrived = []
        self.passing = set()
        self.is_open = False

    async def __call__(self, request):
        if request.model != "sam2":
            return
        self.arrived.append(request.request_id)
        while not (self.is_open or request.request_id in self.passing):
            await asyncio.sleep(0.001)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def make_client(gate):
    clients = []

    def make(**options):
        sam = AsyncFakeSam()
        sam.gate = gate
        clients.append(SpeculativeSAM2Client("localhost:8001", _transport=sam, **options))
        clients[-1].set_image(png_of())
        return clients[-1], sam

    yield make
    gate.is_open = True
    for client in clients:
        client.close()


def until(condition):
    wait_until(condition, "what the test is about")


def test_the_last_position_is_the_result(make_client, gate):
    client, _ = make_client()
    gate.is_open = True

    async def road():
        tasks = await queue_multiple_requests(client, MOVES, LABELS, "s")
        assert len({request_id for request_id, _ in tasks}) == len(MOVES)
        return await wait_for_latest_result(tasks, client, "s")

    masks, iou = asyncio.run(road())
    np.testing.assert_array_equal(masks, client.predict_sync(MOVES[-1], LABELS[-1]).masks)
    assert iou.shape == (1, 1)


def test_cancelling_a_session_counts_and_stops_its_predictions(make_client, gate):
    client, sam = make_client(max_in_flight=4)

    async def road():
        tasks = await queue_multiple_requests(client, MOVES, LABELS, "s")
        others = await queue_multiple_requests(client, MOVES[:2], LABELS[:2], "other")
        await asyncio.to_thread(until, lambda: len(gate.arrived) == 6)
        gate.passing.add(tasks[0][0])
        await asyncio.wait([future for _, future in tasks], return_when=asyncio.FIRST_COMPLETED)
        assert client.cancel_session_requests("s") == 19
        assert client.cancel_session_requests("s") == 0
        assert client.get_session_status("s") == {
            "pending": 0,
            "completed": 1,
            "cancelled": 19,
            "failed": 0,
        }
        gate.is_open = True
        survivor = await wait_for_latest_result(tasks, client, "s")
        np.testing.assert_array_equal(
            survivor.masks, client.predict_sync(MOVES[0], LABELS[0]).masks
        )
        assert await wait_for_latest_result(tasks[1:], client, "s") is None
        assert (await wait_for_latest_result(others, client, "other")).masks.any()

    asyncio.run(road())
    # 1 image, 1 answer, 2 of the other session, predict_sync: nothing cancelled reached the server's answers.
    assert len(sam.requests) == 5


def test_no_tasks_no_result(make_client):
    client, _ = make_client()
    assert asyncio.run(wait_for_latest_result([], client, "s")) is None
    assert client.cancel_session_requests("never opened") == 0
    assert client.get_session_status("never opened") == {
        "pending": 0,
        "completed": 0,
        "cancelled": 0,
        "failed": 0,
    }


def test_latest_only_keeps_one_on_its_way_and_the_newest(make_client, gate):
    client, sam = make_client(latest_only=True)

    async def road():
        tasks = await queue_multiple_requests(client, MOVES[:1], LABELS[:1], "s")
        await asyncio.to_thread(until, lambda: len(gate.arrived) == 1)
        tasks += await queue_multiple_requests(client, MOVES[1:], LABELS[1:], "s")
        status = client.get_session_status("s")
        assert status == {"pending": 2, "completed": 0, "cancelled": len(MOVES) - 2, "failed": 0}
        gate.is_open = True
        result = await wait_for_latest_result(tasks, client, "s")
        assert (await tasks[0][1]).masks.any()
        return result

    result = asyncio.run(road())
    assert len(sam.requests) == 3  # the image, the first move, the last one
    np.testing.assert_array_equal(result.masks, client.predict_sync(MOVES[-1], LABELS[-1]).masks)


def test_latest_only_is_per_session(make_client, gate):
    client, _ = make_client(latest_only=True)
    gate.is_open = True

    async def road():
        by_session = {
            name: await queue_multiple_requests(client, MOVES, LABELS, name)
            for name in ("a", "b", "c")
        }
        return [
            await wait_for_latest_result(tasks, client, name) for name, tasks in by_session.items()
        ]

    assert all(result is not None for result in asyncio.run(road()))


def test_in_flight_is_bounded(make_client, gate):
    client, _ = make_client(max_in_flight=3)

    async def road():
        tasks = await queue_multiple_requests(client, MOVES, LABELS, "s")
        await asyncio.to_thread(until, lambda: len(gate.arrived) == 3)
        await asyncio.sleep(0.05)
        assert len(gate.arrived) == 3
        gate.is_open = True
        await asyncio.gather(*(future for _, future in tasks))
        assert gate.arrived == [request_id for request_id, _ in tasks]  # first come, first served

    asyncio.run(road())


def test_a_failure_is_raised_and_counted(make_client, gate, caplog):
    client, sam = make_client(max_in_flight=1)
    gate.is_open = True
    sam.failures = [ServerError("broken")]

    async def road():
        tasks = await queue_multiple_requests(client, MOVES[:2], LABELS[:2], "s")
        assert (await wait_for_latest_result(tasks, client, "s")).masks.any()
        with pytest.raises(ServerError, match="broken"):
            await wait_for_latest_result(tasks[:1], client, "s")

    asyncio.run(road())
    assert client.get_session_status("s")["failed"] == 1
    assert "never retrieved" not in caplog.text


def test_bad_prompts_raise_at_once(make_client):
    client, sam = make_client()

    async def road():
        with pytest.raises(InvalidInputError, match="point_labels"):
            await client.predict_async([[1, 2]], [7])
        with pytest.raises(InvalidInputError, match="expected 20 entries"):
            await queue_multiple_requests(client, MOVES, LABELS[:-1], "s")

    asyncio.run(road())
    assert len(sam.requests) == 1


def test_request_ids(make_client, gate):
    client, sam = make_client()

    async def road():
        request_id, future = await client.predict_async(MOVES[0], [1], "s", "mine")
        assert request_id == "mine"
        with pytest.raises(InvalidInputError, match="mine"):
            await client.predict_async(MOVES[0], [1], "s", "mine")
        await client.predict_async(MOVES[0], [1], "another session", "mine")
        gate.is_open = True
        await future
        await client.predict_async(MOVES[0], [1], "s", "mine")

    asyncio.run(road())
    assert sam.requests[1].request_id == "mine"


def test_cleanup_cancels_and_forgets(make_client, gate):
    client, _ = make_client()

    async def road():
        tasks = await queue_multiple_requests(client, MOVES, LABELS, "s")
        client.cleanup_session("s")
        assert await wait_for_latest_result(tasks, client, "s") is None
        assert sum(client.get_session_status("s").values()) == 0

    asyncio.run(road())


def test_cancelling_a_future_cancels_that_prediction_alone(make_client, gate):
    client, _ = make_client()

    async def road():
        (_, first), (_, second) = await queue_multiple_requests(client, MOVES[:2], LABELS[:2], "s")
        await asyncio.to_thread(until, lambda: len(gate.arrived) == 2)
        first.cancel()
        await asyncio.to_thread(until, lambda: client.get_session_status("s")["cancelled"] == 1)
        gate.is_open = True
        assert (await second).masks.any()

    asyncio.run(road())
    assert client.get_session_status("s") == {
        "pending": 0,
        "completed": 1,
        "cancelled": 1,
        "failed": 0,
    }


def test_threads_may_cancel_each_others_sessions(make_client, gate):
    client, _ = make_client()
    gate.is_open = True

    async def session(name):
        for _ in range(20):
            tasks = await queue_multiple_requests(client, MOVES, LABELS, name)
            client.cancel_session_requests("s0")
            await wait_for_latest_result(tasks, client, name)

    threads = [
        threading.Thread(target=lambda name=f"s{index}": asyncio.run(session(name)))
        for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    until(lambda: all(client.get_session_status(f"s{index}")["pending"] == 0 for index in range(4)))
    for index in range(4):
        assert sum(client.get_session_status(f"s{index}").values()) == 20 * len(MOVES)


def test_close_cancels_and_leaves_no_thread(make_client, gate):
    client, _ = make_client()

    async def road():
        tasks = await queue_multiple_requests(client, MOVES, LABELS, "s")
        await asyncio.to_thread(client.close)
        assert await wait_for_latest_result(tasks, client, "s") is None
        with pytest.raises(TritonSam2Error, match="closed"):
            await client.predict_async(MOVES[0], LABELS[0])

    asyncio.run(road())
    assert not any(thread.name == "triton-sam2-speculative" for thread in threading.enumerate())
    client.close()


def test_arguments_are_checked():
    with pytest.raises(InvalidInputError, match="gRPC only"):
        SpeculativeSAM2Client("localhost:8000")
    with pytest.raises(InvalidInputError, match="max_in_flight"):
        SpeculativeSAM2Client("localhost:8001", max_in_flight=0)
    with (
        SpeculativeSAM2Client("localhost:8001", _transport=AsyncFakeSam()) as client,
        pytest.raises(NoImageError),
    ):
        client.predict_sync([[1, 2]], [1])


def test_over_a_socket_it_equals_the_blocking_client():
    async def road(client):
        tasks = await queue_multiple_requests(client, MOVES, LABELS, "s")
        return [await future for _, future in tasks]

    with (
        grpc_server(FakeSam()) as (url, _),
        SpeculativeSAM2Client(url) as speculative,
        SAM2TritonClient(url) as blocking,
    ):
        speculative.set_image(png_of())
        blocking.set_image(png_of())
        for move, label, result in zip(MOVES, LABELS, asyncio.run(road(speculative)), strict=True):
            np.testing.assert_array_equal(result.masks, blocking.predict(move, label).masks)
