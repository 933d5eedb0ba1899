"""Limits of the front that no other file tries: what is under way, pictures, streams, time; each by name."""

import asyncio
import re
import socket
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from front import rest, rest_everything
from front.callers import Callers
from front.grpc_protocol import GrpcProtocol
from front.metrics import FrontMetrics
from front.refusals import Refusal
from front.service import FrontService
from front.settings import Limits
from front.triton import Triton
from front.triton_request import Parcel
from prometheus_client import CollectorRegistry

from tests.front.samples import click_request
from tests.running_server import ROOT

LIMITS = replace(
    Limits(),
    max_requests_at_once=3,
    max_bytes_at_once=1000,
    max_rendered_pixels=10_000,
    max_unpacked_pixels=100_000,
    stream_window=2,
)


def test_the_readme_has_every_limit_with_its_default():
    rows = re.findall(
        r"^\| (?:`front` )?\| `(\w+)` \| ([\d.]+)( million)? \|",
        (ROOT / "README.md").read_text().partition("The front's, in")[2],
        re.M,
    )
    stated = {name: float(number) * (1e6 if unit else 1) for name, number, unit in rows}
    assert stated == vars(Limits())


def service_of(limits=LIMITS):
    metrics = FrontMetrics(CollectorRegistry())
    return FrontService(None, Callers(None, limits), metrics, limits)


def refused(call):
    with pytest.raises(Refusal) as error:
        call()
    return error.value


def test_requests_under_way():
    async def scenario():
        service = service_of()
        caller = service.callers.recognise({})
        with ExitStack() as under_way:
            for _ in range(3):
                under_way.enter_context(service.admitted(caller))
            refusal = refused(lambda: under_way.enter_context(service.admitted(caller)))
            assert (refusal.code, refusal.http_status) == (grpc.StatusCode.UNAVAILABLE, 503)
            assert "max_requests_at_once" in refusal.message
        with service.admitted(caller):
            pass

    asyncio.run(scenario())


def test_bytes_under_way():
    async def scenario():
        service = service_of()
        caller = service.callers.recognise({})
        with service.admitted(caller) as first, service.admitted(caller) as second:
            first.hold(600)
            refusal = refused(lambda: second.hold(401))
            assert (refusal.code, refusal.http_status) == (grpc.StatusCode.UNAVAILABLE, 503)
            assert "max_bytes_at_once 1000" in refusal.message
            second.hold(400)
        with service.admitted(caller) as third:
            third.hold(1000)

    asyncio.run(scenario())


def segmented(objects, candidates, hw):
    return SimpleNamespace(iou_predictions=np.zeros((objects, candidates)), original_hw=hw)


def test_pixels_that_are_unpacked():
    for wanted, objects, candidates in (("png", 1, 3), ("polygons", 1, 1), ("overlay", 1, 3)):
        rest._check_pixels(segmented(objects, candidates, (100, 100)), wanted, LIMITS)
    rest._check_pixels(segmented(256, 3, (1000, 1000)), "rle", LIMITS)
    for wanted, result in (
        ("png", segmented(1, 1, (100, 101))),
        ("polygons", segmented(1, 3, (100, 100))),
        ("overlay", segmented(2, 1, (100, 100))),
    ):
        refusal = refused(partial(rest._check_pixels, result, wanted, LIMITS))
        assert refusal.http_status == 413
        assert "max_rendered_pixels" in refusal.message


class Generated(list):
    original_hw = (100, 100)


def test_pixels_of_everything_in_an_image():
    for wanted in ("labels", "polygons", "overlay"):
        rest_everything._check_pixels(Generated([0] * 10), wanted, LIMITS)
        refusal = refused(
            partial(rest_everything._check_pixels, Generated([0] * 11), wanted, LIMITS)
        )
        assert refusal.http_status == 413
        assert "max_unpacked_pixels" in refusal.message
    rest_everything._check_pixels(Generated([0] * 1000), "rle", LIMITS)


def test_pictures_that_are_drawn_at_once():
    async def scenario():
        service = service_of(replace(LIMITS, renderings_at_once=2))
        async with service.rendering, service.rendering:
            assert service.rendering.locked()

    asyncio.run(scenario())


def test_messages_of_a_stream_that_are_computed_at_once():
    async def scenario():
        service = service_of()
        sent, most, running = 0, 0, 0

        async def prepared(caller, message):
            nonlocal most, running
            running += 1
            most = max(most, running)
            return b""

        async def infer(prepared, timeout_s=None):
            nonlocal running
            await asyncio.sleep(0)
            running -= 1
            return b""

        async def requests():
            nonlocal sent
            for _ in range(20):
                sent += 1
                yield click_request().SerializeToString()

        service.prepared, service.infer = prepared, infer
        answers = GrpcProtocol(service)._stream_answers(service.callers.recognise({}), requests())
        async for _ in answers:
            assert running <= 2
            break
        # Nobody takes a second answer: no more than the window is read from the sender.
        for _ in range(50):
            await asyncio.sleep(0)
        assert sent <= 4
        assert most <= 2
        await answers.aclose()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_every_message_of_a_stream_is_a_request_of_its_key(tmp_path):
    """It takes of the key's rate; those above it are told so, each in its answer."""
    key = "k" * 32
    keys = tmp_path / "api_keys"
    keys.write_text(f"alice {key}\n")

    async def scenario():
        service = service_of()
        limits = replace(LIMITS, burst=5, requests_per_second=1.0)
        service.callers = Callers(keys, limits, clock=lambda: 0.0)

        async def nothing(*_arguments):
            return b""

        service.prepared = service.infer = nothing

        async def requests():
            for _ in range(8):
                yield click_request().SerializeToString()

        caller = service.callers.recognise({"x-api-key": key})
        answers = GrpcProtocol(service)._stream_answers(caller, requests())
        return [b"requests_per_second" in answer async for answer in answers]

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == [False] * 5 + [True] * 3


def test_time_until_the_answer():
    async def scenario(port):
        triton = Triton(f"127.0.0.1:{port}")
        try:
            with pytest.raises(Refusal) as error:
                await triton.infer(Parcel(b""), 0.3)
        finally:
            triton.close()
        return error.value

    with socket.create_server(("127.0.0.1", 0)) as silent:
        refusal = asyncio.run(scenario(silent.getsockname()[1]))
    assert refusal.code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert refusal.http_status in (503, 504)
