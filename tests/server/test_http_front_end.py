"""What Triton's HTTP front end lays out on a thread's stack must not end the server."""

import socket
from urllib.parse import urlsplit

import numpy as np
import pytest
import urllib3

from tests.photographs import photograph
from tests.raw_client import RawClient, bytes_tensor, click, large_form

pytestmark = pytest.mark.server

INFER = "/v2/models/sam2/infer"


def answers_a_good_request(server) -> bool:
    found = RawClient(server, "http").infer(
        image=bytes_tensor(photograph("coins.png")), **click(109, 199)
    )
    return bool(np.any(found["masks"]))


def test_a_large_image_that_is_called_a_form(server) -> None:
    body, headers = large_form()
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        answer = pool.request(
            "POST", f"http://{server.http_url}{INFER}", body=body, headers=headers
        )
    assert answer.status == 400
    assert "image: expected" in answer.json()["error"]
    assert answers_a_good_request(server)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deeply_nested_json(server, opening: bytes) -> None:
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        answer = pool.request("POST", f"http://{server.http_url}{INFER}", body=opening * 1_000_000)
    assert answer.status in (400, 500)
    assert "parse" in answer.json()["error"]
    assert answers_a_good_request(server)


def test_a_body_in_chunks_of_one_byte(server) -> None:
    url = urlsplit(f"http://{server.http_url}")
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        connection.sendall(b"1\r\n[\r\n" * 1_000_000 + b"0\r\n\r\n")
        assert connection.recv(1000).startswith((b"HTTP/1.1 400", b"HTTP/1.1 500"))
    assert answers_a_good_request(server)


@pytest.mark.parametrize("label", ["1.0", '"1"', "null"])
def test_json_that_triton_cannot_read_is_a_500_of_its_own(server, label: str) -> None:
    """As the README says: no model sees it, so no tensor is named."""
    body = (
        '{"inputs":[{"name":"image_id","shape":[1],"datatype":"BYTES","data":["x"]},'
        '{"name":"point_coords","shape":[1,1,2],"datatype":"FP32","data":[1,2]},'
        f'{{"name":"point_labels","shape":[1,1],"datatype":"INT32","data":[{label}]}}]}}'
    )
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        answer = pool.request("POST", f"http://{server.http_url}{INFER}", body=body)
    assert answer.status == 500
    assert answer.json()["error"].startswith("Unable to parse")


def test_a_browsers_preflight_is_refused(server) -> None:
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        answer = pool.request(
            "OPTIONS",
            f"http://{server.http_url}{INFER}",
            headers={"Origin": "https://page.example"},
        )
    assert answer.status == 405
    assert "access-control-allow-origin" not in answer.headers
