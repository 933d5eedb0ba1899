"""Both transports against real sockets; what must be the same is asked of both."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from triton_sam2 import (
    AccessDeniedError,
    CallCancelledError,
    CallTimeoutError,
    ImageNotFoundError,
    InvalidInputError,
    ModelNotFoundError,
    RetryPolicy,
    SAM2TritonClient,
    ServerError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from triton_sam2._transports.statuses import error_from_status

from tests.client.fake_servers import grpc_server, http_server
from tests.client.fakes import FakeSam, png_of
from tests.patience import PATIENCE_SECONDS, wait_until

NO_VERSIONS = "Request for unknown model: 'sam2' has no available versions"
CLICK = ([[30, 20]], [1])
QUICK = RetryPolicy(retries=1, first_pause_s=0.001)


@pytest.fixture(params=["grpc", "http"])
def url(request, sam):
    start = grpc_server if request.param == "grpc" else http_server
    with start(sam) as (url, _):
        yield url


@pytest.fixture
def client(url):
    with SAM2TritonClient(url, retry=QUICK) as client:
        yield client


@pytest.mark.parametrize("mask_format", ["bitmap", "logits", "rle", "png"])
def test_tensors_arrive_as_they_were_sent(client, mask_format):
    client.set_image(png_of())
    result = client.predict(
        [[[30, 20]], [[10, 9], [1, 2]]],
        [[1], [1, 0]],
        formats=mask_format,
        low_res_masks=True,
        multimask_output=True,
    )
    assert result.masks.shape == (2, 3, 40, 60)
    assert result.masks[0, 0].nonzero()[0].min() == 15
    assert result.iou_predictions.shape == (2, 3)
    assert result.low_res_masks.dtype == np.float32
    assert result.image_id == client.image_id
    assert result.original_hw == (40, 60)


def test_no_masks_at_all(client):
    client.set_image(png_of())
    result = client.predict(*CLICK, formats=(), low_res_masks=True)
    assert set(result.tensors) == {
        "low_res_masks",
        "iou_predictions",
        "cached_image_id",
        "original_hw",
    }


def test_beyond_four_megabytes_both_ways(client):
    pixels = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    client.set_image(pixels)
    assert client.predict(*CLICK, multimask_output=True).masks.nbytes == 3 * 1200 * 1600


def test_a_cached_click_sends_less_than_a_kilobyte(sam):
    with grpc_server(sam) as (url, servicer), SAM2TritonClient(url) as client:
        client.set_image(png_of())
        client.predict(*CLICK)
        assert servicer.sizes[-1] < 400
    with http_server(sam) as (url, server), SAM2TritonClient(url) as client:
        client.set_image(png_of())
        client.predict(*CLICK)
        headers, size = server.requests[-1]
        assert size + sum(len(f"{name}: {value}\r\n") for name, value in headers.items()) < 1024


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (InvalidInputError("point_coords: NaN"), InvalidInputError),
        (ServerUnavailableError("busy"), ServerUnavailableError),
        (RuntimeError("broken"), ServerError),
    ],
)
def test_the_servers_errors_keep_kind_and_message(client, sam, failure, expected):
    client.set_image(png_of())
    sam.failures = [failure] * 5
    with pytest.raises(expected) as caught:
        client.predict(*CLICK)
    assert type(caught.value) is expected
    assert str(caught.value) == str(failure)
    sam.failures = []
    assert client.predict(*CLICK).masks.any()


def test_a_forgotten_image_is_sent_again(client, sam):
    client.set_image(png_of())
    sam.sizes.clear()
    assert client.predict(*CLICK).masks.any()
    with pytest.raises(ImageNotFoundError):
        client.set_image(image_id="unheard of")


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_there(scheme):
    with socket.socket() as placeholder:  # bound but not listening: connections are refused
        placeholder.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{placeholder.getsockname()[1]}"
        with SAM2TritonClient(url) as client, pytest.raises(ServerUnreachableError) as caught:
            client.set_image(png_of())
    assert url in str(caught.value)
    assert "refused" in str(caught.value)
    assert "just serve" in str(caught.value)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_name_that_does_not_resolve(scheme):
    with (
        SAM2TritonClient(f"{scheme}://no-such-host.invalid") as client,
        pytest.raises(ServerUnreachableError),
    ):
        client.set_image(png_of())


def test_grpc_to_an_http_port_is_found_out(sam):
    with (
        http_server(sam) as (url, _),
        SAM2TritonClient(url.replace("http", "grpc")) as client,
        pytest.raises((ServerUnreachableError, CallTimeoutError)),
    ):
        client.set_image(png_of(), timeout=5)


def test_http_to_a_grpc_port_is_found_out(sam):
    with (
        grpc_server(sam) as (address, _),
        SAM2TritonClient(f"http://{address}") as client,
        pytest.raises(ServerUnreachableError, match="other protocol"),
    ):
        client.set_image(png_of(), timeout=PATIENCE_SECONDS)


@contextlib.contextmanager
def silent_server():
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_silence_ends_with_the_timeout(scheme):
    with silent_server() as port, SAM2TritonClient(f"{scheme}://127.0.0.1:{port}") as client:
        start = time.monotonic()
        with pytest.raises((CallTimeoutError, ServerUnavailableError)):
            client.set_image(png_of(), timeout=0.5)
        assert time.monotonic() - start > 0.4


def test_a_slow_answer_ends_with_the_timeout(client, sam):
    client.set_image(png_of())
    answer = FakeSam.infer
    over = threading.Event()

    def slow(request):
        over.wait(PATIENCE_SECONDS)
        return answer(sam, request)

    sam.infer = slow
    with pytest.raises(CallTimeoutError):
        client.predict(*CLICK, timeout=0.2)
    over.set()


def test_a_server_that_returns_is_found_again(sam):
    with grpc_server(sam) as (url, _):
        client = SAM2TritonClient(url)
        client.set_image(png_of())
    with pytest.raises(ServerUnavailableError):
        client.predict(*CLICK)
    sam.sizes.clear()
    with grpc_server(sam, port=int(url.rpartition(":")[2])), client:

        def is_found() -> bool:
            with contextlib.suppress(ServerUnavailableError):
                return client.predict(*CLICK).masks.any()
            return False

        wait_until(is_found, "the client to find the server again")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, b'{"error": "who are you"}', AccessDeniedError),
        (403, b"<html>Forbidden</html>", AccessDeniedError),
        (400, b'{"error": "image: not an image"}', InvalidInputError),
        (404, b'{"error": "Request for unknown model: \'sam2\' is not found"}', ModelNotFoundError),
        (404, f'{{"error": "{NO_VERSIONS}"}}'.encode(), ServerUnavailableError),
        (413, b"<html>too large</html>", InvalidInputError),
        (429, b"", ServerUnavailableError),
        (502, b"<html>Bad Gateway</html>", ServerUnavailableError),
        (504, b"", CallTimeoutError),
        (500, b'{"error": 3}', ServerError),
        (418, b"[]", ServerError),
        (200, b"<html>a web page</html>", ServerError),
        (200, b'{"outputs": []}', ServerError),
        (200, b'{"outputs": 3}', ServerError),
        (200, b"[]", ServerError),
        (
            200,
            b'{"outputs": [{"name": "cached_image_id", "datatype": "BYTES", "shape": [7], "data": ["x"]}]}',
            ServerError,
        ),
        (302, b"", ServerError),
    ],
)
def test_http_statuses_of_servers_and_gateways(sam, status, body, expected):
    with http_server(sam) as (url, server), SAM2TritonClient(url, retry=QUICK) as client:
        server.reply = (status, body)
        with pytest.raises(expected) as caught:
            client.set_image(png_of())
        assert type(caught.value) is expected


def test_redirects_are_not_followed(sam):
    """An image and an API key go where they were sent, and nowhere else."""
    with http_server(sam) as (url, server), SAM2TritonClient(url, retry=QUICK) as client:
        server.reply = (307, b"", {"Location": "/elsewhere"})
        with pytest.raises(ServerError, match="HTTP 307"):
            client.set_image(png_of())
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("NOT_FOUND", "send the image again", ImageNotFoundError),
        ("NOT_FOUND", "Request for unknown model: 'sam2' is not found", ModelNotFoundError),
        # What a server that stops says, with either status; and a model that was never there.
        ("NOT_FOUND", NO_VERSIONS, ServerUnavailableError),
        ("UNAVAILABLE", NO_VERSIONS, ServerUnavailableError),
        (
            "UNAVAILABLE",
            "Request for unknown model: 'sam2' version 1 is not at ready state",
            ServerUnavailableError,
        ),
        ("NOT_FOUND", f"in ensemble 'sam2', {NO_VERSIONS}", ServerUnavailableError),
        ("CANCELLED", "CANCELLED", ServerUnavailableError),
        ("CANCELLED", "Locally cancelled by application!", CallCancelledError),
        ("NOT_FOUND", "image_id: no image is kept under 'is not ready'", ImageNotFoundError),
        ("PERMISSION_DENIED", "", AccessDeniedError),
        ("UNIMPLEMENTED", "x", ServerError),
        ("SOMETHING_NEW", "x", ServerError),
    ],
)
def test_grpc_statuses(status, message, expected):
    assert type(error_from_status(status, message)) is expected


def test_headers_go_with_every_call(sam):
    headers = {"X-API-Key": "secret"}
    with grpc_server(sam) as (url, servicer), SAM2TritonClient(url, headers=headers) as client:
        client.segment(png_of(), *CLICK)
        client.predict(*CLICK)
        assert [metadata["x-api-key"] for metadata in servicer.metadata] == ["secret"] * 2
    with http_server(sam) as (url, server), SAM2TritonClient(url, headers=headers) as client:
        client.segment(png_of(), *CLICK)
        assert server.requests[0][0]["x-api-key"] == "secret"
        assert "secret" not in repr(client.__dict__["_images"].settings)


def test_many_threads_share_a_client(client):
    handles = [client.set_image(png_of(20 + index, 30)) for index in range(4)]

    def click(index):
        result = client.predict(*CLICK, image=handles[index % 4])
        return result.original_hw == (20 + index % 4, 30)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(click, range(200)))
