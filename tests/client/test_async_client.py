"""What is asyncio's own; the logic that both clients share is tested with the blocking one."""

import asyncio
import inspect
import threading

import numpy as np
import pytest
from triton_sam2 import (
    AsyncSAM2TritonClient,
    ImageNotFoundError,
    InvalidInputError,
    NoImageError,
    RetryPolicy,
    SAM2TritonClient,
    ServerUnavailableError,
    ServerUnreachableError,
    TritonSam2Error,
)

from tests.client.fake_servers import grpc_server
from tests.client.fakes import AsyncFakeSam, FakeSam, png_of
from tests.patience import PATIENCE_SECONDS

CLICK = ([[30, 20]], [1])
RETRY = RetryPolicy(retries=2, first_pause_s=0.001)


@pytest.mark.parametrize(
    "name",
    [name for name in vars(SAM2TritonClient) if not name.startswith("_")] + ["__init__"],
)
def test_both_clients_have_the_same_methods(name):
    blocking, awaited = getattr(SAM2TritonClient, name), getattr(AsyncSAM2TritonClient, name)
    if isinstance(blocking, property):
        assert isinstance(awaited, property)
        return
    ours, theirs = inspect.signature(blocking).parameters, inspect.signature(awaited).parameters
    assert list(ours) == list(theirs)
    for key in ours:
        if key != "_transport":
            assert (ours[key].kind, ours[key].default) == (theirs[key].kind, theirs[key].default)


def test_no_method_is_missing():
    def names(client):
        return {name for name in vars(client) if not name.startswith("_")}

    assert names(SAM2TritonClient) == names(AsyncSAM2TritonClient)


def test_the_whole_road():
    async def road():
        server = AsyncFakeSam()
        async with AsyncSAM2TritonClient(retry=RETRY, _transport=server) as client:
            with pytest.raises(NoImageError):
                await client.predict(*CLICK)
            await client.set_image(png_of())
            masks, iou = await client.predict(*CLICK)
            assert masks[0, 0].sum() == 100
            assert iou.shape == (1, 1)
            server.sizes.clear()
            assert (await client.predict(*CLICK)).masks.any()
            assert ["image" in request.inputs for request in server.requests] == [
                True,
                False,
                False,
                True,
            ]
            server.failures = [ServerUnavailableError("busy")] * 2
            result = await client.segment(np.zeros((20, 30), np.uint8), box=[1, 2, 3, 4])
            assert result.original_hw == client.original_hw == (20, 30)
            await client.forget()
            with pytest.raises(ImageNotFoundError):
                await client.forget(client.image_id)

    asyncio.run(road())


def test_prefetch_encodes_several_at_a_time():
    async def road():
        server, running, most = AsyncFakeSam(), 0, 0
        three_at_once = asyncio.Event()

        async def gate(_):
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                three_at_once.set()
            await asyncio.wait_for(three_at_once.wait(), PATIENCE_SECONDS)
            await asyncio.sleep(0.01)  # a fourth would be seen now
            running -= 1

        server.gate = gate
        client = AsyncSAM2TritonClient(_transport=server)
        handles = await client.prefetch([png_of(10 + index) for index in range(9)], concurrency=3)
        assert [handle.original_hw[0] for handle in handles] == list(range(10, 19))
        assert most == 3
        assert client.image is None
        results = await asyncio.gather(
            *(client.predict(*CLICK, image=handle) for handle in handles)
        )
        assert [result.original_hw for result in results] == [
            handle.original_hw for handle in handles
        ]

    asyncio.run(road())


def test_blocking_prefetch_and_forget():
    server = FakeSam()
    client = SAM2TritonClient(_transport=server)
    handles = client.prefetch([png_of(10 + index) for index in range(5)])
    assert [handle.original_hw[0] for handle in handles] == list(range(10, 15))
    client.forget(handles[0])
    assert handles[0].image_id not in server.sizes
    assert client.predict(*CLICK, image=handles[0]).original_hw == (10, 60)
    with pytest.raises(NoImageError, match="forget"):
        client.forget()
    with pytest.raises(InvalidInputError):
        client.prefetch([b"not an image"])


def test_cancelling_the_task_cancels_the_rpc():
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def hang(context):
        context.add_callback(ended.set)  # called when the RPC is over, here by cancellation only
        started.set()
        release.wait(PATIENCE_SECONDS)

    async def road(url, servicer):
        async with AsyncSAM2TritonClient(url) as client:
            await client.set_image(png_of())
            servicer.before = hang
            task = asyncio.create_task(client.predict(*CLICK))
            assert await asyncio.to_thread(started.wait, PATIENCE_SECONDS)
            assert not ended.is_set()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(ended.wait, PATIENCE_SECONDS)
            servicer.before = None
            release.set()
            assert (await client.predict(*CLICK)).masks.any()

    with grpc_server(FakeSam()) as (url, servicer):
        asyncio.run(asyncio.wait_for(road(url, servicer), 3 * PATIENCE_SECONDS))


def test_a_client_outlives_an_event_loop():
    with grpc_server(FakeSam()) as (url, _):
        client = AsyncSAM2TritonClient(url)
        asyncio.run(client.set_image(png_of()))
        assert asyncio.run(client.predict(*CLICK)).masks.any()


def test_two_running_loops_share_a_client():
    with grpc_server(FakeSam()) as (url, _):
        client = AsyncSAM2TritonClient(url)

        async def road():
            await client.set_image(png_of())
            return await asyncio.to_thread(lambda: asyncio.run(client.predict(*CLICK)))

        assert asyncio.run(road()).masks.any()


def test_a_closed_client_says_so():
    with grpc_server(FakeSam()) as (url, _):
        with SAM2TritonClient(url) as blocking:
            blocking.set_image(png_of())
        with pytest.raises(TritonSam2Error, match="closed"):
            blocking.predict(*CLICK)

        async def road():
            async with AsyncSAM2TritonClient(url) as client:
                await client.set_image(png_of())
            with pytest.raises(TritonSam2Error, match="closed"):
                await client.predict(*CLICK)

        asyncio.run(road())


def test_http_urls_are_refused():
    with pytest.raises(InvalidInputError, match="gRPC only, got http://localhost:8000"):
        AsyncSAM2TritonClient("localhost:8000")


def test_nobody_there():
    with pytest.raises(ServerUnreachableError, match="127.0.0.1:9"):
        asyncio.run(AsyncSAM2TritonClient("127.0.0.1:9").set_image(png_of()))


def test_beyond_four_megabytes_both_ways():
    async def road(url):
        async with AsyncSAM2TritonClient(url) as client:
            pixels = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
            result = await client.segment(pixels, *CLICK, multimask_output=True)
            assert result.masks.nbytes == 3 * 1200 * 1600

    with grpc_server(FakeSam()) as (url, _):
        asyncio.run(road(url))
