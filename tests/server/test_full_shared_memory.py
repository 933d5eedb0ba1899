"""Where shared memory is full an answer that has no room is refused: it neither hangs nor names a region.

The server's regions are small and would have to grow by more than any machine has.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click
from tests.running_server import RunningServer

pytestmark = pytest.mark.server

COINS = bytes_tensor(photograph("coins.png"))
OBJECTS = 60
BOXES = np.tile(np.array([[90, 180, 130, 220]], np.float32), (OBJECTS, 1))
REGION_MB, GROWTH_MB = 8, 1 << 24


@pytest.fixture(scope="module")
def full_server(demo_repository, tmp_path_factory) -> Iterator[RunningServer]:
    options = ("--no-probe", "--shm-mb", str(REGION_MB), "--shm-growth-mb", str(GROWTH_MB))
    with RunningServer(demo_repository, tmp_path_factory.mktemp("full"), *options) as server:
        yield server


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("mask_format", [b"bitmap", b"logits"])
def test_a_large_answer_is_refused_and_small_ones_go_on(full_server, protocol, mask_format):
    client = RawClient(full_server, protocol)
    small = client.infer(image=COINS, **click(109, 199))
    with pytest.raises(RefusedError) as refused:
        client.infer(image=COINS, box=BOXES, mask_format=bytes_tensor(mask_format))
    assert refused.value.status == "UNAVAILABLE"
    assert "no shared memory left" in refused.value.message
    assert "rle" in refused.value.message
    assert full_server.state["shm_prefix"] not in refused.value.message
    again = client.infer(image=COINS, **click(109, 199))
    assert np.array_equal(again["masks"], small["masks"])


def test_the_way_out_that_the_message_gives_is_one(full_server):
    client = RawClient(full_server, "grpc")
    answer = client.infer(image=COINS, box=BOXES[:20], mask_format=bytes_tensor(b"rle"))
    assert answer["masks_rle"].shape == (20, 1)
