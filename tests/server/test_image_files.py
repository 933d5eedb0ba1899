"""Other people's image files on a real server: right masks, or a word of what is wrong, and nobody waits."""

import io
import os
import signal

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.masks import overlap
from tests.models.test_image_files import scans, with_exif
from tests.models.test_image_process import black_png
from tests.models.tiff_writer import LONG, page, tiff
from tests.photographs import photograph
from tests.raw_client import RawClient, RefusedError, bytes_tensor, click

pytestmark = pytest.mark.server

GREY = np.asarray(Image.open(io.BytesIO(photograph("coins.png"))).convert("L"))
CLICK = click(109, 199)


@pytest.fixture(params=["grpc", "http"])
def client(request, server) -> RawClient:
    return RawClient(server, request.param)


def mask(client: RawClient, data: bytes) -> np.ndarray:
    return client.infer(image=bytes_tensor(data), **CLICK)["masks"][0, 0]


def of_bits(bits: int, **layout) -> bytes:
    samples = np.round(GREY * (((1 << bits) - 1) / 255)).astype(int)
    return tiff([page(samples[..., None].repeat(layout.pop("colours", 1), -1), bits, **layout)])


THUMBNAIL = page(GREY[::8, ::8, None], 8, 1, t254=(LONG, [1]))
SAME_PICTURE = {
    "12 bits": of_bits(12, photometric=1),
    "planes of 16 bits": of_bits(16, photometric=2, colours=3, planar=True),
    "a thumbnail page": tiff([page(GREY[..., None], 8, 1), THUMBNAIL]),
}


@pytest.mark.parametrize("name", SAME_PICTURE)
def test_the_masks_are_those_of_the_8_bit_picture(client, name):
    expected = mask(client, photograph("coins.png"))
    found = mask(client, SAME_PICTURE[name])
    assert 800 < expected.sum() < 4000
    assert overlap(found, expected) > 0.98


def test_bombs_are_refused_by_the_limits_name(client):
    level = page(np.zeros((2, 2, 1), int), 8, 1, t254=(LONG, [1]))
    for data, limit in (
        (scans(200), "max_jpeg_scans"),
        (tiff([level] * 2000), "max_tiff_directories"),
        (black_png(99_999_999, 1), "max_image_side"),
        (bytes((64 << 20) + 1), "max_image_bytes"),
    ):
        with pytest.raises(RefusedError) as refusal:
            mask(client, data)
        assert refusal.value.status == "INVALID_ARGUMENT"
        assert limit in str(refusal.value)
        assert str(refusal.value).count("image: ") == 1


def test_an_odd_exif_block_costs_nothing(client):
    data = io.BytesIO()
    Image.fromarray(GREY).save(data, "PNG", exif=with_exif(6))
    assert mask(client, data.getvalue()).shape == (384, 303)


def test_a_decoder_that_was_ended_is_replaced_at_the_next_image(server):
    workers = [
        process
        for process in psutil.Process(server.server_pid).children(recursive=True)
        if any(argument.endswith("image_worker.py") for argument in process.cmdline())
    ]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    psutil.wait_procs(workers, timeout=10)
    client = RawClient(server, "grpc")
    for shade in range(4):  # both instances
        data = io.BytesIO()
        Image.new("L", (64, 48), 40 + shade).save(data, "PNG")
        assert mask(client, data.getvalue()).shape == (48, 64)
